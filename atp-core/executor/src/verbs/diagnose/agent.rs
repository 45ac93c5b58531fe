//! The guest agent of one VM: whether it has a channel, is connected, answers, and which commands it refuses.

use atp_api::{Data, Diagnosis, Finding, OutcomeError, Status};
use atp_protocol::{AgentCapabilities, LibvirtCarrier, ProtocolError, Support, guest};
use atp_transport::domain::{AgentChannel, DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, Hint};
use tokio::time::Instant;

use super::Failed;
use crate::verbs::completion::Completion;
use crate::verbs::job::Job;
use crate::verbs::vm_info::details;

const CHECK: &str = "agent";

/// The agent commands that are needed to run commands in the guest.
const NEEDED: [&str; 2] = ["guest-exec", "guest-exec-status"];

/// What was found.
enum Found {
    NotRunning(DomainState),
    NotConfigured,
    Disconnected,
    /// Its capabilities, the milliseconds until it answered, and whether the guest's file systems are frozen.
    Answered(AgentCapabilities, f64, bool),
}

pub(in crate::verbs) async fn perform(job: &Job, domain: &DomainInfo) -> Completion {
    let deadline = job.deadline();
    let details = match details(job, domain).await {
        Ok(details) => details,
        Err((error, known)) => {
            let known = known.iter().map(|info| Finding::note("vm", in_brief(info)));
            let diagnosis = Diagnosis::from(known.chain([no_definition(&error)]).collect::<Vec<_>>());
            return Completion { data: Some(Data::Diagnosis(diagnosis)), ..job.failure(&error) };
        }
    };
    match (details.agent, details.info.state) {
        (Some(AgentChannel::NotConfigured), _) => return judge(job, domain, &Found::NotConfigured),
        (_, DomainState::Running | DomainState::Blocked) => {}
        (_, state) => return judge(job, domain, &Found::NotRunning(state)),
    }
    if details.agent == Some(AgentChannel::Disconnected) {
        return judge(job, domain, &Found::Disconnected);
    }
    let found = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        let asked = Instant::now();
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let agent = AgentCapabilities::ask(&carrier, deadline).await?;
        let took = asked.elapsed().as_secs_f64() * 1e3;
        // An agent has most of its commands disabled while it has file systems frozen.
        let may_be_frozen = NEEDED.iter().any(|command| agent.support(command) == Support::Disabled);
        let frozen = may_be_frozen && guest::frozen(&carrier, deadline).await.unwrap_or(false);
        Ok::<_, ProtocolError>(Found::Answered(agent, took, frozen))
    });
    match found.await {
        Ok(found) => judge(job, domain, &found),
        Err(error) => {
            let diagnosis = Diagnosis::from(vec![unanswered(&error)]);
            Completion { data: Some(Data::Diagnosis(diagnosis)), ..job.failure(&error) }
        }
    }
}

/// What is known of a VM without its QEMU.
fn in_brief(info: &DomainInfo) -> String {
    let mut parts = vec![info.state.to_string()];
    parts.extend(info.vcpus.map(|vcpus| format!("{vcpus} vCPUs")));
    parts.extend(info.memory_kib.map(|kib| format!("{} MiB of memory", kib / 1024)));
    parts.join(", ")
}

/// The finding for a VM whose definition the daemon did not tell.
fn no_definition(error: &ProtocolError) -> Finding {
    let Failed { message, hint, .. } = Failed::of(error);
    Finding::problem("definition", message, hint)
}

/// The finding for an agent that could not be asked.
fn unanswered(error: &ProtocolError) -> Finding {
    let Failed { message, hint, .. } = Failed::of(error);
    Finding::problem(CHECK, message, hint)
}

fn judge(job: &Job, domain: &DomainInfo, found: &Found) -> Completion {
    let failed = |kind: ErrorKind, what: &str, hint: &'static str| {
        let message = format!("host {}: VM {:?} {what}", job.target.host, domain.name);
        let error = OutcomeError::new(kind, message).with_hint(hint);
        let diagnosis = Diagnosis::from(vec![Finding::problem(CHECK, what, hint)]);
        Completion {
            data: Some(Data::Diagnosis(diagnosis)),
            ..Completion::failed(Status::Failed, Effect::None, error)
        }
    };
    let fine =
        |findings: Vec<Finding>| Completion::ok(Effect::None, Data::Diagnosis(Diagnosis::from(findings)));
    match found {
        Found::NotRunning(state) => fine(vec![Finding::note(CHECK, format!("not asked: the VM is {state}"))]),
        Found::NotConfigured => failed(
            ErrorKind::AgentNotConnected,
            "has no channel for a guest agent in its definition",
            "add a channel to the definition (`virsh edit`) and restart the VM: \
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
        ),
        Found::Disconnected => failed(
            ErrorKind::AgentNotConnected,
            "has a channel for a guest agent, but no agent in the guest uses it",
            "install qemu-guest-agent in the guest and start it, or wait until the guest has booted",
        ),
        Found::Answered(agent, millis, frozen) => fine(answered(agent, *millis, *frozen)),
    }
}

fn answered(agent: &AgentCapabilities, millis: f64, frozen: bool) -> Vec<Finding> {
    let mut findings =
        vec![Finding::ok(CHECK, format!("qemu-ga {}, answers in {millis:.1} ms", agent.version))];
    let disabled: Vec<_> =
        NEEDED.into_iter().filter(|command| agent.support(command) == Support::Disabled).collect();
    if frozen {
        findings.push(Finding::warning(
            "agent-commands",
            "the guest's file systems are frozen: no command can be run in the guest until they are thawed",
            Hint::THAW_FIRST,
        ));
    } else if !disabled.is_empty() {
        findings.push(Finding::warning(
            "agent-commands",
            format!("the agent refuses {}: no command can be run in the guest", disabled.join(" and ")),
            "take them out of block-rpcs (or blacklist) in the guest's qemu-ga configuration, and restart the agent",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use atp_protocol::qapi::qga;
    use atp_transport::{LibvirtError, TransportError};

    use super::*;
    use atp_api::Verdict;

    #[test]
    fn the_finding_for_an_agent_that_cannot_be_asked_has_the_reason() {
        let (host, operation) = ("h1".parse().unwrap(), "virDomainQemuAgentCommand");
        let message = "cannot acquire state change lock (held by monitor=remoteDispatch)".to_owned();
        let source = LibvirtError { code: 68, domain: 10, level: 2, message: message.clone() };
        let error = TransportError::Libvirt { host, operation, kind: ErrorKind::MonitorBusy, source };
        let finding = unanswered(&error.into());
        assert!(finding.message.starts_with(&message), "{}", finding.message);
        assert_eq!(finding.hint, Some(ErrorKind::MonitorBusy.hint()));
    }

    #[test]
    fn findings_for_agents_that_do_not_answer_are_the_same_on_every_host() {
        let messages = ["h1", "h2"].map(|host| {
            let (host, operation, after) =
                (host.parse().unwrap(), "virDomainQemuAgentCommand", std::time::Duration::from_secs(5));
            unanswered(&TransportError::CallTimeout { host, operation, after, sent: true }.into()).message
        });
        assert_eq!(messages, ["no answer after 5.0s"; 2]);
    }

    #[test]
    fn an_agent_that_may_run_nothing_is_a_warning() {
        let agent = |enabled: bool| {
            AgentCapabilities::from(qga::GuestAgentInfo {
                version: "7.2".to_owned(),
                supported_commands: vec![qga::GuestAgentCommandInfo {
                    name: "guest-exec".to_owned(),
                    enabled,
                    success_response: true,
                }],
            })
        };
        let findings = answered(&agent(true), 3.0, false);
        assert_eq!((findings.len(), findings[0].message.as_str()), (1, "qemu-ga 7.2, answers in 3.0 ms"));
        let findings = answered(&agent(false), 3.0, true);
        assert_eq!((findings.len(), findings[1].verdict), (2, Verdict::Warning));
        assert!(findings[1].message.contains("frozen"), "{findings:?}");
        let findings = answered(&agent(false), 3.0, false);
        assert_eq!(findings[1].verdict, Verdict::Warning);
        assert!(findings[1].message.contains("refuses guest-exec:"), "{findings:?}");
    }
}
