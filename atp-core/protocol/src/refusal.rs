//! The error replies of QEMU and of the guest agent, and their kinds.

use atp_transport::{ErrorKind, Hint, LibvirtError};

use crate::peer::Peer;

/// An error reply, from QEMU or from the guest agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{peer} refused {command}: {}", .desc)]
pub struct Refusal {
    /// The peer that refused.
    pub peer: Peer,
    /// The kind of refusal.
    pub kind: RefusalKind,
    /// The command.
    pub command: String,
    /// The error's class, such as `GenericError`. libvirt does not pass it on for the agent.
    pub class: Option<String>,
    /// The error's description.
    pub desc: String,
    /// libvirt's error, if libvirt carried the refusal as an error.
    pub libvirt: Option<LibvirtError>,
}

/// The kinds of error replies that are distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// QEMU refused.
    Qmp,
    /// QEMU refused, because the VM has no device for such input.
    NoInputDevice,
    /// The guest agent's configuration forbids the command.
    CommandDisabled,
    /// The guest agent is too old, or was built without the command.
    CommandUnknown,
    /// The guest's filesystems are frozen: the agent refuses all but a few commands until they are thawed.
    GuestFrozen,
    /// The guest agent refused for another reason.
    Guest,
}

impl RefusalKind {
    /// The error kind of this refusal.
    pub fn error_kind(self) -> ErrorKind {
        match self {
            RefusalKind::Qmp => ErrorKind::QmpError,
            RefusalKind::NoInputDevice => ErrorKind::NoInputDevice,
            RefusalKind::CommandDisabled => ErrorKind::AgentCommandDisabled,
            RefusalKind::CommandUnknown => ErrorKind::AgentCommandUnknown,
            RefusalKind::GuestFrozen => ErrorKind::GuestFrozen,
            RefusalKind::Guest => ErrorKind::GuestError,
        }
    }
}

impl Refusal {
    /// An error reply to `command`. Its kind is derived from its class and description.
    pub fn new(
        peer: Peer,
        command: impl Into<String>,
        class: Option<String>,
        desc: impl Into<String>,
        libvirt: Option<LibvirtError>,
    ) -> Self {
        let mut desc = desc.into();
        if desc.is_empty() {
            desc.push_str("no reason given");
        }
        let kind = match peer {
            // Of the type "abs" where the VM has no tablet. QEMU's messages are never translated.
            Peer::Monitor if desc.starts_with("Input handler not found for event type") => {
                RefusalKind::NoInputDevice
            }
            Peer::Monitor => RefusalKind::Qmp,
            Peer::Agent => agent_kind(class.as_deref(), &desc),
        };
        Refusal { peer, kind, command: command.into(), class, desc, libvirt }
    }

    /// Parses libvirt's message about an error reply of the guest agent, which keeps only the description. None if the message
    /// has another form; see [`LibvirtError::agent_refusal`].
    pub fn from_libvirt(error: &LibvirtError) -> Option<Self> {
        let (command, desc) = error.agent_refusal()?;
        Some(Refusal::new(Peer::Agent, command, None, desc, Some(error.clone())))
    }

    /// What the user can try.
    pub fn hint(&self) -> Hint {
        let text = match self.kind {
            RefusalKind::Qmp if self.desc.ends_with("has not been found") => {
                "`query-commands` lists the commands of this QEMU"
            }
            RefusalKind::Qmp => "check the arguments against the QMP reference of the host's QEMU version",
            RefusalKind::NoInputDevice => return ErrorKind::NoInputDevice.hint(),
            RefusalKind::CommandDisabled => {
                "in the guest, take the command out of block-rpcs (older: blacklist), or add it to allow-rpcs, in \
                 /etc/qemu/qemu-ga.conf; on Fedora and its kin out of BLACKLIST_RPC or FILTER_RPC_ARGS in \
                 /etc/sysconfig/qemu-ga; and restart qemu-guest-agent"
            }
            RefusalKind::CommandUnknown => {
                "`guest-info` lists the commands of this agent; a newer qemu-guest-agent may have more"
            }
            RefusalKind::GuestFrozen => return Hint::THAW_FIRST,
            // Messages of the agent's parser, which runs before the command.
            RefusalKind::Guest
                if self.desc.starts_with("Parameter '") || self.desc.starts_with("Invalid parameter") =>
            {
                "check the arguments against the reference of the guest agent (QGA)"
            }
            RefusalKind::Guest if self.command.starts_with("guest-file-") => {
                return Hint::CHECK_GUEST_FILE;
            }
            RefusalKind::Guest => "check the arguments, and the agent's log in the guest",
        };
        Hint::plain(text)
    }
}

/// The agent distinguishes these only by its messages: a disabled command has the class of an unknown one.
fn agent_kind(class: Option<&str>, desc: &str) -> RefusalKind {
    // Anchored, because a description may quote any file or program name.
    let about_the_command = desc.starts_with("Command ") || desc.starts_with("The command ");
    if about_the_command && desc.contains("has been disabled") {
        if desc.contains("frozen state") { RefusalKind::GuestFrozen } else { RefusalKind::CommandDisabled }
    } else if class == Some("CommandNotFound") || about_the_command && desc.contains("has not been found") {
        RefusalKind::CommandUnknown
    } else {
        RefusalKind::Guest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_distinguished_by_the_agents_messages() {
        for (desc, kind) in [
            ("Command guest-exec has been disabled", RefusalKind::CommandDisabled),
            (
                "Command guest-exec has been disabled: the command is not allowed",
                RefusalKind::CommandDisabled,
            ),
            ("The command guest-exec has been disabled for this instance", RefusalKind::CommandDisabled),
            ("The command has been disabled for this instance", RefusalKind::CommandDisabled),
            ("Command guest-exec has been disabled: the agent is in frozen state", RefusalKind::GuestFrozen),
            ("The command guest-nope has not been found", RefusalKind::CommandUnknown),
            ("failed to open file 'Command x has been disabled'", RefusalKind::Guest),
            ("Invalid parameter 'pid'", RefusalKind::Guest),
            ("", RefusalKind::Guest),
        ] {
            assert_eq!(Refusal::new(Peer::Agent, "c", None, desc, None).kind, kind, "{desc}");
        }
        let no_tablet = Refusal::new(
            Peer::Monitor,
            "input-send-event",
            None,
            "Input handler not found for event type abs",
            None,
        );
        assert_eq!(no_tablet.kind, RefusalKind::NoInputDevice);
        assert!(no_tablet.hint().contains("type='tablet'"), "{}", no_tablet.hint());
        let full = Refusal::new(Peer::Agent, "guest-file-flush", None, "No space left on device", None);
        assert!(full.hint().contains("free space"), "{}", full.hint());
        for desc in [
            "Parameter 'path' is missing",
            "Parameter 'x' is unexpected",
            "Invalid parameter type for 'path', expected: string",
        ] {
            let hint = Refusal::new(Peer::Agent, "guest-file-open", None, desc, None).hint();
            assert!(hint.contains("arguments"), "{desc}: {hint}");
        }
        let disabled = Some("CommandNotFound".to_owned());
        let desc = "Command guest-exec has been disabled";
        assert_eq!(
            Refusal::new(Peer::Agent, "c", disabled, desc, None).kind,
            RefusalKind::CommandDisabled,
            "a disabled command may have the class of an unknown one"
        );
    }
}
