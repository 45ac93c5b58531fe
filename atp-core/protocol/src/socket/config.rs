//! The tunables of direct sockets.

/// Limits of direct sockets. They bound what a peer can make us hold in memory, whatever it sends.
///
/// It is plain data; times (connecting, calls, heartbeats) are those of
/// [`TransportConfig`](atp_transport::TransportConfig).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// Longest reply that is taken, bytes. Of a longer one nothing is kept; what becomes of the link,
    /// [`oversized`](Self::oversized) says.
    pub max_reply: usize,
    /// Longest command that is sent, bytes. QEMU's and the agent's own limit is 64 MiB.
    pub max_command: usize,
    /// Longest monitor event that is kept, bytes; longer ones are counted as missed.
    pub max_event: usize,
    /// Monitor events that are kept for a reader who is late, at most 65,536; older ones are counted as missed.
    pub event_buffer: usize,
    /// What follows a reply that is too long.
    pub oversized: Oversized,
}

impl SocketConfig {
    /// Room for events is set aside beforehand, so there is an end to it.
    pub(super) const MOST_EVENTS: usize = 1 << 16;
}

/// What follows a reply that is longer than [`max_reply`](SocketConfig::max_reply). Its command fails with
/// [`OutputTooLarge`](crate::ProtocolError::OutputTooLarge) either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversized {
    /// The rest of it is read and thrown away, and the link goes on.
    Skip,
    /// The link is closed at once, and opened again by its pool.
    Disconnect,
}

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            max_reply: 16 * 1024 * 1024,
            max_command: 4 * 1024 * 1024,
            max_event: 64 * 1024,
            event_buffer: 256,
            oversized: Oversized::Skip,
        }
    }
}
