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
    /// The native one for what a daemon serves, the library for what it alone has; the other one where that is not built in.
    /// [`for_uri`](Engine::for_uri) says which it is.
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

    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        match self {
            Engine::Library => cfg!(feature = "library"),
            Engine::Native => cfg!(feature = "native"),
            Engine::Auto => true,
        }
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
    }
}
