//! The address of a socket and the protocol spoken on it, as a URI.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::peer::Peer;

/// A socket of QEMU's monitor or of a guest agent.
///
/// `qmp+unix:///run/vm.qmp`, `qmp+tcp://HOST:PORT`, and the same with `qga`. A path is used as it is, without escapes.
/// An IPv6 address is in brackets. There is no default port.
///
/// ```
/// use atp_protocol::Peer;
/// use atp_protocol::socket::{Place, SocketAddress};
///
/// let address: SocketAddress = "qga+tcp://[::1]:4445".parse()?;
/// assert_eq!(address.peer, Peer::Agent);
/// assert_eq!(address.place, Place::Tcp { host: "::1".into(), port: 4445 });
/// # Ok::<(), atp_protocol::socket::InvalidSocketAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketAddress {
    /// The peer that answers on it.
    pub peer: Peer,
    /// Its location.
    pub place: Place,
}

/// The location of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A Unix socket on this machine.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// A host name or an address. An IPv6 address is without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Why a text is not the address of a socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason} in {uri:?}: expected qmp+unix:///PATH, qmp+tcp://HOST:PORT, qga+unix:///PATH or qga+tcp://HOST:PORT"
)]
pub struct InvalidSocketAddress {
    /// The text.
    pub uri: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for SocketAddress {
    type Err = InvalidSocketAddress;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| InvalidSocketAddress { uri: uri.to_owned(), reason };
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let (peer, transport) = match scheme.split_once('+') {
            Some(("qmp", transport)) => (Peer::Monitor, transport),
            Some(("qga", transport)) => (Peer::Agent, transport),
            _ => return Err(wrong("unknown scheme")),
        };
        let place = match transport {
            "unix" if !rest.starts_with('/') => return Err(wrong("the path is not absolute")),
            "unix" if rest.contains('\0') => return Err(wrong("the path has a NUL character")),
            "unix" => Place::Unix(PathBuf::from(rest)),
            "tcp" => {
                let authority = rest.strip_suffix('/').unwrap_or(rest);
                let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
                let port =
                    port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("no valid port"))?;
                let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                    Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
                    Some(_) => return Err(wrong("the brackets have no IPv6 address")),
                    None if host.is_empty() || host.contains(['/', '@', ':', '[', ']', ' ', '\0']) => {
                        return Err(wrong("no host"));
                    }
                    None => host,
                };
                Place::Tcp { host: host.to_owned(), port }
            }
            _ => return Err(wrong("unknown scheme")),
        };
        Ok(SocketAddress { peer, place })
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.peer {
            Peer::Monitor => "qmp",
            Peer::Agent => "qga",
        };
        match &self.place {
            Place::Unix(path) => write!(f, "{protocol}+unix://{}", path.display()),
            Place::Tcp { host, port } if host.contains(':') => write!(f, "{protocol}+tcp://[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "{protocol}+tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_four_forms() {
        let unix = |peer, path: &str| SocketAddress { peer, place: Place::Unix(path.into()) };
        let tcp = |peer, host: &str, port| {
            let host = host.to_owned();
            SocketAddress { peer, place: Place::Tcp { host, port } }
        };
        for (uri, address) in [
            ("qmp+unix:///run/a b%20.sock", unix(Peer::Monitor, "/run/a b%20.sock")),
            ("qga+unix:///x", unix(Peer::Agent, "/x")),
            ("qmp+tcp://h1:4444", tcp(Peer::Monitor, "h1", 4444)),
            ("qga+tcp://[fd00::1]:1/", tcp(Peer::Agent, "fd00::1", 1)),
        ] {
            assert_eq!(uri.parse::<SocketAddress>().unwrap(), address, "{uri}");
        }
    }

    #[test]
    fn an_invalid_address_is_an_error_with_a_reason() {
        for (uri, reason) in [
            ("/run/vm.sock", "no scheme"),
            ("qemu+tcp://h/system", "unknown scheme"),
            ("qmp+ssh://h:1", "unknown scheme"),
            ("qmp+unix://run/vm", "the path is not absolute"),
            ("qmp+unix:///a\0b", "the path has a NUL character"),
            ("qmp+tcp://h", "no port"),
            ("qmp+tcp://h:0", "no valid port"),
            ("qmp+tcp://h:99999", "no valid port"),
            ("qmp+tcp://:1", "no host"),
            ("qmp+tcp://u@h:1", "no host"),
            ("qmp+tcp://a:b:1", "no host"),
            ("qmp+tcp://[h]:1", "the brackets have no IPv6 address"),
        ] {
            assert_eq!(uri.parse::<SocketAddress>().unwrap_err().reason, reason, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_display_parses_again(
            uri in r"(qmp|qga|x)\+(unix|tcp|y)://\PC{0,20}(:[0-9]{0,6})?|\PC{0,20}",
        ) {
            if let Ok(address) = uri.parse::<SocketAddress>() {
                prop_assert_eq!(&address.to_string().parse::<SocketAddress>().unwrap(), &address);
            }
        }
    }
}
