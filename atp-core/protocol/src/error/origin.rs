//! The program that reported a failure.

use atp_transport::TransportError;
use strum::{Display, IntoStaticStr};

use super::ProtocolError;
use crate::peer::Peer;

/// The program that reported a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Origin {
    /// This program: the failure was found, or happened, on this machine.
    Caller,
    /// The connection to the VM: a connection, its pool, a deadline.
    Carrier,
    /// libvirt.
    Libvirt,
    /// QEMU.
    Qemu,
    /// The guest, through its agent.
    Guest,
}

impl Origin {
    /// The name, in lower case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<Peer> for Origin {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Monitor => Origin::Qemu,
            Peer::Agent => Origin::Guest,
        }
    }
}

impl ProtocolError {
    /// The program that reported the failure.
    pub fn origin(&self) -> Origin {
        match self {
            ProtocolError::Transport(TransportError::Libvirt { .. }) | ProtocolError::GuestBooting { .. } => {
                Origin::Libvirt
            }
            ProtocolError::OutputTooLarge { libvirt: Some(_), .. } => Origin::Libvirt,
            ProtocolError::Transport(_)
            | ProtocolError::Timeout { .. }
            | ProtocolError::NoChannel { .. }
            | ProtocolError::AgentSilent
            | ProtocolError::VmSilent { .. }
            | ProtocolError::NotReachedAgain { .. }
            | ProtocolError::OutputTooLarge { libvirt: None, .. }
            | ProtocolError::StillRunning { .. } => Origin::Carrier,
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => Origin::Carrier,
            ProtocolError::InvalidCommand { .. } | ProtocolError::CommandTooLarge { .. } => Origin::Caller,
            ProtocolError::Refused(refusal) => refusal.peer.into(),
            ProtocolError::InvalidReply { peer, .. } => (*peer).into(),
            ProtocolError::ExecFailed { .. }
            | ProtocolError::NoShell { .. }
            | ProtocolError::ProcessLost { .. }
            | ProtocolError::ThawedEarly { .. } => Origin::Guest,
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::NotThawed { source }
            | ProtocolError::InputIncomplete { source, .. } => source.origin(),
            ProtocolError::File(error) => error.origin(),
            // libvirt sends the screenshot as a stream.
            ProtocolError::ImageTooLarge { .. } | ProtocolError::InvalidImage { .. } => Origin::Libvirt,
        }
    }
}
