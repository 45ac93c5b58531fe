//! Login data of the guest: passwords and SSH keys.

use std::fmt;

use qapi::qga;
use tokio::time::Instant;

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};

/// A password. Messages, logs and debug output never contain it.
#[derive(Clone)]
pub struct Password {
    text: String,
    encrypted: bool,
}

impl Password {
    /// A password in plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Password { text: text.into(), encrypted: false }
    }

    /// An encrypted password as in `/etc/shadow`: `$6$SALT$HASH`. Windows guests accept none.
    pub fn encrypted(text: impl Into<String>) -> Self {
        Password { text: text.into(), encrypted: true }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Sets the password of a user of the guest (`guest-set-user-password`).
///
/// # Errors
/// The error of the carrier or the agent, for example that there is no such user; and
/// [`InvalidCommand`](ProtocolError::InvalidCommand) for text that the guest would split into several lines or fields.
pub async fn set_password(
    carrier: &impl Carrier,
    user: &str,
    password: &Password,
    deadline: Instant,
) -> Result<()> {
    let invalid = |reason: &str| Err(ProtocolError::InvalidCommand { reason: reason.to_owned() });
    if user.is_empty() || user.contains([':', '\n', '\0']) {
        return invalid("the user's name is empty, or has a colon, a line feed or a NUL character");
    }
    if password.text.contains(['\n', '\0']) {
        return invalid("the password has a line feed or a NUL character");
    }
    let command = qga::guest_set_user_password {
        username: user.to_owned(),
        password: password.text.clone().into_bytes(),
        crypted: password.encrypted,
    };
    agent::execute(carrier, &command, deadline).await.map(drop)
}

/// The public keys with which a user of the guest can log in (`guest-ssh-get-authorized-keys`).
///
/// # Errors
/// The error of the carrier or the agent, for example that there is no such user or no file of keys.
pub async fn ssh_keys(carrier: &impl Carrier, user: &str, deadline: Instant) -> Result<Vec<String>> {
    let command = qga::guest_ssh_get_authorized_keys { username: user.to_owned() };
    Ok(agent::execute(carrier, &command, deadline).await?.keys)
}

/// Adds public keys for a user of the guest, or replaces all keys with them if `replace` is set
/// (`guest-ssh-add-authorized-keys`). An existing key is not added again.
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn add_ssh_keys(
    carrier: &impl Carrier,
    user: &str,
    keys: &[String],
    replace: bool,
    deadline: Instant,
) -> Result<()> {
    let command = qga::guest_ssh_add_authorized_keys {
        username: user.to_owned(),
        keys: keys.to_vec(),
        reset: replace.then_some(true),
    };
    agent::execute(carrier, &command, deadline).await.map(drop)
}

/// Removes public keys of a user of the guest. A key that does not exist is not an error
/// (`guest-ssh-remove-authorized-keys`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn remove_ssh_keys(
    carrier: &impl Carrier,
    user: &str,
    keys: &[String],
    deadline: Instant,
) -> Result<()> {
    let command = qga::guest_ssh_remove_authorized_keys { username: user.to_owned(), keys: keys.to_vec() };
    agent::execute(carrier, &command, deadline).await.map(drop)
}
