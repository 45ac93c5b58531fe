//! What an operation is done to: a VM, or a host.

use std::fmt;

use atp_transport::HostId;
use atp_transport::domain::{DomainInfo, DomainState};
use uuid::Uuid;

/// What an operation is done to: a VM, or a host if the operation is for hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: HostId,
    /// The VM as it was listed; none where the host itself is the target. A VM's identity is its UUID: it
    /// stays the same VM when it is renamed.
    pub domain: Option<DomainInfo>,
}

impl Target {
    /// The VM's name.
    pub fn vm(&self) -> Option<&str> {
        self.domain.as_ref().map(|domain| domain.name.as_str())
    }

    /// The VM's identity.
    pub fn uuid(&self) -> Option<Uuid> {
        self.domain.as_ref().map(|domain| domain.uuid)
    }

    /// The VM's state when it was listed.
    pub fn state(&self) -> Option<DomainState> {
        self.domain.as_ref().map(|domain| domain.state)
    }
}

impl fmt::Display for Target {
    /// `HOST/VM` or `HOST`, with control characters of the name escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        match self.vm() {
            Some(vm) => write!(f, "/{}", Printable(vm)),
            None => Ok(()),
        }
    }
}

/// Text from outside, with control characters escaped so that it cannot drive a terminal.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}
