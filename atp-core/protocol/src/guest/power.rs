//! Ending or restarting a guest's system: by its agent, and by the power button where there is none that answers.

use std::time::Duration;

use atp_transport::{Effect, ErrorKind};
use qapi::qga::{GuestShutdownMode, guest_shutdown};
use qapi::qmp::system_powerdown;
use tokio::time::Instant;

use super::system::ping;
use crate::carrier::Carrier;
use crate::error::Result;
use crate::reserve::after;
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
    /// How long the agent may take to show that it is there, and then to refuse; 2 s each by default.
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
/// The agent is asked first, if it answers at all. If it does not, or refuses, the power button is pressed; there is
/// none for a restart. An agent that follows says nothing more: so its silence is consent.
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
    let answers = ping(carrier, deadline.min(after(policy.patience))).await;
    let is_there = answers.is_ok();
    let asked = match answers {
        Ok(()) => by_agent(carrier, action, policy, deadline).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(()) => Ok(PoweredBy::Agent),
        Err(error) if action == PowerAction::Reboot => Err(error),
        Err(by_agent) => match monitor::execute(carrier, &system_powerdown {}, deadline).await {
            Ok(_) => Ok(PoweredBy::PowerButton),
            // The agent answered a moment ago: it went down with the guest before it could do so again.
            Err(error) if is_there && error.transport_kind() == Some(ErrorKind::VmNotRunning) => {
                Ok(PoweredBy::Agent)
            }
            // The agent may have got the command, whether the button was refused or not.
            Err(error) if is_there && error.effect() == Effect::None && by_agent.effect() != Effect::None => {
                Err(by_agent)
            }
            Err(error) => Err(error),
        },
    }
}

async fn by_agent(
    carrier: &impl Carrier,
    action: PowerAction,
    policy: PowerPolicy,
    deadline: Instant,
) -> Result<()> {
    let mode = match action {
        PowerAction::Shutdown => GuestShutdownMode::Powerdown,
        PowerAction::Reboot => GuestShutdownMode::Reboot,
    };
    let patience = deadline.min(after(policy.patience));
    let error = match agent::execute(carrier, &guest_shutdown { mode: Some(mode) }, patience).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    // libvirt says so of an agent that goes down with the guest before it has answered, and so does its own clock,
    // which counts whole seconds and may end the wait a moment before ours. A moment ago the VM was running.
    let went_down = match error.transport_kind() {
        Some(ErrorKind::VmNotRunning) => true,
        // Newer libvirt says when the silence came before the command.
        Some(ErrorKind::AgentUnresponsive | ErrorKind::AgentGone) => error.effect() == Effect::Unknown,
        _ => false,
    };
    let is_silent = error.is_timeout() && error.effect() == Effect::Unknown;
    if went_down || is_silent { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use atp_transport::{LibvirtError, TransportError};

    use super::*;
    use crate::error::ProtocolError;
    use crate::script::{Script, Step};

    fn agents(kind: ErrorKind, code: u32, message: &str) -> Step {
        let source = LibvirtError { code, domain: 10, level: 2, message: message.to_owned() };
        let (host, operation) = ("h1".parse().unwrap(), "virDomainQemuAgentCommand");
        ProtocolError::from(TransportError::Libvirt { host, operation, kind, source }).into()
    }

    /// What switching off comes to, of an agent that is there and answers so, and of the button.
    async fn shut_down(agent: Step, button: &str) -> Result<PoweredBy> {
        let script = Script::new([Step::from(r#"{"return":{}}"#), agent, Step::from(button)]);
        power(&script, PowerAction::Shutdown, PowerPolicy::default(), after(Duration::from_secs(60))).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_was_silent_before_the_command_was_not_told() {
        const PRESSED: &str = r#"{"return":{}}"#;
        let before = agents(
            ErrorKind::AgentUnresponsive,
            86,
            "guest agent didn't respond to synchronization within '5' seconds",
        );
        assert_eq!(shut_down(before, PRESSED).await.unwrap(), PoweredBy::PowerButton);
        let after = agents(ErrorKind::AgentUnresponsive, 86, "Guest agent not available for now");
        assert_eq!(shut_down(after, PRESSED).await.unwrap(), PoweredBy::Agent);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_may_have_been_told_is_not_forgotten_over_a_button_that_is_refused() {
        const REFUSED: &str = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
        let broken = agents(ErrorKind::LibvirtError, 1, "internal error: End of file from agent socket");
        let error = shut_down(broken, REFUSED).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("libvirt-error", Effect::Unknown), "{error:?}");
    }
}
