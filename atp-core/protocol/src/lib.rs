//! What is said to a VM: to QEMU over its monitor (QMP), and to the QEMU guest agent inside it (QGA).
//!
//! A [`Carrier`] takes one JSON command to one VM and brings the reply back; [`LibvirtCarrier`] does so over a
//! connection leased from `atp-transport`, and [`SocketCarrier`](socket::SocketCarrier) over a socket of a QEMU or
//! an agent that libvirt does not own. Everything else in this crate is written against the trait: any
//! command as a person types it ([`RawCommand`]), any command of the crate [`qapi`] with its typed reply, and
//! running a program in the guest ([`exec`]).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use atp_protocol::{ExecSpec, LibvirtCarrier, ProtocolError, RawCommand, agent, exec, monitor, qapi};
//! use atp_transport::{LibvirtConnection, TransportManager};
//! use futures_util::future::join_all;
//! use tokio::time::Instant;
//! use uuid::Uuid;
//!
//! async fn look_around(connection: &LibvirtConnection, vm: Uuid) -> Result<(), ProtocolError> {
//!     let carrier = LibvirtCarrier::new(connection, vm);
//!     let deadline = Instant::now() + Duration::from_secs(10);
//!
//!     let output = exec::run(&carrier, &ExecSpec::new("uname").arg("-r"), deadline).await?;
//!     println!("{:?}: {}", output.exit_code, String::from_utf8_lossy(&output.stdout));
//!
//!     let info = agent::execute(&carrier, &qapi::qga::guest_info {}, deadline).await?;
//!     println!("agent {} with {} commands", info.version, info.supported_commands.len());
//!
//!     let command = RawCommand::from_words(["query-status"]).expect("a constant that is well-formed");
//!     println!("{}", monitor::execute_raw(&carrier, &command, deadline).await?);
//!     Ok(())
//! }
//!
//! /// A lease for each VM: on a common one, those behind a VM that hangs would wait for it.
//! async fn look_around_all(manager: &TransportManager, host: &str) -> Result<(), ProtocolError> {
//!     let list = async |connection: LibvirtConnection| connection.list_domains().await;
//!     let vms = manager.execute_on_host(host, list).await?;
//!     let looks = vms.iter().map(|vm| {
//!         let look = async |connection: LibvirtConnection| look_around(&connection, vm.uuid).await;
//!         manager.execute_on_host(host, look)
//!     });
//!     for (vm, look) in vms.iter().zip(join_all(looks).await) {
//!         println!("{}: {look:?}", vm.name);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A lease is one call at a time. Work on several VMs of a host takes a lease for each, as above; what still waits for its
//! turn on a lease when its deadline comes was not sent, and says so.
//!
//! A failure is a [`ProtocolError`]. It says who failed, on the way or at the far end, what can be tried, and
//! what is known of the [`Effect`](atp_transport::Effect): an error reply means that nothing was done; an
//! answer that never came means that it may have been.
//!
//! Deadlines are instants of tokio's clock (`tokio::time::Instant`). Dropping any future of this crate is safe and gives up
//! the wait; it cannot call back a command that was sent.
//!
//! The crate is not on a registry: a program names its folder, and that of `atp-transport`, in a clone of the repository. It
//! needs what `atp-transport` needs.
//!
//! ```toml
//! [dependencies]
//! atp-protocol = { path = "atp/atp-core/protocol" }
//! atp-transport = { path = "atp/atp-core/transport" }
//! futures-util = "0.3"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
//! uuid = "1"
//! ```

// Public API
pub mod agent;
#[cfg(feature = "channels")]
pub mod channel;
pub mod exec;
pub mod files;
pub mod guest;
pub mod input;
pub mod monitor;
pub mod screenshot;
#[cfg(feature = "sockets")]
pub mod socket;
pub use capabilities::{AgentCapabilities, CapabilityCache, Support};
pub use carrier::Carrier;
pub use command::{RawCommand, RawCommandError};
pub use encoding::{TextEncoding, UnknownEncoding};
pub use error::{Origin, ProtocolError, Result};
pub use exec::{ExecOutput, ExecPolicy, ExecSpec, Polling, SpoolPolicy};
pub use libvirt::LibvirtCarrier;
pub use peer::Peer;
/// The commands and types of QMP and QGA.
pub use qapi;
pub use refusal::{Refusal, RefusalKind};

// Implementation
mod capabilities;
mod carrier;
mod command;
mod digest;
mod encoding;
mod error;
mod libvirt;
mod nearest;
mod peer;
mod refusal;
mod reply;
mod reserve;
mod shell;

#[cfg(test)]
mod local_guest;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod script;
