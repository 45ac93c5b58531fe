//! The engine that the tests are run with.

use std::env;

use atp_transport::{Engine, TransportConfig};

/// The variable that names it.
const VARIABLE: &str = "ATP_ENGINE";

/// The engine in `ATP_ENGINE`: `library`, `native`, or `auto`, which is the default, and the native one for a testbed's hosts.
pub fn engine() -> Engine {
    let Ok(word) = env::var(VARIABLE) else { return Engine::Auto };
    match Engine::ALL.iter().copied().find(|engine| engine.as_str() == word) {
        Some(engine) => engine,
        None => panic!("{VARIABLE} is {word:?}; there are library, native and auto"),
    }
}

/// The default configuration, with that engine.
pub fn config() -> TransportConfig {
    TransportConfig { engine: engine(), ..TransportConfig::default() }
}
