//! What must hold of every parser of ATP, whatever it is given.
//!
//! Each function takes any bytes, gives them to one parser and panics if something is wrong: the parser's own panic, or
//! a law that does not hold. They are run in two ways: without end by `cargo fuzz run TARGET`, where each has a target
//! of its name in the folder `fuzz`, and bounded by property tests whenever the tests are run.

mod guest;
mod input;
mod protocol;
mod runs;
mod settings;

use atp_protocol::{Carrier, Peer, ProtocolError};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// Checks one parser with some bytes.
pub type Check = fn(&[u8]);

/// Every function of this crate, by the name of its fuzz target.
pub const TARGETS: [(&str, Check); 20] = [
    ("agent_error", protocol::agent_error),
    ("channel_frames", protocol::channel_frames),
    ("chord", input::chord),
    ("domain_xml", settings::domain_xml),
    ("filters", runs::filters),
    ("fleet", settings::fleet),
    ("frames", protocol::frames),
    ("guest_files", guest::guest_files),
    ("guest_system", guest::guest_system),
    ("journal", runs::journal),
    ("libvirt_uri", settings::libvirt_uri),
    ("monitor", protocol::monitor),
    ("mouse", input::mouse),
    ("raw_command", protocol::raw_command),
    ("reply", protocol::reply),
    ("scenario", runs::scenario),
    ("screenshot", input::screenshot),
    ("selector", settings::selector),
    ("settings", settings::settings),
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

fn runtime() -> Runtime {
    match Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// A peer that answers everything with the same words.
struct Fixed(String);

impl Carrier for Fixed {
    async fn send(&self, _: Peer, _: &str, _: Instant) -> Result<String, ProtocolError> {
        Ok(self.0.clone())
    }

    fn command_max(&self, _: Peer) -> usize {
        usize::MAX
    }
}
