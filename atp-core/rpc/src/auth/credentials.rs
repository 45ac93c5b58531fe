//! User names and passwords: given, or in libvirt's `auth.conf`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use crate::connect_error::ConnectFailure;
use crate::settings;
use crate::uri::Uri;

/// The most of an `auth.conf` that is read, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A user name and a password, for SASL.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Those for the host of a URI in the first `auth.conf` there is: that of `LIBVIRT_AUTH_FILE`, of `authfile=` in the
/// URI, of the user, of the system.
pub(super) async fn find(uri: &Uri) -> Result<Credentials, ConnectFailure> {
    let named = std::env::var_os("LIBVIRT_AUTH_FILE").map(PathBuf::from);
    let named = named.or_else(|| uri.parameter("authfile").map(PathBuf::from));
    let read = move || {
        let path = named.or_else(|| settings::file("auth.conf")).ok_or(ConnectFailure::NoCredentials)?;
        settings::read(&path, MAX_FILE)
    };
    let text = settings::reading(read).await?;
    let host = uri.host.as_deref().unwrap_or("localhost");
    Credentials::in_auth_conf(&text, host).ok_or(ConnectFailure::NoCredentials)
}

impl Credentials {
    /// Those for the host of a URI in the first `auth.conf` there is, as [`Connection::open`](crate::Connection::open) finds them.
    ///
    /// # Errors
    /// The file cannot be read, or has none for this host.
    pub async fn in_file_for(uri: &str) -> Result<Self, ConnectFailure> {
        find(&settings::resolve(uri).await?).await
    }

    /// Those for a host in the text of an `auth.conf`.
    ///
    /// Sections `[credentials-NAME]` hold `authname` and `password`; `[auth-libvirt-HOST]`, or with `default` as host,
    /// say by `credentials` which.
    pub fn in_auth_conf(text: &str, host: &str) -> Option<Self> {
        let mut sections: HashMap<&str, HashMap<&str, &str>> = HashMap::new();
        let mut section = "";
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once('=') {
                sections.entry(section).or_default().insert(key.trim(), value.trim());
            }
        }
        let which = |host: &str| sections.get(format!("auth-libvirt-{host}").as_str())?.get("credentials");
        let name = which(host).or_else(|| which("default"))?;
        let found = sections.get(format!("credentials-{name}").as_str())?;
        let user = found.get("authname").or_else(|| found.get("username"))?;
        Some(Credentials { user: (*user).to_owned(), password: (*found.get("password")?).to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_come_before_the_default() {
        let text = "# c\n[credentials-a]\nauthname=ann\npassword = a=b\n[credentials-b]\nauthname=bob\n\
                    password=x\n[auth-libvirt-h1]\ncredentials=a\n[auth-libvirt-default]\ncredentials=b\n";
        let of = |host| Credentials::in_auth_conf(text, host).map(|found| (found.user, found.password));
        assert_eq!(of("h1"), Some(("ann".into(), "a=b".into())));
        assert_eq!(of("h2"), Some(("bob".into(), "x".into())));
        assert_eq!(Credentials::in_auth_conf("[auth-libvirt-h]\ncredentials=none\n", "h"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let secret = Credentials { user: "u".into(), password: "hidden".into() };
        assert!(!format!("{secret:?}").contains("hidden"));
    }
}
