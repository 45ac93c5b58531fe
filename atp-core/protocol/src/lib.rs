//! Commands to VMs: to QEMU over its monitor (QMP), and to the QEMU guest agent inside the VM (QGA).
//!
//! A [`Carrier`] sends one JSON command to one VM and returns the reply. [`LibvirtCarrier`] does so over a connection leased
//! from `atp-transport`; `socket::SocketCarrier` does so over a socket of QEMU or of an agent, without libvirt. All
//! other modules use the trait: raw commands ([`RawCommand`]), typed commands of the crate [`qapi`] ([`monitor`], [`agent`]),
//! programs in the guest ([`exec`]), files ([`files`]), other work of the agent ([`guest`]), keyboard and mouse
//! ([`input`]), and what is in the text of a serial console ([`console`]).
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
//! async fn query(connection: &LibvirtConnection, vm: Uuid) -> Result<(), ProtocolError> {
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
//! /// Takes one lease for each VM, so that each query has a place of its own, whichever VM hangs.
//! async fn query_all(manager: &TransportManager, host: &str) -> Result<(), ProtocolError> {
//!     let list = async |connection: LibvirtConnection| connection.list_domains().await;
//!     let vms = manager.execute_on_host(host, list).await?;
//!     let queries = vms.iter().map(|vm| {
//!         let work = async |connection: LibvirtConnection| query(&connection, vm.uuid).await;
//!         manager.execute_on_host(host, work)
//!     });
//!     for (vm, result) in vms.iter().zip(join_all(queries).await) {
//!         println!("{}: {result:?}", vm.name);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A lease stands for one call; calls that are made beside it take the places of other leases. For work on several VMs of a host
//! take one lease for each, as above. A command that
//! still waits for its turn on a lease at its deadline was not sent, and the error says so.
//!
//! A failure is a [`ProtocolError`]. It has its [`Origin`], what the user can try, and the
//! [`Effect`](atp_transport::Effect): an error reply means that nothing was done, and a missing answer that the command may
//! have been executed.
//!
//! Deadlines are instants of tokio's clock (`tokio::time::Instant`). All futures of this crate can be dropped at any time,
//! which stops the wait and does not cancel a command that was sent.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `sockets` | module `socket`: sockets of QEMU and of agents, without libvirt |
//! | `channels` | module `channel`: requests to a program in the guest over a virtio-serial channel |
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | peer | the program that answers a command: QEMU's monitor or the guest agent ([`Peer`]) |
//! | carrier | the way of a command to a VM and of the reply back ([`Carrier`]) |
//! | lease | the right to use one pooled connection, until it is dropped (see `atp-transport`) |
//! | raw command | a command given by name and JSON arguments ([`RawCommand`]) |
//! | refusal | an error reply of a peer ([`Refusal`]) |
//! | origin | the program that reported a failure ([`Origin`]) |
//! | effect | whether a command took effect: `none`, `done` or `unknown` |
//! | capabilities | the commands that an agent supports ([`AgentCapabilities`]) |
//! | spool | files in the guest for output that is too large for one reply ([`SpoolPolicy`]) |
//! | partial file | the incomplete copy of a file, from which a transfer is resumed ([`files`]) |
//! | chord | keys that are pressed together ([`input::Chord`]) |
//! | link | an open connection to one socket (`socket::SocketLink`) |
//! | channel | bytes to and from the guest through a virtio-serial port |
//! | synchronised | the next line on an agent's channel is the reply to the next command |
//!
//! # Dependencies
//!
//! The crate is not on a registry: use the paths of this crate and of `atp-transport` in a clone of the repository. Its
//! system requirements are those of `atp-transport`.
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
pub mod console;
pub mod exec;
pub mod files;
pub mod guest;
pub mod input;
pub mod monitor;
pub mod picture;
pub mod screenshot;
#[cfg(feature = "sockets")]
pub mod socket;
pub use atp_api::{RawCommand, RawCommandError, TextEncoding, UnknownEncoding};
pub use capabilities::{AgentCapabilities, CapabilityCache, Support};
pub use carrier::Carrier;

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

mod digest;
mod error;
mod libvirt;
mod nearest;
mod peer;
mod refusal;
mod reply;
mod reserve;
mod shell;
mod windows;

#[cfg(test)]
mod local_guest;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod script;
#[cfg(test)]
mod windows_guest;
