//! Which engine `auto` stands for.

use super::uri::LibvirtUri;
use crate::config::Engine;

impl Engine {
    /// The engine of a host that has this URI and this setting: of [`Auto`](Engine::Auto) the one it stands for. A program
    /// without any engine keeps it.
    ///
    /// A daemon is reached by the native engine, whatever the transport. The library has the URIs of drivers that are inside it
    /// (`test:///`, `esx`, `gsx`, `vpx`, `hyperv`, `openvz:///`, VMware on this machine), of the transports `libssh` and `libssh2`,
    /// and with `tls_priority=`. Where one engine is built in, it has them all, and refuses what it cannot reach.
    pub fn for_uri(self, uri: &str) -> Engine {
        match self {
            Engine::Auto => {
                // One that is not valid is refused by any engine.
                let is_of_library = LibvirtUri::parse(uri).is_ok_and(|uri| uri.of_the_library().is_some());
                choose(is_of_library, Engine::Library.is_built_in(), Engine::Native.is_built_in())
            }
            engine => engine,
        }
    }
}

/// What can be done about something that the native engine lacks and the library has.
#[cfg(feature = "native")]
pub(super) fn library_hint() -> &'static str {
    if Engine::Library.is_built_in() {
        "set engine = \"library\" for this host"
    } else {
        "use a program that was built with the feature `library`"
    }
}

fn choose(is_of_library: bool, has_library: bool, has_native: bool) -> Engine {
    match (has_library, has_native) {
        (true, true) if is_of_library => Engine::Library,
        (_, true) => Engine::Native,
        (true, false) => Engine::Library,
        (false, false) => Engine::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// URIs, and whether the library alone has them.
    const URIS: [(&str, bool); 27] = [
        ("qemu:///system", false),
        ("qemu:///session", false),
        ("qemu+unix:///system?socket=/run/x", false),
        ("qemu+tcp://h/system", false),
        ("qemu+tcp:///system", false),
        ("qemu+tls://h/system", false),
        ("qemu://h/system", false),
        ("qemu://h/system?tls_priority=NORMAL", true),
        ("qemu+ssh://u@h/system", false),
        ("qemu+ext:///system?command=/c", false),
        ("qemu+libssh://h/system", true),
        ("qemu+libssh2://h/system", true),
        ("xen:///system", false),
        ("lxc:///system", false),
        ("ch:///system", false),
        ("vbox:///session", false),
        ("vz:///system", false),
        ("bhyve:///system", false),
        ("test:///default", true),
        ("test://h/default", false),
        ("test+tcp://h/default", false),
        ("openvz:///system", true),
        ("openvz+ssh://h/system", false),
        ("esx://h/?no_verify=1", true),
        ("vpx://h/dc/cluster/host", true),
        ("hyperv://h", true),
        ("vmwareplayer:///session", true),
    ];

    #[test]
    fn auto_is_native_for_daemons_and_the_library_for_what_it_alone_has() {
        for (text, is_of_library) in URIS {
            let uri = LibvirtUri::parse(text).unwrap();
            assert_eq!(uri.of_the_library().is_some(), is_of_library, "{text}");
            let with_both = if is_of_library { Engine::Library } else { Engine::Native };
            for (has_library, has_native, chosen) in [
                (true, true, with_both),
                (true, false, Engine::Library),
                (false, true, Engine::Native),
                (false, false, Engine::Auto),
            ] {
                assert_eq!(choose(is_of_library, has_library, has_native), chosen, "{text}");
            }
            let here = choose(is_of_library, cfg!(feature = "library"), cfg!(feature = "native"));
            assert_eq!(Engine::Auto.for_uri(text), here, "{text}");
            for set in [Engine::Library, Engine::Native] {
                assert_eq!(set.for_uri(text), set, "{text}");
            }
        }
    }

    #[test]
    fn each_engine_has_a_word() {
        let words: Vec<_> = Engine::ALL.iter().map(|engine| engine.as_str()).collect();
        assert_eq!(words, ["library", "native", "auto"]);
    }
}
