//! Who we are to a daemon that asks (SASL), and where the password comes from. It is read when a connection is opened,
//! and kept nowhere.

use std::fmt;
use std::fs;
use std::path::PathBuf;

/// What a daemon is answered when it asks who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: Option<String>,
    /// Where the password comes from.
    pub password: Option<PasswordSource>,
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A person, who has to be asked before hosts are connected to.
    Prompt,
    /// It is here.
    Given(Password),
}

/// A password. It is never printed, [`Debug`](fmt::Debug) included.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password.
    pub fn new(text: impl Into<String>) -> Self {
        Password(text.into())
    }

    /// The password itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PasswordSource {
    /// Gets the password. Blocks where it is in a file.
    ///
    /// # Errors
    /// Why it cannot be had, in words.
    pub(crate) fn get(&self) -> Result<Password, String> {
        match self {
            PasswordSource::Given(password) => Ok(password.clone()),
            PasswordSource::File(path) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    format!("the password file {} cannot be read: {error}", path.display())
                })?;
                Ok(Password::new(text.lines().next().unwrap_or_default()))
            }
            PasswordSource::Environment(name) => std::env::var(name)
                .map(Password::new)
                .map_err(|_| format!("the variable {name}, which should contain the password, is not set")),
            PasswordSource::Prompt => Err("the password needs a prompt, and there is no terminal".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let password = PasswordSource::Given(Password::new("hunter2"));
        let credentials = Credentials { username: Some("me".into()), password: Some(password) };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_s_first_line_counts_and_what_is_missing_is_said() {
        let path = std::env::temp_dir().join(format!("atp-password-{}", std::process::id()));
        fs::write(&path, "hunter2\nsecond\n").unwrap();
        assert_eq!(PasswordSource::File(path.clone()).get().unwrap().reveal(), "hunter2");
        fs::remove_file(&path).unwrap();
        assert!(PasswordSource::File(path.clone()).get().unwrap_err().contains(&path.display().to_string()));
        let unset = PasswordSource::Environment("ATP_TEST_NO_SUCH_VARIABLE".into());
        assert!(unset.get().unwrap_err().contains("ATP_TEST_NO_SUCH_VARIABLE"));
    }
}
