//! Which engine speaks to a host's daemon.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What speaks to a host's daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// libvirt's C library (feature `library`).
    Library,
    /// libvirt's wire protocol in Rust (feature `native`).
    Native,
    /// The library, or the one that is built in.
    #[default]
    Auto,
}

impl Engine {
    /// All of them.
    pub const ALL: [Engine; 3] = [Engine::Library, Engine::Native, Engine::Auto];

    /// The word for it in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Library => "library",
            Engine::Native => "native",
            Engine::Auto => "auto",
        }
    }

    /// The engine that is used: of [`Auto`](Engine::Auto) the one it stands for. A program without any keeps it.
    pub fn resolve(self) -> Engine {
        match self {
            Engine::Auto if Engine::Library.is_built_in() => Engine::Library,
            Engine::Auto if Engine::Native.is_built_in() => Engine::Native,
            engine => engine,
        }
    }

    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        match self {
            Engine::Library => cfg!(feature = "library"),
            Engine::Native => cfg!(feature = "native"),
            Engine::Auto => true,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
