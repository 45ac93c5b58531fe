//! Ending or restarting a guest's system: by its agent, and by the power button where there is none that answers.

use std::time::Duration;

use qapi::qga::{GuestShutdownMode, guest_shutdown};
use qapi::qmp::system_powerdown;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::{agent, monitor};

/// How a guest's system is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerAction {
    /// End, and switch the power off.
    Shutdown,
    /// End, and start again.
    Reboot,
}

/// How long the agent is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerPolicy {
    /// How long the agent may take to refuse; 2 s by default. It says nothing when it does what it is asked to.
    pub patience: Duration,
}

impl Default for PowerPolicy {
    fn default() -> Self {
        PowerPolicy { patience: Duration::from_secs(2) }
    }
}

/// Who took the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoweredBy {
    /// The guest's agent (`guest-shutdown`).
    Agent,
    /// The guest's system itself, by the ACPI power button (`system_powerdown`); it may do as it likes.
    PowerButton,
}

/// Asks a guest to end its system. Returns when the request is taken, before the guest has followed it.
///
/// The agent is asked first. If nothing reached it, or it refuses, the power button is pressed; there is none for a
/// restart. An agent that follows does not answer: so silence for [`patience`](PowerPolicy::patience) is consent.
///
/// # Errors
/// What pressing the button came to; for a restart, what asking the agent came to.
///
/// Dropping the future gives up the wait, not what was asked.
pub async fn power(
    carrier: &impl Carrier,
    action: PowerAction,
    policy: PowerPolicy,
    deadline: Instant,
) -> Result<PoweredBy> {
    let mode = match action {
        PowerAction::Shutdown => GuestShutdownMode::Powerdown,
        PowerAction::Reboot => GuestShutdownMode::Reboot,
    };
    let patience = deadline.min(Instant::now() + policy.patience);
    let refused = match agent::execute(carrier, &guest_shutdown { mode: Some(mode) }, patience).await {
        Ok(_) | Err(ProtocolError::Timeout { sent: true, .. }) => return Ok(PoweredBy::Agent),
        Err(error) if error.effect() == atp_transport::Effect::None => error,
        // It was sent, and the guest is already going, or its connection.
        Err(error) if error.is_timeout() => return Ok(PoweredBy::Agent),
        Err(error) => error,
    };
    if action == PowerAction::Reboot {
        return Err(refused);
    }
    monitor::execute(carrier, &system_powerdown {}, deadline).await?;
    Ok(PoweredBy::PowerButton)
}
