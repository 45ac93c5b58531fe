//! Commands over the sockets of QEMU and of guest agents that libvirt does not own, Unix or TCP. Feature `sockets`.
//!
//! [`SocketConnector`] lets a [`TransportManager`](atp_transport::TransportManager) keep links to such sockets in the
//! same way as libvirt connections: the pool provides leases, limits, deadlines, heartbeats and reconnects. A
//! [`SocketCarrier`] sends commands over a leased link.
//!
//! ```text
//!  caller ──► SocketCarrier ──► lease of a SocketLink ──► Outbox ─────────────► socket
//!     ▲                                                                           │
//!     └── reply, by id (monitor) or by turn (agent) ◄── the link's task ◄── LineCodec
//! ```
//!
//! What a peer may do, and the consequence:
//!
//! | the peer | consequence |
//! |---|---|
//! | answers late | the reply is dropped: a monitor's by its id, an agent's by a synchronisation before the next command |
//! | answers out of order, twice, or without a request | ids decide; the rest is dropped |
//! | sends events that no caller reads | the oldest are dropped and counted |
//! | sends a reply that is too long | the command fails with `output-too-large`; nothing of the reply is kept |
//! | sends an invalid message | a monitor's link is opened again; an agent's channel is synchronised again |
//! | sends garbage that ends like the reply to a command | that command fails with `invalid-reply` |
//! | does not read | no second command is queued behind the first |
//! | closes | all calls under way fail with the reason, and the pool opens the link again |

mod address;
mod agent;
mod carrier;
mod codec;
mod config;
mod connector;
mod end;
mod events;
mod link;
mod monitor;
mod outbox;

pub use address::{InvalidSocketAddress, Place, SocketAddress};
pub use carrier::SocketCarrier;
pub use codec::{Content, Frame, LineCodec, SENTINEL, Skipped};
pub use config::{Oversized, SocketConfig};
pub use connector::{SocketConnection, SocketConnector};
pub use end::LinkEnd;
pub use events::{MonitorEvent, MonitorEvents, MonitorNotice};
pub use link::SocketLink;

#[cfg(test)]
mod tests;
