//! Connection URIs: `driver[+transport]://[user@][host][:port]/path[?parameter=value&…]`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a daemon is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A socket of this machine.
    Unix,
    /// TCP, in the clear.
    Tcp,
    /// TLS.
    Tls,
    /// The system's ssh.
    Ssh,
    /// A command of the user's own.
    Ext,
}

/// The parameters that a client consumes. The others go to the daemon, in the name that it opens.
const CONSUMED: [&str; 17] = [
    "name",
    "command",
    "socket",
    "auth",
    "sshauth",
    "netcat",
    "keyfile",
    "pkipath",
    "known_hosts",
    "known_hosts_verify",
    "tls_priority",
    "mode",
    "proxy",
    "no_sanity",
    "no_verify",
    "no_tty",
    "authfile",
];

/// A connection URI.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri {
    /// The driver: `qemu`. Empty in the URI of whatever the daemon offers.
    pub driver: String,
    /// How the daemon is reached.
    pub transport: Transport,
    /// The user, for ssh.
    pub user: Option<String>,
    /// The host: a name or an address, without brackets.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The path, with its slash: `/system`.
    pub path: String,
    parameters: Vec<(String, String)>,
}

/// Why a text is no URI that can be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UriError {
    /// It is not of the form `driver://`.
    #[error("no URI of the form driver[+transport]://[user@][host][:port]/path")]
    Form,
    /// A character that has no place in a URI.
    #[error("the character {0:?} has to be written as %{code:02X}", code = u32::from(*.0))]
    Character(char),
    /// A `%` without two hexadecimal digits, or one that gives a NUL or no UTF-8.
    #[error("a bad %-sequence")]
    Escape,
    /// The port is no number up to 65535.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// The transport is not known.
    #[error("the transport {0:?} is not known; there are unix, tcp, tls, ssh and ext")]
    Transport(String),
    /// The transport needs a host.
    #[error("no host after //, where ssh needs one")]
    Host,
    /// Something that cannot be honoured.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl Uri {
    /// The URI of whatever the daemon of this machine offers.
    pub fn local() -> Self {
        Uri {
            driver: String::new(),
            transport: Transport::Unix,
            user: None,
            host: None,
            port: None,
            path: String::new(),
            parameters: Vec::new(),
        }
    }

    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is a number other than 0.
    pub fn flag(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| value.parse::<i64>().is_ok_and(|number| number != 0))
    }

    /// The name that the daemon is asked to open; none to let it choose.
    pub fn name(&self) -> Option<String> {
        if let Some(name) = self.parameter("name") {
            return Some(name.to_owned()).filter(|name| !name.is_empty());
        }
        if self.driver.is_empty() {
            return None;
        }
        let mut name = format!("{}:///{}", self.driver, escape(self.path.trim_start_matches('/'), b"/"));
        let others = self.parameters.iter().filter(|(name, _)| !CONSUMED.contains(&name.as_str()));
        for (n, (parameter, value)) in others.enumerate() {
            name.push(if n == 0 { '?' } else { '&' });
            name.push_str(&format!("{}={}", escape(parameter, b""), escape(value, b"")));
        }
        Some(name)
    }

    /// Whether it names the daemon of the user, not that of the machine.
    pub fn is_session(&self) -> bool {
        self.path == "/session"
    }
}

/// Without parameters: they may hold what belongs in no log.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.driver.is_empty() {
            return f.write_str("the daemon of this machine");
        }
        let transport = match (self.transport, &self.host) {
            (Transport::Unix, None) | (Transport::Tls, Some(_)) => "",
            (Transport::Unix, _) => "+unix",
            (Transport::Tcp, _) => "+tcp",
            (Transport::Tls, _) => "+tls",
            (Transport::Ssh, _) => "+ssh",
            (Transport::Ext, _) => "+ext",
        };
        write!(f, "{}{transport}://", self.driver)?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({self})")
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if let Some(bad) =
            text.chars().find(|c| c.is_whitespace() || c.is_control() || "<>\"\\^`{|}".contains(*c))
        {
            return Err(UriError::Character(bad));
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").ok_or(UriError::Form)?;
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (scheme, None),
        };
        if driver.is_empty() || !driver.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
            return Err(UriError::Form);
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.find('/').map_or((before, ""), |slash| before.split_at(slash));
        let (user, place) = match authority.rsplit_once('@') {
            // A password in a URI is of no use to libvirt either.
            Some((user, place)) => (user.split(':').next(), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place)?;
        let transport = match (transport, host.is_empty()) {
            (None, true) | (Some("unix"), _) => Transport::Unix,
            (None, false) | (Some("tls"), _) => Transport::Tls,
            (Some("tcp"), _) => Transport::Tcp,
            (Some("ssh"), false) => Transport::Ssh,
            (Some("ssh"), true) => return Err(UriError::Host),
            (Some("ext"), _) => Transport::Ext,
            (Some("libssh" | "libssh2"), _) => {
                return Err(UriError::Unsupported("libssh is not built in; the system's ssh is: +ssh"));
            }
            (Some(other), _) => return Err(UriError::Transport(other.to_owned())),
        };
        let pairs = query.split(['&', ';']).filter(|pair| !pair.is_empty());
        let parameters = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((unescape(name)?, unescape(value)?))
            })
            .collect::<Result<Vec<_>, UriError>>()?;
        let some = |text: &str| unescape(text).map(|text| Some(text).filter(|text| !text.is_empty()));
        let uri = Uri {
            driver: driver.to_owned(),
            transport,
            user: some(user.unwrap_or_default())?,
            host: some(host)?,
            port,
            path: unescape(path)?,
            parameters,
        };
        if uri.parameter("tls_priority").is_some() {
            let reason = "tls_priority is in GnuTLS' own language and cannot be honoured: leave it out";
            return Err(UriError::Unsupported(reason));
        }
        Ok(uri)
    }
}

/// Splits the host, without brackets, from the port.
fn split_port(place: &str) -> Result<(&str, Option<u16>), UriError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UriError::Form)?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(UriError::Form)?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let number = |port: &str| match port.parse() {
        Ok(0) | Err(_) => Err(UriError::Port),
        Ok(port) => Ok(port),
    };
    Ok((host, port.filter(|port| !port.is_empty()).map(number).transpose()?))
}

fn unescape(text: &str) -> Result<String, UriError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((byte, rest)) = left.split_first() {
        left = rest;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, rest) = left.split_first_chunk::<2>().ok_or(UriError::Escape)?;
        let digit = |of: u8| char::from(of).to_digit(16).ok_or(UriError::Escape);
        // Two hexadecimal digits are a byte.
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        left = rest;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or(UriError::Escape)
}

fn escape(text: &str, kept: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_parts_of_a_uri() {
        let parsed = uri("qemu+ssh://me@h.example:2222/system?keyfile=/a%20b&x=y#f");
        assert_eq!((parsed.driver.as_str(), parsed.transport), ("qemu", Transport::Ssh));
        assert_eq!((parsed.user.as_deref(), parsed.host.as_deref()), (Some("me"), Some("h.example")));
        assert_eq!((parsed.port, parsed.path.as_str()), (Some(2222), "/system"));
        assert_eq!(parsed.parameter("keyfile"), Some("/a b"));
        assert_eq!(parsed.name().as_deref(), Some("qemu:///system?x=y"));
        assert_eq!(parsed.to_string(), "qemu+ssh://me@h.example:2222/system");
        assert_eq!(uri("qemu+tcp://[fe80::1%25eth0]:1/system").host.as_deref(), Some("fe80::1%eth0"));
        assert_eq!(uri("test+unix:///default?name=test:///x").name().as_deref(), Some("test:///x"));
        assert_eq!(Uri::local().name(), None);
    }

    #[test]
    fn the_transport_follows_from_the_host() {
        for (text, transport) in [
            ("qemu:///system", Transport::Unix),
            ("qemu://h/system", Transport::Tls),
            ("qemu+tcp:///system", Transport::Tcp),
            ("qemu+unix://h/system", Transport::Unix),
        ] {
            assert_eq!(uri(text).transport, transport, "{text}");
        }
    }

    #[test]
    fn what_virsh_refuses_is_refused() {
        for (text, error) in [
            (" qemu:///system", UriError::Character(' ')),
            ("qemu+ssh://h/system?keyfile=a b", UriError::Character(' ')),
            ("qemu:/system", UriError::Form),
            ("://h", UriError::Form),
            ("qemu+tcp://h:0/", UriError::Port),
            ("qemu+tcp://h:99999/", UriError::Port),
            ("qemu+tcp://[::1/", UriError::Form),
            ("qemu+ssh:///system", UriError::Host),
            ("qemu:///%zz", UriError::Escape),
            ("qemu:///%00", UriError::Escape),
            ("qemu+foo://h/", UriError::Transport("foo".into())),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
        let refused = "qemu://h/system?tls_priority=NORMAL".parse::<Uri>().unwrap_err();
        assert!(refused.to_string().contains("tls_priority"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,60}") {
            let _any = text.parse::<Uri>();
        }

        #[test]
        fn what_is_escaped_is_unescaped_again(text in "[^\0]{0,30}") {
            prop_assert_eq!(unescape(&escape(&text, b"/")), Ok(text));
        }
    }
}
