//! Commands over the sockets of QEMU and of agents that libvirt does not own, Unix or TCP.
//!
//! [`SocketConnector`] lets a [`TransportManager`](atp_transport::TransportManager) keep links to such sockets as it
//! keeps libvirt connections: leases, limits, deadlines, heartbeats and reconnects are the pool's. A
//! [`SocketCarrier`] speaks over a leased link.
//!
//! ```text
//!  caller ──► SocketCarrier ──► lease of a SocketLink ──► Outbox ─────────────► socket
//!     ▲                                                                           │
//!     └── reply, by id (monitor) or by turn (agent) ◄── the link's task ◄── LineCodec
//! ```
//!
//! What a peer may do, and what follows:
//!
//! | the peer | what follows |
//! |---|---|
//! | answers late | the reply is dropped: a monitor's by its id, an agent's by a synchronisation before the next command |
//! | answers out of order, twice, or what nobody asked | ids decide; the rest is dropped |
//! | sends events nobody reads | the oldest are dropped and counted |
//! | sends more than fits | the command fails with `output-too-large`; of the reply nothing is kept |
//! | sends what is no message | a monitor's link is opened again; an agent's channel is synchronised again |
//! | sends garbage that ends as the reply to a command does | that command fails with `invalid-reply` |
//! | does not read | no second command is queued behind the first |
//! | closes | all that is under way fails with the reason, and the pool opens the link again |

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
