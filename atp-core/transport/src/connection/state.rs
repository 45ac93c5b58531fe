//! Where a connection stands.

use std::fmt;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Made, and its task has not run yet.
    Idle,
    /// The first attempt to connect is under way.
    Connecting,
    /// Up.
    Connected,
    /// Lost, and being opened again.
    Reconnecting {
        /// The number of the attempt that is waited for or under way, from 1.
        attempt: u32,
    },
    /// A call overran its deadline and cannot be stopped: no new work, and closed when all is returned.
    Suspect,
    /// Old, or one too many: no new work, and closed when all is returned.
    Draining,
    /// All attempts are spent. The host is tried again when `max_delay` has passed.
    Failed,
    /// Gone for good.
    Closed,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionState::Idle => f.write_str("idle"),
            ConnectionState::Connecting => f.write_str("connecting"),
            ConnectionState::Connected => f.write_str("connected"),
            ConnectionState::Reconnecting { attempt } => write!(f, "reconnecting (attempt {attempt})"),
            ConnectionState::Suspect => f.write_str("suspect"),
            ConnectionState::Draining => f.write_str("draining"),
            ConnectionState::Failed => f.write_str("failed"),
            ConnectionState::Closed => f.write_str("closed"),
        }
    }
}
