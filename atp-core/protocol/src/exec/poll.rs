//! Starts one process through the agent and queries it until it has ended.

use std::time::Duration;

use atp_transport::ErrorKind;
use qapi::qga::{guest_exec, guest_exec_status, guest_get_osinfo};
use tokio::time::{self, Instant};

use super::{ExecOutput, Polling, SHELL};
use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::refusal::{Refusal, RefusalKind};
use crate::windows::{OS_ID, POWERSHELL};

/// Starts a process through the agent. `program` is its name in errors.
pub(crate) async fn started(
    carrier: &impl Carrier,
    command: &guest_exec,
    program: &str,
    deadline: Instant,
) -> Result<i64> {
    match agent::execute(carrier, command, deadline).await {
        Ok(started) => Ok(started.pid),
        Err(ProtocolError::Refused(refusal)) if refusal.kind == RefusalKind::Guest => {
            let reason = reason_of(&refusal);
            let shell = [SHELL, POWERSHELL].into_iter().find(|shell| command.path == *shell);
            if let Some(shell) = shell
                && let Some((os, is_windows)) = without_shell(carrier, shell, &reason, deadline).await
            {
                let libvirt = refusal.libvirt;
                return Err(ProtocolError::NoShell { os, shell, is_windows, reason, libvirt });
            }
            Err(ProtocolError::ExecFailed { program: program.to_owned(), reason, libvirt: refusal.libvirt })
        }
        Err(error) => Err(error),
    }
}

/// Queries the agent until the process has ended.
pub(crate) async fn ended(
    carrier: &impl Carrier,
    pid: i64,
    program: &str,
    polling: &Polling,
    deadline: Instant,
) -> Result<ExecOutput> {
    let program = || program.to_owned();
    let (mut is_first, mut pause, mut further) = (true, polling.first, polling.second);
    let mut last_took = Duration::ZERO;
    let mut failed: Option<Box<ProtocolError>> = None;
    loop {
        // A query is only sent if there is time for its answer, judged by the duration of the last one: the answer that
        // is cut off may be the one with the result. Near the deadline the pauses halve the time left, so that an end
        // shortly before the deadline is still seen.
        let margin = polling.second.max(last_took.saturating_mul(2));
        let left = deadline.saturating_duration_since(Instant::now());
        let least = if is_first { polling.first } else { polling.second };
        let next = pause.min(left / 2).max(least);
        if next.saturating_add(margin) > left {
            // It returns a little before the deadline, because the caller may cut in at the deadline itself.
            time::sleep(left.saturating_sub(polling.second)).await;
            return Err(match failed {
                // Whether it runs is not known: the VM itself may hang.
                Some(source) if source.transport_kind() == Some(ErrorKind::AgentUnresponsive) => {
                    ProtocolError::ResultLost { program: program(), pid, source }
                }
                source => ProtocolError::StillRunning { program: program(), pid, source },
            });
        }
        // A sleep of no time takes up to a millisecond.
        if !is_first || !next.is_zero() {
            time::sleep(next).await;
        }
        is_first = false;
        (pause, further) = (further, polling.after(further));

        let asked = Instant::now();
        let answer = agent::execute(carrier, &guest_exec_status { pid }, deadline).await;
        last_took = asked.elapsed();
        match answer {
            Ok(status) if status.exited => return Ok(status.into()),
            Ok(_) => failed = None,
            Err(error) if may_pass(&error) => failed = Some(Box::new(error)),
            // The deadline cut off a query of an agent that had been silent before.
            Err(error)
                if error.is_unanswered_by_agent()
                    && let Some(source) = failed
                        .take_if(|failed| failed.transport_kind() == Some(ErrorKind::AgentUnresponsive)) =>
            {
                return Err(ProtocolError::ResultLost { program: program(), pid, source });
            }
            Err(ProtocolError::Refused(refusal)) if forgotten(&refusal) => {
                return Err(ProtocolError::ProcessLost { program: program(), pid });
            }
            Err(error) => {
                return Err(ProtocolError::ResultLost { program: program(), pid, source: Box::new(error) });
            }
        }
    }
}

/// Whether a later query may be answered although this one failed. Asking again is safe: at worst the agent has
/// forgotten the process with the lost answer, and says so.
fn may_pass(error: &ProtocolError) -> bool {
    let passing =
        [ErrorKind::AgentUnresponsive, ErrorKind::AgentGone, ErrorKind::AgentBusy, ErrorKind::MonitorBusy];
    match error {
        ProtocolError::Refused(refusal) => refusal.kind == RefusalKind::GuestFrozen,
        _ => error.transport_kind().is_some_and(|kind| passing.contains(&kind)),
    }
}

/// Whether the agent answered that it does not know, or no longer knows, the process id.
fn forgotten(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Guest && refusal.desc.contains("'pid'")
}

/// Extracts the reason from the agent's message: `Guest agent command failed, error was 'REASON'`.
fn reason_of(refusal: &Refusal) -> String {
    let inner = refusal.desc.split_once("error was '").and_then(|(_, rest)| rest.strip_suffix('\''));
    inner.unwrap_or(&refusal.desc).to_owned()
}

/// Whether the shell could not be started because the guest has none, with the guest's operating system if it is known, and
/// whether that is Windows. The guest's message may be in any language, so its system is queried as well.
async fn without_shell(
    carrier: &impl Carrier,
    shell: &str,
    reason: &str,
    deadline: Instant,
) -> Option<(Option<String>, bool)> {
    let os = agent::execute(carrier, &guest_get_osinfo {}, deadline).await.ok();
    let is_windows = os.as_ref().is_some_and(|os| os.id.as_deref() == Some(OS_ID));
    let is_known = os.is_some();
    let name = os.and_then(|os| os.pretty_name.or(os.name));
    // Each kind of system has the one shell, and not the other.
    let is_other = is_known && is_windows != (shell == POWERSHELL);
    (is_other || reason.contains("No such file or directory")).then_some((name, is_windows))
}
