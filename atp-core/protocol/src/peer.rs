//! The two peers of a VM that answer commands.

use std::fmt;

/// The program that answers a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// QEMU itself, over its monitor (QMP).
    Monitor,
    /// The guest agent inside the VM (QGA).
    Agent,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Monitor => "QEMU",
            Peer::Agent => "the guest agent",
        })
    }
}
