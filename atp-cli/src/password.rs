//! Asking a person for the password of a host.

use std::io::{self, IsTerminal as _};

use atp_transport::{HostInfo, Password, PasswordSource};

use crate::problem::Problem;

/// Asks for the host's password, if that is where it is to come from, and keeps it with the host.
///
/// # Errors
/// There is nobody to ask.
pub(crate) async fn ask_if_wanted(host: &mut HostInfo) -> Result<(), Problem> {
    let id = host.id.clone();
    let Some(credentials) = &mut host.credentials else { return Ok(()) };
    if credentials.password != Some(PasswordSource::Prompt) {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Problem::new(format!(
            "the password of host {id} is to be asked for, and there is no terminal"
        ))
        .hint("use password_file or password_env in the host's auth section instead"));
    }
    let name = credentials.username.as_deref().map(|name| format!(" of {name}")).unwrap_or_default();
    let question = format!("Password{name} for host {id}: ");
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A thread of its own: reading from a terminal cannot be stopped, and must not keep the process.
    std::thread::spawn(move || {
        let _ = answer.send(rpassword::prompt_password(question));
    });
    let password = answered.await.map_err(|_| Problem::new("the password could not be asked for"))?;
    let password =
        password.map_err(|error| Problem::new(format!("no password for host {id}")).because(&error))?;
    credentials.password = Some(PasswordSource::Given(Password::new(password)));
    Ok(())
}
