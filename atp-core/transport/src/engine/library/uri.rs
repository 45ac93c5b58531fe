//! URIs as the C library opens them, where they are not those of the host.

#[cfg(feature = "native")]
use crate::engine::uri::parameters;
use crate::engine::uri::{LibvirtUri, split_port};

impl LibvirtUri {
    /// The URI with another host.
    pub(super) fn with_host(&self, host: &str) -> Option<String> {
        let (scheme, rest) = self.text.split_once("://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (user, place) =
            authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        let (_, port) = split_port(place).ok()?;
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Some(format!("{scheme}://{user}{host}{port}{rest}"))
    }

    /// The URI of the same daemon at a socket of this machine that leads to it.
    #[cfg(feature = "native")]
    pub(super) fn at_socket(&self, socket: &str, auth_file: &str) -> String {
        /// What is about the way alone.
        const OF_THE_WAY: [&str; 12] = [
            "authfile",
            "command",
            "socket",
            "sshauth",
            "netcat",
            "keyfile",
            "pkipath",
            "known_hosts",
            "known_hosts_verify",
            "mode",
            "proxy",
            "no_verify",
        ];
        let (scheme, rest) = self.text.split_once("://").unwrap_or((&self.text, ""));
        let driver = scheme.split('+').next().unwrap_or_default();
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = before.find('/').map_or("", |slash| &before[slash..]);
        let others = parameters(query).filter(|(name, _)| !OF_THE_WAY.contains(name) && *name != "no_tty");
        let mut text = format!("{driver}+unix://{path}?socket={socket}&authfile={auth_file}");
        for (name, value) in others {
            text.push_str(&format!("&{name}={value}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_can_be_replaced() {
        let with = |text: &str, host: &str| LibvirtUri::parse(text).unwrap().with_host(host).unwrap();
        assert_eq!(with("qemu+tcp://u@h:7/system?a=b", "127.0.0.3"), "qemu+tcp://u@127.0.0.3:7/system?a=b");
        assert_eq!(with("qemu+tcp://h/system", "::1"), "qemu+tcp://[::1]/system");
        assert_eq!(with("qemu+tcp:///system", "127.0.0.1"), "qemu+tcp://127.0.0.1/system");
    }

    #[cfg(feature = "native")]
    #[test]
    fn a_socket_of_this_machine_can_stand_for_the_way() {
        let at = |text: &str| LibvirtUri::parse(text).unwrap().at_socket("/s", "/e");
        assert_eq!(
            at("qemu+ssh://u@h:22/system?keyfile=/k&x=y&no_verify=1&authfile=/a"),
            "qemu+unix:///system?socket=/s&authfile=/e&x=y"
        );
        assert_eq!(at("test+ext:///default?command=/c"), "test+unix:///default?socket=/s&authfile=/e");
    }
}
