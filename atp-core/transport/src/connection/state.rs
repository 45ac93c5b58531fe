//! Where a connection stands.

use strum::Display;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "lowercase")]
pub enum ConnectionState {
    /// Made, and its task has not run yet.
    Idle,
    /// The first attempt to connect is under way.
    Connecting,
    /// Up.
    Connected,
    /// Lost, and being opened again.
    #[strum(to_string = "reconnecting (attempt {attempt})")]
    Reconnecting {
        /// The number of the attempt that is waited for or under way, from 1.
        attempt: u32,
    },
    /// So many calls, or a probe, overran their deadlines and cannot be stopped: no new work, and closed when all is returned.
    Suspect,
    /// Old, or one too many: no new work, and closed when all is returned.
    Draining,
    /// All attempts are spent. The host is tried again when `max_delay` has passed.
    Failed,
    /// Gone for good.
    Closed,
}
