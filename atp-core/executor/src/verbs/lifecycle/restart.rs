//! Restarting a VM, and waiting until its guest is back.
//!
//! libvirt shows a VM as running all the time while it restarts. So its events are watched from before the request, and when
//! it has restarted, its agent is awaited.

use std::pin::{Pin, pin};

use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainEventKind, DomainInfo, DomainState, LifecycleChange};
use atp_transport::{DomainEvents, Effect, ErrorKind, Hint, WatchItem, WatchOptions};
use futures_util::stream::{Stream, StreamExt as _, unfold};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{LifecycleSpec, Requested, finish, request};
use crate::error::OutcomeError;
use crate::outcome::Status;
use crate::verbs::Data;
use crate::verbs::completion::Completion;
use crate::verbs::job::Job;
use crate::verbs::wait::{self, Condition};

/// The hypervisor that is known to report restarts.
const REPORTS_RESTARTS: &str = "QEMU";

/// How a restart ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RestartEnd {
    Restarted,
    /// The VM stopped instead.
    Stopped,
    /// No restart was seen in time.
    Late,
    /// No restart was seen, and events were lost meanwhile: it may have restarted.
    Unseen,
}

/// Asks for the restart, and waits until it has happened and the agent answers, if the VM has one. Holds a connection
/// to the host of its own for as long.
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
    let mut events = match job.manager.watch_domains(&[job.host()], &WatchOptions::default()) {
        Ok(events) => events,
        Err(error) => return job.failure(&error.into()),
    };
    // Watching may take half of the time to begin, so that the rest is enough to send the request and see its result.
    let is_watched = match timeout_at(half_way_to(deadline), wait_for_watch(&mut events)).await {
        Ok(is_watched) => is_watched,
        Err(_) => return not_watched(job, domain),
    };
    match request(job, domain, spec).await {
        Ok(Requested::Done(_)) => {}
        requested => return finish(job, domain, &LifecycleSpec { wait: false, ..*spec }, requested).await,
    }
    let end = {
        let items = unfold(&mut events, |events| async { Some((events.next().await?, events)) });
        wait_for_end(pin!(items), domain.uuid, is_watched, deadline).await
    };
    match end {
        RestartEnd::Restarted => {}
        end => return not_restarted(job, domain, end),
    }
    drop(events);
    after_restart(wait::perform(job, domain, &Condition::Agent).await)
}

async fn reports_restarts(job: &Job) -> Result<bool, ProtocolError> {
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.hypervisor().await?.kind == REPORTS_RESTARTS)
    });
    asked.await
}

/// The middle of the time that is left.
fn half_way_to(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// Waits until the host is watched or cannot be reached, and returns whether it is watched. The request to a host that
/// cannot be reached reports why.
async fn wait_for_watch(events: &mut DomainEvents) -> bool {
    while let Some(item) = events.next().await {
        match item {
            WatchItem::Present { .. } => return true,
            WatchItem::Unreachable { .. } => return false,
            _ => {}
        }
    }
    false
}

/// Waits until the VM has restarted or stopped, by the deadline. If events were lost, the restart may be among them: then
/// it waits no longer than half of the time that was left.
async fn wait_for_end(
    mut items: Pin<&mut impl Stream<Item = WatchItem>>,
    uuid: Uuid,
    is_watched: bool,
    deadline: Instant,
) -> RestartEnd {
    let mut are_lost = !is_watched;
    let mut until = if are_lost { half_way_to(deadline) } else { deadline };
    loop {
        let Ok(item) = timeout_at(until, items.next()).await else {
            return if are_lost { RestartEnd::Unseen } else { RestartEnd::Late };
        };
        match item {
            None | Some(WatchItem::Removed { .. }) => return RestartEnd::Unseen,
            Some(WatchItem::Event { event, .. }) if event.uuid == uuid => match event.kind {
                DomainEventKind::Reboot => return RestartEnd::Restarted,
                DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, .. } => {
                    return RestartEnd::Stopped;
                }
                _ => {}
            },
            Some(WatchItem::Gap { .. } | WatchItem::Missed { .. }) if !are_lost => {
                are_lost = true;
                until = half_way_to(deadline);
            }
            // A VM that is gone was transient, and stopped.
            Some(WatchItem::Present { domains, .. })
                if !domains.iter().any(|domain| domain.uuid == uuid && domain.state.is_active()) =>
            {
                return RestartEnd::Stopped;
            }
            Some(_) => {}
        }
    }
}

/// The completion if watching did not begin: a VM whose restart could not be seen is not restarted.
fn not_watched(job: &Job, domain: &DomainInfo) -> Completion {
    let message = format!(
        "host {}: VM {:?} was not asked to restart: no connection to watch for it in half of the time",
        job.target.host, domain.name
    );
    let kind = ErrorKind::ConnectTimeout;
    let error = OutcomeError::new(kind, message).with_hint(kind.hint()).retryable();
    Completion::failed(Status::Failed, Effect::None, error)
}

fn not_restarted(job: &Job, domain: &DomainInfo, end: RestartEnd) -> Completion {
    let (kind, effect, how, hint) = match end {
        RestartEnd::Stopped => (
            ErrorKind::StateNotReached,
            Effect::Done,
            "stopped instead of restarting",
            Hint::START_STOPPED_VM,
        ),
        RestartEnd::Unseen => (
            ErrorKind::EventsLost,
            Effect::Unknown,
            "was not seen to restart, and the connection that tells of it was lost meanwhile: it may have",
            Hint::CHECK_UPTIME,
        ),
        RestartEnd::Restarted | RestartEnd::Late => (
            ErrorKind::StateNotReached,
            Effect::Done,
            "was not seen to restart by the deadline",
            Hint::RESET_VM,
        ),
    };
    let status = if Instant::now() >= job.deadline() { Status::Timeout } else { Status::Failed };
    let message = format!("host {}: VM {:?} {how}", job.target.host, domain.name);
    let error = OutcomeError::new(kind, message).with_hint(hint);
    Completion::failed(status, effect, error)
}

/// Turns the wait for the agent after a restart into its completion. A VM without an agent is back as far as can be
/// known.
fn after_restart(waited: Completion) -> Completion {
    let has_none = waited.error.as_ref().is_some_and(|error| error.kind == ErrorKind::AgentNotConfigured);
    if waited.status.is_success() || has_none {
        return Completion::ok(Effect::Done, Data::Lifecycle { state: DomainState::Running });
    }
    Completion { effect: Effect::Done, ..waited }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use atp_transport::HostId;
    use atp_transport::domain::DomainEvent;
    use tokio::time::sleep;

    use super::*;
    use crate::verbs::wait::WaitReport;

    const MINUTE: Duration = Duration::from_secs(60);

    fn host() -> HostId {
        "h1".parse().unwrap()
    }

    fn happened(kind: DomainEventKind) -> WatchItem {
        let event = DomainEvent { name: "x".to_owned(), uuid: Uuid::nil(), kind };
        WatchItem::Event { host: host(), at: SystemTime::now(), event }
    }

    fn gap() -> WatchItem {
        WatchItem::Gap { host: host(), at: SystemTime::now() }
    }

    fn present(state: DomainState) -> WatchItem {
        let domain = DomainInfo {
            name: "x".to_owned(),
            uuid: Uuid::nil(),
            id: None,
            state,
            vcpus: None,
            memory_kib: None,
            max_memory_kib: None,
        };
        WatchItem::Present { host: host(), at: SystemTime::now(), domains: [domain].into() }
    }

    /// Returns how a restart ends with these items, one each second, and after how many seconds that is known.
    async fn ends(items: impl IntoIterator<Item = WatchItem>, is_watched: bool) -> (RestartEnd, u64) {
        let began = Instant::now();
        let items = futures_util::stream::iter(items).then(async |item| {
            sleep(Duration::from_secs(1)).await;
            item
        });
        let items = items.chain(futures_util::stream::pending());
        let end = wait_for_end(pin!(items), Uuid::nil(), is_watched, began + MINUTE).await;
        (end, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_gap_a_restart_is_not_awaited_until_the_deadline() {
        use DomainState::{Running, ShutOff};
        assert_eq!(
            ends([present(Running), happened(DomainEventKind::Reboot)], true).await,
            (RestartEnd::Restarted, 2)
        );
        assert_eq!(ends([], true).await, (RestartEnd::Late, 60));
        let (ended, after) = ends([gap(), present(Running)], true).await;
        assert_eq!(ended, RestartEnd::Unseen);
        assert!((20..50).contains(&after), "after {after} s");
        assert_eq!(ends([WatchItem::Missed { count: 1 }], true).await.0, RestartEnd::Unseen);
        assert_eq!(ends([present(Running)], false).await.0, RestartEnd::Unseen);
        // What the listing after the gap shows, and what comes after it, counts.
        assert_eq!(ends([gap(), present(ShutOff)], true).await, (RestartEnd::Stopped, 2));
        let later = [gap(), present(Running), happened(DomainEventKind::Reboot)];
        assert_eq!(ends(later, true).await, (RestartEnd::Restarted, 3));
    }

    #[test]
    fn a_vm_without_an_agent_is_back_when_it_has_restarted() {
        let failed = |kind| Completion::failed(Status::Failed, Effect::None, OutcomeError::new(kind, "no"));
        let waited = Completion::ok(Effect::None, Data::Waited(WaitReport { looks: 3 }));
        for success in [waited, failed(ErrorKind::AgentNotConfigured)] {
            assert_eq!(
                after_restart(success),
                Completion::ok(Effect::Done, Data::Lifecycle { state: DomainState::Running })
            );
        }
        let late = after_restart(failed(ErrorKind::ConditionNotMet));
        assert_eq!((late.status, late.effect), (Status::Failed, Effect::Done));
    }
}
