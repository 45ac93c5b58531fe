//! What a libvirt URI says about the way to its daemon.

use atp_api::Hint;
use url::Url;

use crate::error::{ConnectError, ErrorKind};

/// A libvirt URI that has been looked at: `driver[+transport]://[user@][host][:port]/path[?parameters]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LibvirtUri {
    /// The URI as it is opened.
    pub(crate) text: String,
    /// As [`text`](Self::text), fit for logs and errors: without a password and without parameters.
    pub(crate) shown: String,
    /// Host and port of the daemon's own socket, where the transport is TCP or TLS.
    pub(crate) socket: Option<(String, u16)>,
}

/// Ports of libvirt's daemons, as assigned by IANA.
const TCP_PORT: u16 = 16509;
const TLS_PORT: u16 = 16514;

const TRANSPORTS: [&str; 7] = ["unix", "tcp", "tls", "ssh", "libssh", "libssh2", "ext"];

/// What can be tried where nothing listens for TLS.
const TLS_HINT: &str = "check that the daemon runs there and listens for connections: for TLS by libvirtd --listen or virtproxyd-tls.socket, on that port";

impl LibvirtUri {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("the URI contains a NUL character".to_owned());
        }
        // The text is not repeated in full: it may hold a password.
        let url =
            Url::parse(text).map_err(|error| format!("the URI {:?} is not valid: {error}", shorten(text)))?;
        if url.cannot_be_a_base() {
            let given = shorten(text);
            return Err(format!("the URI {given:?} is not valid: '//' is missing after the scheme"));
        }
        let shown = shown(&url);
        let (driver, transport) = match url.scheme().split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (url.scheme(), None),
        };
        if let Some(transport) = transport
            && !TRANSPORTS.contains(&transport)
        {
            let known = TRANSPORTS.join(", ");
            return Err(format!("the URI {shown:?} names a transport {transport:?}; libvirt has {known}"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let default_port = match (transport, host) {
            (Some("tcp"), _) => Some(TCP_PORT),
            // A host without a transport is reached by TLS, except by drivers that speak to it themselves.
            (Some("tls"), _) => Some(TLS_PORT),
            (None, Some(_)) if ["qemu", "test", "lxc", "ch", "xen", "vbox"].contains(&driver) => {
                Some(TLS_PORT)
            }
            _ => None,
        };
        if matches!(transport, Some("tcp" | "ssh" | "libssh" | "libssh2")) && host.is_none() {
            return Err(format!("the URI {shown:?} names no host after '//'"));
        }
        let socket = default_port.map(|port| {
            let host = host.unwrap_or("localhost").trim_start_matches('[').trim_end_matches(']');
            (host.to_owned(), url.port().unwrap_or(port))
        });
        // What runs ssh for us must not ask a terminal for passwords or about keys: there may be a hundred of them.
        let text = if transport == Some("ssh") { without_questions(text) } else { text.to_owned() };
        Ok(LibvirtUri { text, shown, socket })
    }

    /// The error, with what can be tried where nothing listens: each transport ends at something else.
    pub(crate) fn advise(&self, error: ConnectError) -> ConnectError {
        let advice = (error.kind == ErrorKind::ConnectionRefused).then(|| Hint::plain(self.listener_hint()));
        ConnectError { advice, ..error }
    }

    fn listener_hint(&self) -> &'static str {
        let scheme = self.shown.split(':').next().unwrap_or_default();
        match scheme.split_once('+').map(|(_, transport)| transport) {
            Some("tcp") => {
                "check that the daemon runs there and listens for connections: for TCP by libvirtd --listen or virtproxyd-tcp.socket, on that port"
            }
            Some("ssh" | "libssh" | "libssh2") => {
                "check that sshd runs there and listens on that port, and that the daemon behind it runs (systemctl status libvirtd)"
            }
            Some("ext") => {
                "run the command that the URI names by hand, and check that the daemon it leads to runs"
            }
            Some("tls") => TLS_HINT,
            None if self.socket.is_some() => TLS_HINT,
            _ => "check that the daemon runs (systemctl status libvirtd), and the path of its socket",
        }
    }
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

fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Fails where there is no user part, and so no password.
    let _no_password = shown.set_password(None);
    shown.to_string()
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
        for bad in ["", "not a uri", "h1", "qemu+carrier://h/system", "qemu+tcp:///system", "mailto:x"] {
            assert!(LibvirtUri::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(LibvirtUri::parse("qemu:///sys\0tem").is_err());
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
