//! Calls that QEMU itself answers: commands to its monitor, keys. They hang for as long as QEMU does.

use std::time::Duration;

use crate::connection::Connection;
use crate::error::CallError;
use crate::message::RemoteDomain;
use crate::numbers::procedure;
use crate::xdr::{Result, ToXdr, Writer};

/// The most keys at once (`VIR_DOMAIN_SEND_KEY_MAX_KEYS`).
const MAX_KEYS: usize = 16;

/// What the numbers of keys mean (`virKeycodeSet`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeycodeSet {
    /// Those of Linux' input events.
    Linux,
    /// Those of the XT keyboard.
    Xt,
    /// Those of USB.
    Usb,
    /// QEMU's own.
    Qnum,
}

impl KeycodeSet {
    fn to_wire(self) -> u32 {
        match self {
            KeycodeSet::Linux => 0,
            KeycodeSet::Xt => 1,
            KeycodeSet::Usb => 8,
            KeycodeSet::Qnum => 10,
        }
    }
}

struct Keys<'a>(&'a [u32]);

impl ToXdr for Keys<'_> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        to.list("a chord of keys", self.0, MAX_KEYS)
    }
}

impl Connection {
    /// Sends a JSON command to a domain's QEMU monitor and returns its JSON reply, which may be an error reply
    /// (`virDomainQemuMonitorCommand`).
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn monitor_command(
        &self,
        domain: &RemoteDomain,
        command: &str,
    ) -> std::result::Result<String, CallError> {
        self.call(procedure::MONITOR_COMMAND, &(domain, command, 0u32)).await
    }

    /// Presses keys at once, holds them and lets them go (`virDomainSendKey`). At most 16.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn send_keys(
        &self,
        domain: &RemoteDomain,
        set: KeycodeSet,
        keys: &[u32],
        hold: Duration,
    ) -> std::result::Result<(), CallError> {
        let hold = u32::try_from(hold.as_millis()).unwrap_or(u32::MAX);
        let arguments = (domain, set.to_wire(), hold, Keys(keys), 0u32);
        self.call(procedure::DOMAIN_SEND_KEY, &arguments).await
    }
}
