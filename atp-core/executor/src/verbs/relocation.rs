//! VMs that are elsewhere: looking for them, following them, and not starting them twice.
//!
//! ```text
//! here ──migration begins──► leaving (paused) ──► left: "shut off (migrated)", or no longer there
//!   ▲                              │                 └─► runs on exactly one other host: there from now on
//!   └──────────migration failed────┘
//! ```
//!
//! libvirt's reason decides whether a VM has left: a VM that was shut down or destroyed is shut off here, also
//! if one of its UUID runs elsewhere. A VM that is running on another host came from here only if libvirt does not say that it was
//! booted there, so that a copy is not taken for it.
//!
//! Other hosts are asked in three cases only. For a VM that has left, all hosts of the inventory, for the place where it
//! runs. Before a start, and before the answer that there is nothing to shut off, the hosts that were listed for the
//! run and have the UUID. Before a start that asks for it, all hosts. Before a start each is asked for at most
//! [`placement_timeout`](atp_api::Policy::placement_timeout), otherwise [`PATIENCE`] times as long, and [`ASKED_AT_ONCE`]
//! are asked at the same time.

use std::collections::BTreeSet;
use std::time::Duration;

use atp_api::{Data, OutcomeError, StartCheck, Status};
use atp_transport::domain::{DomainInfo, DomainState, StateReason};
use atp_transport::{Effect, ErrorKind, ExecuteOptions, Hint, HostId, SharedUuids, TransportError};
use futures_util::stream::{self, StreamExt as _};
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::Operation;
use super::completion::Completion;
use super::job::Job;
use crate::plan::Names;

/// Hosts that are asked for one VM at the same time.
const ASKED_AT_ONCE: usize = 16;
/// In an inventory with many dead hosts, the whole search takes at most so many times the time for one host.
const ROUNDS: u32 = 10;
/// A VM that has left is looked for so many times as long as is asked before a start: then nothing else waits.
const PATIENCE: u32 = 5;

/// Where a VM is active besides its own host.
#[derive(Debug, PartialEq)]
enum Elsewhere {
    On(HostId),
    OnSeveral(Vec<HostId>),
    /// On none of the hosts that answered. These did not.
    Nowhere {
        silent: Vec<HostId>,
    },
}

/// Where a VM is whose work failed.
#[derive(Debug)]
pub(super) enum Relocation {
    /// Nothing says that it has left. Its state, if it could be asked.
    Here(Option<DomainInfo>),
    /// It has left, and runs on this host.
    To(HostId),
    /// It was migrated away, or is gone, and it is not known where it runs. What is known, to follow the VM's name.
    Lost(String),
}

/// Whether libvirt says that the VM was migrated away.
pub(super) fn has_left(now: &DomainInfo) -> bool {
    (now.state, now.reason) == (DomainState::ShutOff, Some(StateReason::Migrated))
}

/// Whether the VM is paused for the last part of a migration.
fn is_leaving(now: &DomainInfo) -> bool {
    use StateReason::{Migrating, PostCopy, PostCopyFailed};
    now.state == DomainState::Paused && matches!(now.reason, Some(Migrating | PostCopy | PostCopyFailed))
}

/// Whether the VM's run ended on this host, as libvirt says: then it did not leave.
fn ended_here(now: &DomainInfo) -> bool {
    use StateReason::{Crashed, Destroyed, Failed, FromSnapshot, Saved, Shutdown};
    matches!(now.reason, Some(Shutdown | Destroyed | Crashed | Saved | Failed | FromSnapshot))
}

/// Whether the VMs of this host are copies, by its setting: one of the same UUID elsewhere is another VM. False for a host
/// that the manager does not have.
pub fn has_copies(manager: &atp_transport::TransportManager, host: &HostId) -> bool {
    manager.pool(host.as_str()).is_ok_and(|pool| pool.config().shared_uuids == SharedUuids::Copies)
}

/// Finds out whether the VM has left its host, and where it is. Waits while it is leaving.
pub(super) async fn relocation(job: &Job, domain: &DomainInfo) -> Relocation {
    let mut pause = job.policy.poll_initial;
    let now = loop {
        let now = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            connection.domain_info(domain.uuid).await
        });
        match now.await {
            Ok(now) if is_leaving(&now) => {
                if Instant::now() + pause >= job.deadline() {
                    return Relocation::Here(Some(now));
                }
                time::sleep(pause).await;
                pause = (pause * 2).min(job.policy.poll_max);
            }
            Ok(now) if has_left(&now) => break Some(now),
            Ok(now) => return Relocation::Here(Some(now)),
            // A VM that was shut off and is gone was undefined, and not migrated.
            Err(error) if error.kind() == ErrorKind::VmNotFound && job.was_active => break None,
            Err(_) => return Relocation::Here(None),
        }
    };
    if has_copies(&job.manager, &job.target.host) {
        return Relocation::Here(now);
    }
    let found = ask(job, domain.uuid, other_hosts(job), patience(job)).await;
    let is_gone = now.is_none();
    let lost = |why: String| {
        // Only libvirt's reason says that it was migrated.
        Relocation::Lost(match is_gone {
            true => format!("is not there any more, and it is not known whether it has moved: {why}"),
            false => format!("was migrated away, and it is not known where it runs: {why}"),
        })
    };
    match found {
        Elsewhere::On(host) => match came_from_elsewhere(job, &host, domain.uuid).await {
            Some(true) => Relocation::To(host),
            Some(false) if is_gone => Relocation::Here(None),
            Some(false) => lost(format!("a VM of its UUID runs on {host}, and was booted there")),
            None => lost(format!("a VM of its UUID runs on {host}, which did not answer how it came there")),
        },
        Elsewhere::OnSeveral(hosts) if is_gone && were_booted(job, &hosts, domain.uuid).await => {
            Relocation::Here(None)
        }
        // Without libvirt's word that it was migrated it has only ended.
        Elsewhere::Nowhere { .. } if is_gone => Relocation::Here(None),
        Elsewhere::Nowhere { silent } if silent.is_empty() => Relocation::Here(now),
        Elsewhere::Nowhere { silent } => lost(format!(
            "it does not run on the other hosts that answered, and these did not answer: {}",
            names(silent)
        )),
        Elsewhere::OnSeveral(hosts) => {
            lost(format!("VMs of its UUID run on several hosts: {}", names(hosts)))
        }
    }
}

/// What is done about work that failed, if its VM may be elsewhere.
pub(super) enum Next {
    /// It is done there.
    There(Box<Job>),
    /// It is done again where the VM is, after a pause; a second refusal is the end.
    Again,
    /// It is not, and this is how it ended.
    Ended(Box<Completion>),
}

/// Decides about work that ended like this. None if the VM is where it was, or the work had an effect.
pub(super) async fn after(
    operation: &Operation,
    job: &Job,
    domain: &DomainInfo,
    completion: &Completion,
) -> Option<Next> {
    use ErrorKind::{AgentGone, AgentNotConnected, OperationInvalid, VmNotFound, VmNotRunning};
    let looks_for_itself = matches!(
        operation,
        Operation::Wait(_) | Operation::Scenario(_) | Operation::VmList | Operation::Console(_)
    );
    let kind = completion.error.as_ref()?.kind;
    let is_absent =
        matches!(kind, VmNotFound | VmNotRunning | OperationInvalid | AgentNotConnected | AgentGone);
    if looks_for_itself || completion.effect != Effect::None || !is_absent {
        return None;
    }
    match relocation(job, domain).await {
        // It was paused for its migration, which did not succeed.
        Relocation::Here(Some(now)) if kind == VmNotRunning && was_paused_only(operation, &now) => {
            Some(Next::Again)
        }
        Relocation::Here(_) => None,
        Relocation::To(host) => Some(match barred(operation, job, domain, &host).await {
            None => Next::There(Box::new(job.at(host))),
            Some(why) => Next::Ended(Box::new(moved(job, domain, &host, why))),
        }),
        Relocation::Lost(why) => {
            let message = format!("host {}: VM {:?} {why}", job.target.host, domain.name);
            Some(Next::Ended(Box::new(failed(OutcomeError::new(ErrorKind::VmMoved, message), None))))
        }
    }
}

/// Whether the VM was refused for its state and can be worked on now. One that shuts down may still answer, and does not run
/// again.
fn was_paused_only(operation: &Operation, now: &DomainInfo) -> bool {
    !matches!(operation, Operation::Lifecycle(_))
        && now.state != DomainState::ShuttingDown
        && operation.facts().needs.allow(now.state)
}

/// Why work that was not begun is not done on the host to which its VM has moved.
async fn barred(
    operation: &Operation,
    job: &Job,
    domain: &DomainInfo,
    host: &HostId,
) -> Option<&'static str> {
    if is_excluded(job, domain, host).await {
        Some("which the selection excludes")
    } else if job.placements.is_target(domain.uuid, host) {
        Some("where it is a target of its own")
    } else if !job.was_active {
        Some("and was not here when this began")
    } else if matches!(operation, Operation::Lifecycle(_)) && !job.is_step {
        Some("and its state was not changed")
    } else {
        None
    }
}

/// The completion of work that was not done, as its VM is on another host.
fn moved(job: &Job, domain: &DomainInfo, host: &HostId, why: &str) -> Completion {
    let message =
        format!("host {}: VM {:?} is not here: it runs on {host}, {why}", job.target.host, domain.name);
    let hint = Hint::from(format!("work on it there: {host}/{}", domain.name));
    failed(OutcomeError::new(ErrorKind::VmMoved, message).with_hint(hint), Some(host.clone()))
}

fn failed(error: OutcomeError, found_on: Option<HostId>) -> Completion {
    Completion { found_on, ..Completion::failed(Status::Failed, Effect::None, error) }
}

/// Why work that was begun cannot be followed to the host to which its VM has moved.
pub(super) async fn is_excluded(job: &Job, domain: &DomainInfo, host: &HostId) -> bool {
    let Some(info) = job.manager.hosts().into_iter().find(|info| info.id == host.as_str()) else {
        return true;
    };
    let names = [domain.name.clone(), name_on(job, domain, host).await];
    names.iter().any(|name| job.placements.excludes(&info, name))
}

/// The VM's name on a host to which it has moved: a migration may rename it. The one that is known, if the host does not tell.
async fn name_on(job: &Job, domain: &DomainInfo, host: &HostId) -> String {
    let options = ExecuteOptions::by(job.deadline().min(Instant::now() + patience(job)));
    let asked = job.manager.execute_on_host_with(host.as_str(), options, |connection| async move {
        connection.domain_info(domain.uuid).await
    });
    asked.await.map_or_else(|_| domain.name.clone(), |there| there.name)
}

/// Whether further work may be done on the host where this work on the VM ended.
pub(super) async fn may_go_on(job: &Job, domain: &DomainInfo, host: &HostId) -> bool {
    !is_excluded(job, domain, host).await && !job.placements.is_target(domain.uuid, host)
}

/// The completion in place of a start, if the VM must not be started here. `now` is the VM, shut off.
pub(super) async fn start_refused(job: &Job, now: &DomainInfo, check: StartCheck) -> Option<Completion> {
    let here = format!("host {}: VM {:?} was not started", job.target.host, now.name);
    let error = |why: String| {
        OutcomeError::new(ErrorKind::VmMoved, format!("{here}: {why}")).with_hint(Hint::START_ELSEWHERE)
    };
    if check == StartCheck::Nothing {
        return None;
    }
    let has_copies = has_copies(&job.manager, &job.target.host);
    let listed: Vec<_> = job.placements.others(now.uuid, &job.target.host).cloned().collect();
    let asked = match check {
        _ if has_copies => Vec::new(),
        StartCheck::AllHosts => other_hosts(job),
        StartCheck::Listed | StartCheck::Nothing => listed,
    };
    let found = ask(job, now.uuid, asked, job.policy.placement_timeout).await;
    // A host that does not answer now did so when it was listed.
    let then = job.placements.runs_on(now.uuid, &job.target.host);
    Some(match (found, then) {
        (Elsewhere::On(host), _) => failed(error(format!("it runs on {host}")), Some(host)),
        (Elsewhere::OnSeveral(hosts), _) => {
            failed(error(format!("VMs of its UUID run on {}", names(hosts))), None)
        }
        (Elsewhere::Nowhere { silent }, Some(host)) if silent.contains(host) => failed(
            error(format!("it ran on {host} when that host was listed, which does not answer now")),
            Some(host.clone()),
        ),
        (Elsewhere::Nowhere { silent }, _) if check == StartCheck::AllHosts && !silent.is_empty() => {
            failed(error(format!("it may run on hosts that did not answer: {}", names(silent))), None)
        }
        _ if has_left(now) => {
            failed(error("libvirt says that it was migrated to another host".to_owned()), None)
        }
        _ => return None,
    })
}

/// The completion of a request to shut off a VM that is shut off here, if that is not the whole answer because it runs
/// elsewhere. `now` is the VM.
pub(super) async fn off_here(job: &Job, now: &DomainInfo) -> Option<Completion> {
    if has_copies(&job.manager, &job.target.host) {
        return None;
    }
    let unchanged =
        |found_on| Completion { found_on, ..Completion::unchanged(Data::Lifecycle { state: now.state }) };
    // It has an outcome of its own there.
    if let Some(host) = job.placements.runs_on(now.uuid, &job.target.host)
        && job.placements.is_worked_on(now.uuid, host)
    {
        return Some(unchanged(Some(host.clone())));
    }
    let asked = match has_left(now) {
        true => other_hosts(job),
        false => job.placements.others(now.uuid, &job.target.host).cloned().collect(),
    };
    let lost = |why: String| {
        let message = format!("host {}: VM {:?} is shut off here, and {why}", job.target.host, now.name);
        failed(OutcomeError::new(ErrorKind::VmMoved, message), None)
    };
    Some(match ask(job, now.uuid, asked, patience(job)).await {
        // What was shut off here is another one.
        Elsewhere::On(host) if ended_here(now) => unchanged(Some(host)),
        Elsewhere::On(host) => moved(job, now, &host, "and was not shut off there"),
        Elsewhere::OnSeveral(_) if ended_here(now) => return None,
        Elsewhere::OnSeveral(hosts) => lost(format!("VMs of its UUID run on {}", names(hosts))),
        Elsewhere::Nowhere { silent } if has_left(now) && !silent.is_empty() => {
            lost(format!("was migrated away; it may run on hosts that did not answer: {}", names(silent)))
        }
        Elsewhere::Nowhere { .. } => return None,
    })
}

/// The other host on which a VM that is shut off here runs, if it is listed by several hosts.
pub(super) async fn runs_on_listed(job: &Job, now: &DomainInfo) -> Option<HostId> {
    if ended_here(now) || has_copies(&job.manager, &job.target.host) {
        return None;
    }
    let listed: Vec<_> = job.placements.others(now.uuid, &job.target.host).cloned().collect();
    match ask(job, now.uuid, listed, patience(job)).await {
        Elsewhere::On(host) => Some(host),
        _ => None,
    }
}

/// How long a host is asked for a VM that has left.
fn patience(job: &Job) -> Duration {
    job.policy.placement_timeout * PATIENCE
}

/// All hosts of the inventory on which the VM may be, but its own.
fn other_hosts(job: &Job) -> Vec<HostId> {
    let ids = job.manager.hosts().into_iter().filter_map(|info| info.id.parse::<HostId>().ok());
    ids.filter(|id| *id != job.target.host && !has_copies(&job.manager, id)).collect()
}

/// Asks these hosts, several at the same time, whether the VM is active there.
async fn ask(job: &Job, uuid: Uuid, hosts: Vec<HostId>, limit: Duration) -> Elsewhere {
    if hosts.is_empty() {
        return Elsewhere::Nowhere { silent: Vec::new() };
    }
    let ends = job.deadline().min(Instant::now() + limit * ROUNDS);
    let mut silent: BTreeSet<HostId> = hosts.iter().cloned().collect();
    let mut active = Vec::new();
    let asked = stream::iter(hosts).map(|host| async move {
        let by = job.deadline().min(Instant::now() + limit);
        let info = job.manager.execute_on_host_with(
            host.as_str(),
            ExecuteOptions::by(by),
            |connection| async move { connection.domain_info(uuid).await },
        );
        let info: Option<Result<DomainInfo, TransportError>> = time::timeout_at(by, info).await.ok();
        (host, info)
    });
    let mut asked = std::pin::pin!(asked.buffer_unordered(ASKED_AT_ONCE));
    while let Ok(Some((host, info))) = time::timeout_at(ends, asked.next()).await {
        match info {
            Some(Ok(info)) => {
                silent.remove(&host);
                if info.state.is_active() {
                    active.push((host, info.id));
                }
            }
            Some(Err(error)) if error.kind() == ErrorKind::VmNotFound => drop(silent.remove(&host)),
            _ => {}
        }
    }
    match active.len() {
        0 => Elsewhere::Nowhere { silent: silent.into_iter().collect() },
        1 => Elsewhere::On(active.remove(0).0),
        _ => one_of(job, active).await,
    }
}

/// The host of a VM that is active under several host ids: one if they lead to the same daemon.
async fn one_of(job: &Job, mut active: Vec<(HostId, Option<u32>)>) -> Elsewhere {
    active.sort();
    let mut identities = Vec::new();
    for (host, id) in &active {
        let by = job.deadline().min(Instant::now() + patience(job));
        let identity = job.manager.execute_on_host_with(
            host.as_str(),
            ExecuteOptions::by(by),
            |connection| async move {
                Ok::<_, TransportError>((connection.machine().await?, connection.hostname().await?))
            },
        );
        identities.push(time::timeout_at(by, identity).await.ok().and_then(Result::ok).map(|who| (who, *id)));
    }
    let is_known = matches!(&identities[0], Some(((Some(_), _), _)));
    if is_known && identities.windows(2).all(|two| two[0] == two[1]) {
        return Elsewhere::On(active.remove(0).0);
    }
    Elsewhere::OnSeveral(active.into_iter().map(|(host, _)| host).collect())
}

/// Whether the VMs of this UUID that are active on these hosts are all known to have been booted there: copies.
async fn were_booted(job: &Job, hosts: &[HostId], uuid: Uuid) -> bool {
    for host in hosts {
        if came_from_elsewhere(job, host, uuid).await != Some(false) {
            return false;
        }
    }
    true
}

/// Whether a VM that is active on this host was not booted there; none if the host does not answer. What libvirt says of all of
/// the host's VMs at once has the reason for the state of a running one.
async fn came_from_elsewhere(job: &Job, host: &HostId, uuid: Uuid) -> Option<bool> {
    use StateReason::{Booted, FromSnapshot, Restored};
    let by = job.deadline().min(Instant::now() + patience(job));
    let listed =
        job.manager.execute_on_host_with(host.as_str(), ExecuteOptions::by(by), |connection| async move {
            connection.list_domain_states().await
        });
    let listed = time::timeout_at(by, listed).await.ok()?.ok()?;
    let found = listed.into_iter().find(|info| info.uuid == uuid);
    Some(found.is_some_and(|info| {
        info.state.is_active() && !matches!(info.reason, Some(Booted | FromSnapshot | Restored))
    }))
}

fn names(hosts: Vec<HostId>) -> Names {
    Names(hosts.iter().map(ToString::to_string).collect())
}

impl Job {
    /// The same work on the host to which its VM has moved.
    pub(super) fn at(&self, host: HostId) -> Job {
        let mut job = self.clone();
        job.target.host = host;
        job
    }

    /// Whether other hosts that were listed for the run have the VM.
    pub(super) fn has_other_places(&self, domain: &DomainInfo) -> bool {
        self.placements.others(domain.uuid, &self.target.host).next().is_some()
    }

    /// The completion, with the host on which it ended if that is not the one it was planned on.
    pub(super) fn ended(&self, completion: Completion) -> Completion {
        let found_on = completion
            .found_on
            .or_else(|| (self.target.host != *self.planned_on).then(|| self.target.host.clone()));
        let ended_on = completion.ended_on.or_else(|| Some(self.target.host.clone()));
        Completion { found_on, ended_on, ..completion }
    }
}
