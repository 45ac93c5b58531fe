//! `vm info`: everything that the host and the guest know of a VM.

use atp_api::{Data, GuestReport, OsReport, OutcomeError, Policy, Status, VmReport};
use atp_protocol::{LibvirtCarrier, ProtocolError, guest};
use atp_transport::domain::{AgentChannel, DomainDetails, DomainInfo};
use atp_transport::{Effect, ErrorKind, LibvirtConnection};
use tokio::time::Instant;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static FACTS: VerbFacts = VerbFacts::look("vm-info");

pub(super) async fn perform(job: &Job, domain: &DomainInfo) -> Completion {
    let details = match details(job, domain).await {
        Ok(details) => details,
        Err((error, None)) => return job.failure(&error),
        Err((error, Some(info))) => {
            let details = without_definition(info);
            let report = VmReport { details, guest: None, guest_error: None };
            let failure = Completion { status: Status::Timeout, ..job.failure(&error) };
            return Completion { data: Some(Data::Vm(Box::new(report))), ..failure };
        }
    };
    let report = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(with_guest(&connection, details, job.deadline(), &job.policy).await)
    });
    match report.await {
        Ok(report) => Completion::ok(Effect::None, Data::Vm(Box::new(report))),
        Err(error) => job.failure(&error),
    }
}

/// Asks for the definition of a VM, for at most half of the time that is left: newer daemons ask QEMU for parts of it, and a
/// QEMU that hangs does not answer. Then the error comes with what the daemon knows by itself.
pub(super) async fn details(
    job: &Job,
    domain: &DomainInfo,
) -> Result<DomainDetails, (ProtocolError, Option<DomainInfo>)> {
    let (uuid, now) = (domain.uuid, Instant::now());
    let half = now + job.deadline().saturating_duration_since(now) / 2;
    let ask = async |connection: LibvirtConnection| Ok(connection.domain_details(uuid).await?);
    let asked = job.manager.execute_on_host_with(job.host(), job.options_by(half), ask).await;
    let error: ProtocolError = match asked {
        Ok(details) => return Ok(details),
        Err(error) => error,
    };
    let waited_for_qemu = [ErrorKind::CallTimeout, ErrorKind::MonitorBusy];
    if !error.transport_kind().is_some_and(|kind| waited_for_qemu.contains(&kind)) {
        return Err((error, None));
    }
    // Over another lease, as the call may still occupy the first.
    let ask = async |connection: LibvirtConnection| connection.domain_info(uuid).await;
    let known = job.manager.execute_on_host_with(job.host(), job.options(), ask).await;
    Err((error, known.ok()))
}

fn without_definition(info: DomainInfo) -> DomainDetails {
    DomainDetails { info, persistent: None, autostart: None, agent: None, title: None, graphics: Vec::new() }
}

/// Asks the agent of a VM that has one, for a limited time. If it does not answer, the rest of the report stands.
async fn with_guest(
    connection: &LibvirtConnection,
    details: DomainDetails,
    deadline: Instant,
    policy: &Policy,
) -> VmReport {
    let is_awake = details.info.state.is_running() && details.agent == Some(AgentChannel::Connected);
    if !is_awake {
        return VmReport { details, guest: None, guest_error: None };
    }
    let now = Instant::now();
    // The other half of the time is for the report itself to be returned before the deadline.
    let half = now + deadline.saturating_duration_since(now) / 2;
    let carrier = LibvirtCarrier::new(connection, details.info.uuid);
    match ask(&carrier, half.min(now + policy.agent_patience)).await {
        Ok(guest) => VmReport { details, guest: Some(guest), guest_error: None },
        Err(error) => VmReport { details, guest: None, guest_error: Some(OutcomeError::from(&error)) },
    }
}

async fn ask(carrier: &impl atp_protocol::Carrier, deadline: Instant) -> Result<GuestReport, ProtocolError> {
    let interfaces = optional(guest::interfaces(carrier, deadline).await)?.unwrap_or_default();
    let os = optional(guest::os(carrier, deadline).await)?;
    let hostname = optional(guest::host_name(carrier, deadline).await)?;
    let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
    Ok(GuestReport {
        hostname,
        os: os.map(|os| OsReport {
            name: os.pretty_name.or(os.name),
            id: os.id,
            version: os.version_id.or(os.version),
            kernel: os.kernel_release,
            machine: os.machine,
        }),
        addresses: addresses.filter(|address| address.is_reachable()).map(|address| address.ip).collect(),
        interfaces,
    })
}

/// An answer that may be missing: an agent that does not have the command still answered.
fn optional<T>(answer: Result<T, ProtocolError>) -> Result<Option<T>, ProtocolError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ProtocolError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
