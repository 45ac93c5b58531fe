//! Restarting a VM, and waiting until its guest is back.
//!
//! libvirt shows a VM as running all the time while it restarts. So its events are watched from before the request, and when
//! it has restarted, its agent is awaited if that was asked for. Events are lost while the watching connection is lost: then the VM's id and its
//! guest's uptime are looked at as well, until they tell, or no event can be missing any more.

mod events;
mod look;

use atp_api::{Await, Data, OutcomeError, Status};
use atp_protocol::ProtocolError;
use atp_transport::domain::DomainInfo;
use atp_transport::{DomainEvents, Effect, ErrorKind, Hint, HostId, TransportError, WatchItem, WatchOptions};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use self::events::{RestartEnd, before_the_request, wait_for_end, wait_for_watch};
use self::look::look;
use super::{LifecycleSpec, Requested, agent_answers, finish, request};
use crate::verbs::completion::Completion;
use crate::verbs::job::Job;
use crate::verbs::relocation::{Relocation, relocation};

/// The hypervisor that is known to report restarts.
const REPORTS_RESTARTS: &str = "QEMU";

/// Asks for the restart, and waits until it has happened and, if that is awaited, the agent answers. Shares a connection that
/// watches the host with the other VMs that restart there. Without that connection the VM is not asked.
pub(super) async fn restart(job: &Job, domain: &DomainInfo, spec: &LifecycleSpec) -> Completion {
    let deadline = job.deadline();
    match reports_restarts(job).await {
        Ok(true) => {}
        Ok(false) => {
            let requested = request(job, domain, spec).await;
            return finish(job, domain, spec, requested).await;
        }
        Err(error) => return job.failure(&error),
    }
    let watch = || job.manager.watch_domains(&[job.host()], &WatchOptions::default()).map(items);
    let mut events = match job.watches.events(&job.target.host, watch) {
        Ok(events) => events,
        Err(error) => return job.failure(&error.into()),
    };
    if let Err(error) = wait_for_watch(&mut events, &job.target.host, deadline).await {
        return not_watched(job, domain, error);
    }
    // The host may have been watched for long: the ids that were listed then may be those of earlier processes.
    let id = match current(job, domain).await {
        Ok(now) => now.id,
        Err(error) => return job.failure(&error),
    };
    let asked_at = Instant::now();
    let mut events = stream::iter(before_the_request(&mut events)).chain(events);
    match request(job, domain, spec).await {
        Ok(Requested::Done(_)) => {}
        requested => {
            return finish(job, domain, &LifecycleSpec { wait: Await::Nothing, ..*spec }, requested).await;
        }
    }
    let look = || look(job, domain, spec.action, id, asked_at);
    match wait_for_end(&mut events, domain, deadline, &job.policy, look).await {
        RestartEnd::Restarted => {}
        end => {
            // Here it stops when it leaves as well.
            if matches!(end, RestartEnd::Stopped)
                && let Relocation::To(host) = relocation(job, domain).await
            {
                return moved(job, domain, host);
            }
            return not_restarted(job, domain, end);
        }
    }
    drop(events);
    match current(job, domain).await.map(|now| now.state) {
        // A VM that was paused is paused again when it has restarted.
        Ok(state) if spec.wait == Await::Completion && !state.is_running() => {
            Completion::ok(Effect::Done, Data::Lifecycle { state })
        }
        Ok(state) => {
            agent_answers(job, domain, spec, Completion::ok(Effect::Done, Data::Lifecycle { state })).await
        }
        Err(error) => Completion { effect: Effect::Done, ..job.failure(&error) },
    }
}

async fn reports_restarts(job: &Job) -> Result<bool, ProtocolError> {
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.hypervisor().await?.kind == REPORTS_RESTARTS)
    });
    asked.await
}

async fn current(job: &Job, domain: &DomainInfo) -> Result<DomainInfo, ProtocolError> {
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.domain_info(domain.uuid).await?)
    });
    asked.await
}

fn items(events: DomainEvents) -> impl Stream<Item = WatchItem> {
    stream::unfold(events, |mut events| async move { Some((events.next().await?, events)) })
}

/// The completion if watching did not begin: a VM whose restart could not be seen is not restarted.
fn not_watched(job: &Job, domain: &DomainInfo, error: TransportError) -> Completion {
    let mut completion = job.failure(&error.into());
    if let Some(error) = &mut completion.error {
        error.message = format!(
            "VM {:?} was not asked to restart, as its events cannot be watched: {}",
            domain.name, error.message
        );
    }
    completion
}

fn not_restarted(job: &Job, domain: &DomainInfo, end: RestartEnd) -> Completion {
    let (kind, effect, how, hint) = match end {
        RestartEnd::Stopped => (
            ErrorKind::StateNotReached,
            Effect::Done,
            "stopped instead of restarting".to_owned(),
            Hint::START_STOPPED_VM,
        ),
        RestartEnd::Unseen(why) => (
            ErrorKind::EventsLost,
            Effect::Unknown,
            format!(
                "may have restarted: its events were lost for a while, and a check did not show it: {why}"
            ),
            Hint::CHECK_UPTIME,
        ),
        RestartEnd::Restarted | RestartEnd::Late => (
            ErrorKind::StateNotReached,
            Effect::Done,
            "was not seen to restart by the deadline".to_owned(),
            Hint::RESET_VM,
        ),
    };
    let status = if Instant::now() >= job.deadline() { Status::Timeout } else { Status::Failed };
    let message = format!("host {}: VM {:?} {how}", job.target.host, domain.name);
    let error = OutcomeError::new(kind, message).with_hint(hint);
    Completion::failed(status, effect, error)
}

/// The completion of a restart whose VM left the host before it was seen to restart.
fn moved(job: &Job, domain: &DomainInfo, host: HostId) -> Completion {
    let message = format!(
        "host {}: VM {:?} moved to {host} before it was seen to restart",
        job.target.host, domain.name
    );
    let error = OutcomeError::new(ErrorKind::VmMoved, message).with_hint(Hint::CHECK_UPTIME);
    let failed = Completion::failed(Status::Failed, Effect::Unknown, error);
    Completion { found_on: Some(host), ..failed }
}
