//! The two peers of a VM that answer commands.

use strum::Display;

/// The program that answers a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display)]
pub enum Peer {
    /// QEMU itself, over its monitor (QMP).
    #[strum(serialize = "QEMU")]
    Monitor,
    /// The guest agent inside the VM (QGA).
    #[strum(serialize = "the guest agent")]
    Agent,
}
