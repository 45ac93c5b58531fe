//! Which engine speaks to a host's daemon.

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr, VariantArray};

/// The engine that speaks to a host's daemon.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Engine {
    /// libvirt's C library (feature `library`).
    Library,
    /// libvirt's wire protocol in Rust (feature `native`).
    Native,
    /// The library, or the engine that is built in.
    #[default]
    Auto,
}

impl Engine {
    /// All of them.
    pub const ALL: &[Engine] = Engine::VARIANTS;

    /// The word for it in configuration files.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The engine that is used: of [`Auto`](Engine::Auto) the one it stands for. A program without any keeps it.
    pub fn resolve(self) -> Engine {
        let built_in = |engine: &Engine| *engine != Engine::Auto && engine.is_built_in();
        match self {
            // In this order.
            Engine::Auto => Engine::ALL.iter().copied().find(built_in).unwrap_or(Engine::Auto),
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

#[cfg(all(test, feature = "library", feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn auto_stands_for_the_library() {
        assert_eq!(
            Engine::ALL.iter().map(|engine| engine.as_str()).collect::<Vec<_>>(),
            ["library", "native", "auto"]
        );
        assert_eq!(Engine::Auto.resolve(), Engine::Library);
        assert_eq!(Engine::Native.resolve(), Engine::Native);
    }
}

#[cfg(all(test, not(feature = "library")))]
mod without_the_library {
    use super::*;
    use crate::config::TransportConfig;

    #[test]
    fn an_engine_that_is_not_built_in_is_a_problem_that_names_its_feature() {
        let config = TransportConfig { engine: Engine::Library, ..TransportConfig::default() };
        let problems = config.validate().unwrap_err().to_string();
        assert!(problems.contains("feature `library`"), "{problems}");
        assert_ne!(Engine::Auto.resolve(), Engine::Library);
    }
}
