//! Asks for the password of a host on the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use atp_transport::{HostInfo, Password, PasswordSource};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::exit::Signal;
use crate::problem::{Failure, Problem};
use crate::signals::Interrupts;

/// Asks for the host's password, if its settings say so, and stores it in the host.
///
/// # Errors
/// There is no terminal to ask on, or a signal came.
pub(crate) async fn ask_if_wanted(host: &mut HostInfo, interrupts: &Interrupts) -> Result<(), Failure> {
    let id = host.id.clone();
    let Some(credentials) = &mut host.credentials else { return Ok(()) };
    if credentials.password != Some(PasswordSource::Prompt) {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = format!("the password of host {id} needs a prompt, and there is no terminal");
        let hint = "use password_file or password_env in the host's auth section instead";
        return Err(Problem::new(message).hint(hint).into());
    }
    let name = credentials.username.as_deref().map(|name| format!(" of {name}")).unwrap_or_default();
    let question = format!("Password{name} for host {id}: ");
    let modes = tcgetattr(io::stdin());
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A separate thread, because reading from a terminal cannot be cancelled and must not keep the process alive.
    std::thread::spawn(move || {
        let _ = answer.send(rpassword::prompt_password(question));
    });
    let answered = tokio::select! {
        answered = answered => answered,
        signal = interrupts.first() => {
            // The thread that asks ends with the process, and would leave the terminal's echo off.
            if let Ok(modes) = modes {
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
            }
            let _ = writeln!(io::stderr());
            return Err(Failure::Interrupted(signal));
        }
    };
    let password = match answered {
        Ok(Ok(password)) => password,
        // While keys are read, Ctrl-C arrives as a key and not as a signal.
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
            return Err(Failure::Interrupted(interrupts.received().unwrap_or(Signal::Interrupt)));
        }
        Ok(Err(error)) => {
            return Err(Problem::new(format!("no password for host {id}")).because(&error).into());
        }
        Err(_) => return Err(Problem::new("the password prompt failed").into()),
    };
    credentials.password = Some(PasswordSource::Given(Password::new(password)));
    Ok(())
}
