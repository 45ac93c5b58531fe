//! Properties of every parser of ATP for any input.
//!
//! Each function takes any bytes, gives them to one parser, and panics if the parser panics or a property does not
//! hold. The functions run in two ways: without end by `cargo fuzz run TARGET`, where each has a target with its name
//! in the folder `fuzz`, and with a few hundred inputs as property tests in every test run.
//!
//! ```
//! atp_parsers::check("selector", b"node7/web-[1-100]");
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | parser | code that reads bytes or text from outside: from a user, a file, a daemon, QEMU or a guest |
//! | property | what holds for any input: no panic, a bound on what is kept, a round trip |
//! | target | a function of this crate under the name by which the fuzzer runs it ([`TARGETS`]) |
//! | carrier | what takes a command to QEMU or an agent; here it answers with the input ([`Carrier`]) |

mod guest;
mod input;
mod opening;
mod protocol;
mod runs;
mod settings;
mod wire;

use atp_protocol::{Carrier, Peer, ProtocolError};
use bytes::BytesMut;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tokio_util::codec::Decoder;

/// Checks one parser with some bytes.
pub type Check = fn(&[u8]);

/// Every function of this crate, with the name of its fuzz target.
pub const TARGETS: [(&str, Check); 30] = [
    ("agent_error", protocol::agent_error),
    ("auth_conf", opening::auth_conf),
    ("channel_frames", protocol::channel_frames),
    ("chord", input::chord),
    ("console", protocol::console),
    ("domain_xml", settings::domain_xml),
    ("filters", runs::filters),
    ("fleet", settings::fleet),
    ("frames", protocol::frames),
    ("guest_files", guest::guest_files),
    ("guest_system", guest::guest_system),
    ("journal", runs::journal),
    ("libvirt_conf", opening::libvirt_conf),
    ("libvirt_uri", settings::libvirt_uri),
    ("monitor", protocol::monitor),
    ("mouse", input::mouse),
    ("raw_command", protocol::raw_command),
    ("reply", protocol::reply),
    ("rpc_events", wire::rpc_events),
    ("rpc_frames", wire::rpc_frames),
    ("rpc_link", wire::rpc_link),
    ("rpc_open", opening::rpc_open),
    ("rpc_replies", wire::rpc_replies),
    ("rpc_uri", wire::rpc_uri),
    ("rpc_xdr", wire::rpc_xdr),
    ("scenario", runs::scenario),
    ("screenshot", input::screenshot),
    ("selector", settings::selector),
    ("settings", settings::settings),
    ("socket_address", protocol::socket_address),
];

/// Runs the function with this name.
///
/// # Panics
/// If there is none, or if a property does not hold.
pub fn check(target: &str, bytes: &[u8]) {
    match TARGETS.iter().find(|(name, _)| *name == target) {
        Some((_, function)) => function(bytes),
        None => panic!("there is no target {target:?}"),
    }
}

/// Most parsers take text. Bytes that are not UTF-8 are converted.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn runtime() -> Runtime {
    match Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// What a codec finds in bytes that arrive in pieces of this length, and whether the last item ended with the bytes.
fn cut<C: Decoder>(mut codec: C, bytes: &[u8], piece: usize) -> (Vec<C::Item>, bool) {
    let (mut items, mut buffer) = (Vec::new(), BytesMut::new());
    for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(_) => return (items, false),
            }
        }
    }
    let ends_well = matches!(codec.decode_eof(&mut buffer), Ok(None));
    (items, ends_well)
}

/// A peer that gives the same answer to everything.
struct Fixed(String);

impl Carrier for Fixed {
    async fn send(&self, _: Peer, _: &str, _: Instant) -> Result<String, ProtocolError> {
        Ok(self.0.clone())
    }

    fn command_max(&self, _: Peer) -> usize {
        usize::MAX
    }
}
