//! Shuts down or restarts a guest: by its agent, or by the power button if no agent answers.

use std::time::Duration;

use atp_transport::{Effect, ErrorKind, LibvirtError};
use qapi::qga::{GuestShutdownMode, guest_shutdown};
use qapi::qmp::system_powerdown;
use tokio::time::Instant;

use super::system::ping;
use crate::carrier::Carrier;
use crate::error::Result;
use crate::reserve::after;
use crate::{agent, monitor};

/// The way in which a guest's system ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerAction {
    /// Shut down and power off.
    Shutdown,
    /// Restart.
    Reboot,
}

/// The limits for the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerPolicy {
    /// How long the agent may take to answer a ping, and then to refuse; 2 s each by default.
    pub agent_timeout: Duration,
}

impl Default for PowerPolicy {
    fn default() -> Self {
        PowerPolicy { agent_timeout: Duration::from_secs(2) }
    }
}

/// The recipient of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoweredBy {
    /// The guest's agent (`guest-shutdown`).
    Agent,
    /// The guest's operating system, through the ACPI power button (`system_powerdown`), which it may ignore.
    PowerButton,
}

/// Asks a guest to shut down or restart. Returns when the request is accepted, before the guest has carried it out.
///
/// The agent is asked first, if it answers at all. If it does not, or refuses, the power button is pressed, except for
/// a restart. An agent that obeys sends no answer, so its silence counts as success.
///
/// # Errors
/// The error of pressing the button; for a restart, the error of the agent.
///
/// Dropping the future stops the wait and does not cancel the request.
pub async fn power(
    carrier: &impl Carrier,
    action: PowerAction,
    policy: PowerPolicy,
    deadline: Instant,
) -> Result<PoweredBy> {
    let answers = ping(carrier, deadline.min(after(policy.agent_timeout))).await;
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
            // The agent answered just before, so it shut down with the guest before it could answer again.
            Err(error) if is_there && error.transport_kind() == Some(ErrorKind::VmNotRunning) => {
                Ok(PoweredBy::Agent)
            }
            // The same, and QEMU ended while the button was pressed.
            Err(error)
                if is_there
                    && by_agent.effect() != Effect::None
                    && error.libvirt().is_some_and(LibvirtError::is_end_of_qemu) =>
            {
                Ok(PoweredBy::Agent)
            }
            // The agent may have received the command, whether the button was refused or not.
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
    let agent_timeout = deadline.min(after(policy.agent_timeout));
    let error = match agent::execute(carrier, &guest_shutdown { mode: Some(mode) }, agent_timeout).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    // libvirt reports this for an agent that shuts down with the guest before it has answered. So does libvirt's own
    // timeout, which counts whole seconds and may end shortly before ours. The VM was running just before.
    let went_down = match error.transport_kind() {
        Some(ErrorKind::VmNotRunning) => true,
        // Newer libvirt reports whether the agent was silent before the command.
        Some(ErrorKind::AgentUnresponsive | ErrorKind::AgentGone) => error.effect() == Effect::Unknown,
        _ => false,
    };
    let is_silent = error.is_timeout() && error.effect() == Effect::Unknown;
    if went_down || is_silent { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use atp_transport::TransportError;

    use super::*;
    use crate::error::ProtocolError;
    use crate::script::{Script, Step};

    fn failure(operation: &'static str, kind: ErrorKind, code: u32, message: &str) -> Step {
        let source = LibvirtError { code, domain: 10, level: 2, message: message.to_owned() };
        let host = "h1".parse().unwrap();
        ProtocolError::from(TransportError::Libvirt { host, operation, kind, source }).into()
    }

    fn agents(kind: ErrorKind, code: u32, message: &str) -> Step {
        failure("virDomainQemuAgentCommand", kind, code, message)
    }

    /// Runs a shutdown with an agent that answers the ping and then with `agent`, and the reply to the button.
    async fn shut_down(agent: Step, button: impl Into<Step>) -> Result<PoweredBy> {
        let script = Script::new([Step::from(r#"{"return":{}}"#), agent, button.into()]);
        power(&script, PowerAction::Shutdown, PowerPolicy::default(), after(Duration::from_secs(60))).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_was_silent_before_the_command_was_not_asked() {
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
    async fn an_agent_that_may_have_the_command_keeps_the_effect_unknown_if_the_button_is_refused() {
        const REFUSED: &str = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
        let broken = agents(ErrorKind::LibvirtError, 1, "internal error: End of file from agent socket");
        let error = shut_down(broken, REFUSED).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("libvirt-error", Effect::Unknown), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_qemu_that_ends_under_the_button_shut_down_by_its_agent_if_that_may_have_obeyed() {
        const ENDED: &str = "internal error: End of file from qemu monitor (vm='web-1')";
        const REFUSED: &str = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
        let ended = || failure("virDomainQemuMonitorCommand", ErrorKind::LibvirtError, 1, ENDED);
        let broken = agents(ErrorKind::LibvirtError, 1, "internal error: End of file from agent socket");
        assert_eq!(shut_down(broken, ended()).await.unwrap(), PoweredBy::Agent);
        let error = shut_down(REFUSED.into(), ended()).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("libvirt-error", Effect::Unknown), "{error:?}");
    }
}
