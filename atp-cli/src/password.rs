//! Asking a person for the password of a host.

use std::io::{self, IsTerminal as _, Write as _};

use atp_transport::{HostInfo, Password, PasswordSource};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::exit::Signal;
use crate::problem::{Failure, Problem};
use crate::signals::Interrupts;

/// Asks for the host's password, if that is where it is to come from, and keeps it with the host.
///
/// # Errors
/// There is nobody to ask, or a signal came.
pub(crate) async fn ask_if_wanted(host: &mut HostInfo, interrupts: &Interrupts) -> Result<(), Failure> {
    let id = host.id.clone();
    let Some(credentials) = &mut host.credentials else { return Ok(()) };
    if credentials.password != Some(PasswordSource::Prompt) {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = format!("the password of host {id} is to be asked for, and there is no terminal");
        let hint = "use password_file or password_env in the host's auth section instead";
        return Err(Problem::new(message).hint(hint).into());
    }
    let name = credentials.username.as_deref().map(|name| format!(" of {name}")).unwrap_or_default();
    let question = format!("Password{name} for host {id}: ");
    let modes = tcgetattr(io::stdin());
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A thread of its own: reading from a terminal cannot be stopped, and must not keep the process.
    std::thread::spawn(move || {
        let _ = answer.send(rpassword::prompt_password(question));
    });
    let answered = tokio::select! {
        answered = answered => answered,
        signal = interrupts.first() => {
            // The thread that asks ends with the process, and leaves the terminal without an echo.
            if let Ok(modes) = modes {
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
            }
            let _ = writeln!(io::stderr());
            return Err(Failure::Interrupted(signal));
        }
    };
    let password = match answered {
        Ok(Ok(password)) => password,
        // Ctrl-C is a key to who reads keys.
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
            return Err(Failure::Interrupted(interrupts.received().unwrap_or(Signal::Interrupt)));
        }
        Ok(Err(error)) => {
            return Err(Problem::new(format!("no password for host {id}")).because(&error).into());
        }
        Err(_) => return Err(Problem::new("the password could not be asked for").into()),
    };
    credentials.password = Some(PasswordSource::Given(Password::new(password)));
    Ok(())
}
