//! What a libvirt URI says about the way to its daemon.

use atp_api::Hint;

use crate::error::{ConnectError, ConnectStage, ErrorKind};

/// A libvirt URI that has been looked at: `driver[+transport]://[user@][host][:port]/path[?parameters]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LibvirtUri {
    /// The URI as it is opened.
    pub(crate) text: String,
    /// As [`text`](Self::text), fit for logs and errors: without a password and without parameters.
    pub(crate) shown: String,
    /// How the daemon is reached.
    pub(crate) transport: Transport,
    /// The user in the URI.
    pub(crate) user: Option<String>,
    /// The host in the URI, without brackets.
    pub(crate) host: Option<String>,
    /// Host and port of the daemon's own socket, where the transport is TCP or TLS.
    pub(crate) socket: Option<(String, u16)>,
    /// Whether it says how TLS is spoken, in GnuTLS' own language.
    has_tls_priority: bool,
}

/// How a daemon is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A socket of this machine.
    Unix,
    Tcp,
    Tls,
    /// The system's ssh.
    Ssh,
    /// An ssh inside the C library.
    LibSsh,
    /// A command of the user's own.
    Ext,
    /// The driver's own way: it is inside the C library.
    Driver,
}

/// Ports of libvirt's daemons, as assigned by IANA.
const TCP_PORT: u16 = 16509;
const TLS_PORT: u16 = 16514;

const TRANSPORTS: [&str; 7] = ["unix", "tcp", "tls", "ssh", "libssh", "libssh2", "ext"];

/// Drivers that are inside the C library where their URI names no transport.
const OF_THE_LIBRARY: [&str; 4] = ["esx", "gsx", "vpx", "hyperv"];

/// Drivers that are inside it where their URI names no host either: those of another host are in its daemon.
const OF_THE_LIBRARY_HERE: [&str; 5] = ["test", "openvz", "vmwareplayer", "vmwarews", "vmwarefusion"];

/// Parameters that are paths. libvirt and ssh take them as they are.
const PATHS: [&str; 6] = ["keyfile", "pkipath", "socket", "known_hosts", "authfile", "command"];

/// What can be tried where nothing listens for TLS.
const TLS_HINT: &str = "check that the daemon runs there and listens for connections: for TLS by libvirtd --listen or virtproxyd-tls.socket, on that port";

impl LibvirtUri {
    /// Looks at a URI, or at a name for one in `libvirt.conf` (`uri_aliases`).
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("the URI contains a NUL character".to_owned());
        }
        match meant(text)? {
            Some(target) => LibvirtUri::read(&target),
            None => LibvirtUri::read(text),
        }
    }

    /// The text is not repeated in full in errors: it may hold a password.
    fn read(text: &str) -> Result<Self, String> {
        let invalid = |why: &str| format!("the URI {:?} is not valid: {why}", shorten(text));
        if let Some(bad) =
            text.chars().find(|c| c.is_whitespace() || c.is_control() || "<>\"\\^`{|}".contains(*c))
        {
            let code = u32::from(bad);
            return Err(invalid(&format!("it contains {bad:?}, which a URI has as %{code:02X}")));
        }
        let opened = text.split('#').next().unwrap_or_default();
        let Some((scheme, rest)) = opened.split_once("://") else {
            return Err(invalid("'//' is missing after the scheme"));
        };
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (scheme, None),
        };
        if driver.is_empty() || !driver.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
            return Err(invalid("it has no driver before '://', such as qemu"));
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.find('/').map_or((before, ""), |slash| before.split_at(slash));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (user.split(':').next(), place),
            None => (None, authority),
        };
        let at_user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let shown = format!("{scheme}://{at_user}{place}{path}");
        let (host, port) = split_port(place).map_err(invalid)?;
        let host = unescape(host).map_err(invalid)?;
        unescape(path).map_err(invalid)?;
        let host = Some(host).filter(|host| !host.is_empty());
        check_parameters(query).map_err(|why| format!("the URI {shown:?} is not valid: {why}"))?;
        let transport = match transport {
            None if OF_THE_LIBRARY.contains(&driver) => Transport::Driver,
            None if OF_THE_LIBRARY_HERE.contains(&driver) && host.is_none() => Transport::Driver,
            None if host.is_some() => Transport::Tls,
            None | Some("unix") => Transport::Unix,
            Some("tcp") => Transport::Tcp,
            Some("tls") => Transport::Tls,
            Some("ssh") => Transport::Ssh,
            Some("libssh" | "libssh2") => Transport::LibSsh,
            Some("ext") => Transport::Ext,
            Some(other) => {
                let known = TRANSPORTS.join(", ");
                return Err(format!("the URI {shown:?} names a transport {other:?}; libvirt has {known}"));
            }
        };
        if matches!(transport, Transport::Ssh | Transport::LibSsh) && host.is_none() {
            return Err(format!("the URI {shown:?} names no host after '//'"));
        }
        let default_port = match transport {
            Transport::Tcp => Some(TCP_PORT),
            Transport::Tls => Some(TLS_PORT),
            _ => None,
        };
        let socket = default_port
            .map(|default| (host.clone().unwrap_or_else(|| "localhost".to_owned()), port.unwrap_or(default)));
        // What runs ssh for us must not ask a terminal for passwords or about keys: there may be a hundred of them.
        let text = if transport == Transport::Ssh { without_questions(opened) } else { opened.to_owned() };
        let user = user.map(unescape).transpose().map_err(invalid)?.filter(|user| !user.is_empty());
        let has_tls_priority = parameters(query).any(|(name, _)| name == "tls_priority");
        Ok(LibvirtUri { text, shown, transport, user, host, socket, has_tls_priority })
    }

    /// What of it the C library alone has; none if the wire protocol is enough.
    pub(crate) fn of_the_library(&self) -> Option<String> {
        let scheme = self.shown.split(':').next().unwrap_or_default();
        match self.transport {
            Transport::LibSsh => {
                let transport = scheme.split_once('+').map_or(scheme, |(_, transport)| transport);
                Some(format!("the transport {transport}"))
            }
            Transport::Driver => Some(format!("the driver {scheme}")),
            Transport::Tls if self.has_tls_priority => Some("the parameter tls_priority".to_owned()),
            _ => None,
        }
    }

    /// The error of a daemon that was reached, and did not answer in time.
    pub(crate) fn no_answer(&self) -> ConnectError {
        let shown = &self.shown;
        let reason = match self.socket {
            Some(_) => format!("{shown} accepts connections, and the daemon does not answer"),
            None => format!("{shown}: the daemon does not answer"),
        };
        ConnectError::new(ErrorKind::ConnectTimeout, reason).at(ConnectStage::Daemon)
    }

    /// The error, with what can be tried where nothing listens: each transport ends at something else.
    pub(crate) fn advise(&self, error: ConnectError) -> ConnectError {
        match error.kind {
            ErrorKind::ConnectionRefused if error.advice.is_none() => error.advise(self.listener_hint()),
            _ => error,
        }
    }

    fn listener_hint(&self) -> Hint {
        Hint::plain(match self.transport {
            Transport::Tcp => {
                "check that the daemon runs there and listens for connections: for TCP by libvirtd --listen or virtproxyd-tcp.socket, on that port"
            }
            Transport::Tls => TLS_HINT,
            Transport::Ssh | Transport::LibSsh => {
                "check that sshd runs there and listens on that port, and that the daemon behind it runs (systemctl status libvirtd)"
            }
            Transport::Ext => {
                "run the command that the URI names by hand, and check that the daemon it leads to runs"
            }
            Transport::Unix | Transport::Driver => {
                "check that the daemon runs (systemctl status libvirtd, or virtqemud), and the path of its socket"
            }
        })
    }
}

/// What a name in `libvirt.conf` stands for; none for a text that is a URI.
fn meant(text: &str) -> Result<Option<String>, String> {
    if text.contains(':') {
        return Ok(None);
    }
    let given = shorten(text);
    if text.is_empty() {
        return Err("the URI is empty".to_owned());
    }
    #[cfg(feature = "native")]
    match atp_rpc::alias(text) {
        Ok(Some(target)) => return Ok(Some(target)),
        Ok(None) => {}
        Err(error) => {
            return Err(format!(
                "the URI {given:?} is a name, and the file with names cannot be read: {error}"
            ));
        }
    }
    Err(format!(
        "the URI {given:?} is not valid: it has no '://', and uri_aliases in libvirt.conf has no such name"
    ))
}

/// The host, without brackets, and the port.
pub(super) fn split_port(place: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("']' is missing")?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err("something else than a port stands after ']'"),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => Err("the port is no number from 1 to 65535"),
            Ok(port) => Ok((host, Some(port))),
        },
    }
}

/// The parameters as they are written.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split(['&', ';']).filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Refuses what no client can use.
fn check_parameters(query: &str) -> Result<(), String> {
    for (name, value) in parameters(query) {
        let value = unescape(value).map_err(|why| format!("{name}=: {why}"))?;
        if PATHS.contains(&name) && value.starts_with('~') {
            return Err(format!("{name}=: '~' is not expanded: write the whole path"));
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "a '%' is not followed by two hexadecimal digits, or they are not UTF-8";
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((byte, rest)) = left.split_first() {
        left = rest;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, rest) = left.split_first_chunk::<2>().ok_or(BAD)?;
        let digit = |of: u8| char::from(of).to_digit(16).ok_or(BAD);
        // Two hexadecimal digits are a byte.
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        left = rest;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or(BAD)
}

/// The URI with the parameter `no_tty=1`, by which libvirt runs ssh in its batch mode.
fn without_questions(text: &str) -> String {
    const NO_TTY: &str = "no_tty=1";
    let (base, parameters) = text.split_once('?').unwrap_or((text, ""));
    let others = parameters
        .split('&')
        .filter(|parameter| !parameter.is_empty() && parameter.split('=').next() != Some("no_tty"));
    let parameters: Vec<_> = others.chain([NO_TTY]).collect();
    format!("{base}?{}", parameters.join("&"))
}

/// The beginning of a text that is no URI, without anything behind an `@`.
fn shorten(text: &str) -> String {
    text.rsplit('@').next().unwrap_or_default().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> Option<(String, u16)> {
        LibvirtUri::parse(text).unwrap().socket
    }

    #[test]
    fn the_daemons_socket() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(socket("qemu+tcp://10.0.0.1/system"), at("10.0.0.1", 16509));
        assert_eq!(socket("qemu+tcp://h:16000/session"), at("h", 16000));
        assert_eq!(socket("qemu+tcp://[::1]:16000/session"), at("::1", 16000));
        assert_eq!(socket("qemu+tls://h/system"), at("h", 16514));
        assert_eq!(socket("qemu://h/system"), at("h", 16514));
        for local in ["qemu:///system", "test:///default", "qemu+ssh://u@h/system", "esx://h/?no_verify=1"] {
            assert_eq!(socket(local), None, "{local}");
        }
    }

    #[test]
    fn what_is_not_a_uri_is_told_so() {
        for bad in ["", "not a uri", "h1", "qemu+carrier://h/system", "qemu+ssh:///system", "mailto:x"] {
            assert!(LibvirtUri::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(LibvirtUri::parse("qemu:///sys\0tem").is_err());
    }

    #[test]
    fn what_virsh_takes_is_taken() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(socket("qemu+tcp:///system"), at("localhost", 16509));
        assert_eq!(socket("qemu+tcp://[fe80::1%25eth0]/system"), at("fe80::1%eth0", 16509));
        assert_eq!(socket("qemu+tls://[fe80::1%25eth0]:1/system"), at("fe80::1%eth0", 1));
    }

    #[test]
    fn what_virsh_refuses_is_refused_with_what_is_wrong() {
        for (text, word) in [
            (" qemu:///system", "%20"),
            ("qemu+ssh://h/system?keyfile=a b", "%20"),
            ("qemu+ssh://h/system?keyfile=~/x", "'~' is not expanded"),
            ("qemu+tcp://h:0/system", "port"),
            ("qemu+tcp://h:99999/system", "port"),
            ("qemu+tcp://[::1/system", "']'"),
            ("qemu:///%zz", "'%'"),
            ("qemu+ssh://h/system?keyfile=%", "'%'"),
            ("://h/system", "no driver"),
        ] {
            let error = LibvirtUri::parse(text).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn ssh_never_asks() {
        for (given, opened) in [
            ("qemu+ssh://u@h/system", "qemu+ssh://u@h/system?no_tty=1"),
            ("qemu+ssh://h/system?keyfile=/k", "qemu+ssh://h/system?keyfile=/k&no_tty=1"),
            ("qemu+ssh://h/system?no_tty=0&keyfile=/k", "qemu+ssh://h/system?keyfile=/k&no_tty=1"),
            ("qemu+tcp://h/system", "qemu+tcp://h/system"),
        ] {
            assert_eq!(LibvirtUri::parse(given).unwrap().text, opened);
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let uri = LibvirtUri::parse("qemu+ssh://root:s3cret@h/system?keyfile=/k&x=s3cret").unwrap();
        assert!(!uri.shown.contains("s3cret"), "{}", uri.shown);
        for bad in ["root:s3cret@h", "qemu+carrier://root:s3cret@h/", "::root:s3cret@h"] {
            let error = LibvirtUri::parse(bad).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn where_nothing_listens_the_hint_is_of_the_transport() {
        for (uri, word) in [
            ("qemu+tcp://h/system", "virtproxyd-tcp.socket"),
            ("qemu+tls://h/system", "virtproxyd-tls.socket"),
            ("qemu://h/system", "virtproxyd-tls.socket"),
            ("qemu+ssh://h/system", "sshd"),
            ("qemu+libssh2://h/system", "sshd"),
            ("qemu+ext:///system?command=x", "command"),
            ("qemu:///system", "its socket"),
            ("qemu+unix:///system?socket=/x", "its socket"),
        ] {
            let uri = LibvirtUri::parse(uri).unwrap();
            let refused = uri.advise(ConnectError::new(ErrorKind::ConnectionRefused, "x"));
            assert!(refused.hint().contains(word), "{uri:?}: {}", refused.hint());
            let silent = uri.advise(ConnectError::new(ErrorKind::HostUnreachable, "x"));
            assert_eq!(silent.hint(), ErrorKind::HostUnreachable.hint());
        }
    }
}
