//! What must hold of every parser of ATP, whatever it is given.
//!
//! Each function takes any bytes, gives them to one parser and panics if something is wrong: the parser's own panic, or
//! a law that does not hold. They are run in two ways: without end by `cargo fuzz run TARGET`, where each has a target
//! of its name in the folder `fuzz`, and bounded by property tests whenever the tests are run.

mod protocol;
mod settings;

/// Checks one parser with some bytes.
pub type Check = fn(&[u8]);

/// Every function of this crate, by the name of its fuzz target.
pub const TARGETS: [(&str, Check); 9] = [
    ("agent_error", protocol::agent_error),
    ("fleet", settings::fleet),
    ("frames", protocol::frames),
    ("libvirt_uri", settings::libvirt_uri),
    ("monitor", protocol::monitor),
    ("raw_command", protocol::raw_command),
    ("reply", protocol::reply),
    ("selector", settings::selector),
    ("socket_address", protocol::socket_address),
];

/// Runs the function of that name.
///
/// # Panics
/// If there is none, or if what it checks does not hold.
pub fn check(target: &str, bytes: &[u8]) {
    match TARGETS.iter().find(|(name, _)| *name == target) {
        Some((_, function)) => function(bytes),
        None => panic!("there is no target {target:?}"),
    }
}

/// Texts are what most parsers take; what is not one is made one.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
