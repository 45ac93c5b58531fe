#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

// Connections.
mod certificate_fault;
mod connect;
mod connect_error;
mod connection;
pub mod error;
pub mod event;
mod greet;
mod settings;
pub mod uri;
mod way;

// Calls, by what they are about.
pub mod agent;
pub mod domain;
pub mod host;
pub mod job;
pub mod lifecycle;
pub mod monitor;
mod room;
pub mod screen;
pub mod snapshot;
pub mod stats;

// The wire.
mod auth;
mod dial;
pub mod frame;
mod link;
pub mod message;
pub mod numbers;
mod options;
pub mod xdr;

pub use auth::Credentials;
pub use certificate_fault::CertificateFault;
pub use connect_error::{ConnectError, ConnectFailure, Stage};
pub use connection::Connection;
pub use dial::Dialler;
pub use error::{CallError, EndReason, LinkEnd, RemoteError, StreamError};
pub use event::{DomainEvent, EventId, EventKind};
pub use link::{EventItem, Events, Keepalive, Stream, StreamSender};
pub use message::RemoteDomain;
pub use options::ConnectOptions;
pub use settings::{alias, default_uri};
pub use snapshot::RemoteSnapshot;
pub use way::Way;
