//! libvirt's own errors.

use crate::domain::error_numbers::{AGENT_COMMAND_FAILED, INTERNAL_ERROR};

/// An error as libvirt reported it (`virError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (libvirt error {code}, domain {domain})")]
pub struct LibvirtError {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`: the part of libvirt that raised it.
    pub domain: u32,
    /// `virErrorLevel`: 1 is a warning, 2 an error.
    pub level: u32,
    /// libvirt's words.
    pub message: String,
}

impl LibvirtError {
    /// The command and the description of an error reply of the guest agent, which libvirt reports in words of its own:
    /// `unable to execute QEMU agent command 'NAME': DESCRIPTION`. None if these are not the words of this error. Without a
    /// description they stand for a reply that is neither a result nor an error.
    pub fn agent_refusal(&self) -> Option<(&str, &str)> {
        self.refusal("unable to execute QEMU agent command '")
    }

    /// The same of an error reply of QEMU to a command of libvirt's own.
    pub(super) fn qemu_refusal(&self) -> Option<(&str, &str)> {
        self.refusal("unable to execute QEMU command '")
    }

    fn refusal(&self, words: &str) -> Option<(&str, &str)> {
        let (before, rest) = self.message.split_once(words)?;
        // Anchored, for other internal errors may quote what the guest sent.
        let is_libvirts = match self.code {
            AGENT_COMMAND_FAILED => true,
            INTERNAL_ERROR => matches!(before, "" | "internal error: "),
            _ => false,
        };
        if is_libvirts { rest.split_once("': ") } else { None }
    }
}
