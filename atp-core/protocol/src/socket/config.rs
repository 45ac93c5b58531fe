//! Limits of direct sockets.

/// Limits of direct sockets. They bound the memory that a peer can make us use, whatever it sends.
///
/// Plain data. The timeouts (connecting, calls, heartbeats) are those of
/// [`TransportConfig`](atp_transport::TransportConfig).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// The longest reply that is accepted, bytes. A longer one is dropped; [`oversized`](Self::oversized) decides what
    /// happens to the link.
    pub max_reply: usize,
    /// The longest command that is sent, bytes. The limit of QEMU and of the agent is 64 MiB.
    pub max_command: usize,
    /// The longest monitor event that is kept, bytes. Longer ones are counted as missed.
    pub max_event: usize,
    /// The number of monitor events kept for a slow reader, at most 65,536. Older ones are counted as missed.
    pub event_buffer: usize,
    /// What happens after a reply that is too long.
    pub oversized: Oversized,
}

impl SocketConfig {
    /// The buffer for events is allocated in advance, so its size is limited.
    pub(super) const MOST_EVENTS: usize = 1 << 16;
}

/// What happens after a reply that is longer than [`max_reply`](SocketConfig::max_reply). Its command fails with
/// [`OutputTooLarge`](crate::ProtocolError::OutputTooLarge) in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversized {
    /// The rest of the reply is read and dropped, and the link stays open.
    Skip,
    /// The link is closed at once, and its pool opens it again.
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
