//! From a selection to a plan, and from a plan to a run.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use atp_api::{Outcome, OutcomeError, Policy, Status};
use atp_protocol::ProtocolError;
use atp_protocol::files::Allowance;
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{ErrorKind, ExecuteOptions, Hint, HostId, HostInfo, TransportManager};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::{self, Instant};
use uuid::Uuid;

use crate::host_watches::HostWatches;
use crate::journal::Recorder;
use crate::placement::Placements;
use crate::plan::{Notice, Plan, PlanError};
use crate::resolve::{self, Listing};
use crate::run::{Run, RunControl, RunSpec, run_targets};
use crate::same_daemon::{self, Daemon, Daemons};
use crate::selection::Selection;
use crate::target::Target;
use crate::verbs::job::{Job, KnownAgents};
use crate::verbs::relocation::has_copies;
use crate::verbs::{self, Operation};

/// Plans and runs operations over the hosts of a [`TransportManager`].
///
/// Cheap to clone. Clones share what they know of guest agents, the UUIDs of VMs that were selected by name, and the connections over which they watch hosts.
#[derive(Debug, Clone)]
pub struct Executor {
    manager: TransportManager,
    agents: Arc<KnownAgents>,
    watches: Arc<HostWatches>,
    seen: Arc<SeenVms>,
}

/// The UUIDs of VMs that were named and found, so that the next time nothing but these VMs is asked for.
type SeenVms = Mutex<HashMap<(HostId, String), Uuid>>;

/// The most of them that are kept: then it begins anew.
const MAX_SEEN: usize = 10_000;

/// The shortest pause between two looks at a VM.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

impl Executor {
    /// An executor over these hosts.
    pub fn new(manager: TransportManager) -> Self {
        Executor { manager, agents: Arc::default(), watches: Arc::default(), seen: Arc::default() }
    }

    /// The hosts.
    pub(crate) fn manager(&self) -> &TransportManager {
        &self.manager
    }

    /// What is known of guest agents.
    pub(crate) fn agents(&self) -> &Arc<KnownAgents> {
        &self.agents
    }

    /// Resolves `selection` by asking the hosts concerned for their VMs, all at once and each for at most
    /// [`Policy::timeout`]. A host that cannot be listed does not fail the plan: it is among the plan's settled outcomes.
    /// Nothing is changed on any host.
    ///
    /// For an operation [on hosts](Operation::is_for_hosts) the targets are the hosts themselves, by selectors of all of their VMs
    /// (`HOST/`) and by their own labels, and none of them is asked anything. Of [`Policy::deadline`], listing takes no more than a
    /// half.
    ///
    /// # Errors
    /// When there are no hosts, a selector names a host or group that does not exist, the policy leaves no pause between two
    /// looks, or the operation is on hosts and the selection chooses VMs.
    ///
    /// Cancel safe: dropping the future gives up the listings.
    pub async fn plan(
        &self,
        selection: &Selection,
        operation: Operation,
        policy: Policy,
    ) -> Result<Plan, PlanError> {
        self.plan_until_stopped(selection, operation, policy, &RunControl::default()).await
    }

    /// As [`plan`](Self::plan), until `control` is asked to stop: the plan then has an outcome for each host that was not
    /// listed by then. A run of it with the same control starts nothing, and has an outcome for each of its targets.
    ///
    /// # Errors
    /// As of [`plan`](Self::plan). Cancel safe as that is.
    pub async fn plan_until_stopped(
        &self,
        selection: &Selection,
        operation: Operation,
        policy: Policy,
        control: &RunControl,
    ) -> Result<Plan, PlanError> {
        let began = Instant::now();
        check_pauses(&policy)?;
        let hosts = self.manager.hosts();
        if operation.is_for_hosts() {
            resolve::check_hosts(selection, operation.name())?;
        }
        resolve::check_names(selection, &hosts)?;
        // Registered ids are valid.
        let concerned = hosts
            .into_iter()
            .filter(|host| selection.concerns(host))
            .filter_map(|host| Some((host.id.parse::<HostId>().ok()?, host)));
        let mut placements = Placements::default();
        let (targets, settled, listed, notices) = if operation.is_for_hosts() {
            // Labels that a host does not have may be its VMs' own, which are not asked for here.
            let chosen = concerned.filter(|(_, host)| selection.labels_beyond(host).next().is_none());
            let targets = chosen.map(|(host, _)| Target { host, domain: None }).collect();
            (targets, Vec::new(), Vec::new(), Vec::new())
        } else {
            let list = |(id, host)| self.list(id, host, selection, &operation, &policy, control);
            let listings = join_all(concerned.map(list)).await;
            let listed = listings.iter().filter(|listing| listing.domains.is_ok());
            let listed = listed.map(|listing| listing.id.clone()).collect();
            let places = listings.iter().filter(|listing| !has_copies(&self.manager, &listing.id));
            let places = places.map(|listing| (&listing.id, listing.domains.as_deref().unwrap_or_default()));
            placements = Placements::of(places, selection);
            let matched = resolve::matched(selection, &listings);
            let unmatched = resolve::unmatched_exclusions(selection, &listings);
            let (targets, settled) = resolve::resolve(operation.name(), selection, listings);
            // Nothing is going to be done to a VM that two hosts show when the run is stopped.
            let daemons = tokio::select! {
                biased;
                () = control.asked() => Daemons::default(),
                daemons = self.same_daemons(&targets, began, &policy) => daemons,
            };
            let (targets, mut notices) = match control.is_asked() {
                true => (targets, Vec::new()),
                false => same_daemon::merge(targets, &daemons),
            };
            notices.extend(unmatched.into_iter().map(|selector| Notice::NothingExcluded { selector }));
            if matched > 0 && targets.is_empty() && settled.is_empty() {
                notices.push(Notice::NoneLeft { vms: matched });
            }
            (targets, settled, listed, notices)
        };
        let operation = operation.over(targets.len() + settled.len());
        let planned_in = began.elapsed();
        let aliases: Vec<_> = notices.iter().filter_map(Notice::alias).collect();
        let placements = placements.without_aliases(&aliases);
        Ok(Plan {
            operation,
            policy,
            targets,
            settled,
            listed,
            notices,
            placements,
            done_before: 0,
            to_undo: BTreeSet::new(),
            planned_in,
            allowance: Allowance::default(),
        })
    }

    /// A plan for one VM that an earlier plan found, whatever its name is now. If it was active then, no host is asked: a verb looks
    /// again at a VM that refuses what it sends. A VM that was not, and one for a verb that needs a listing, is asked for alone.
    ///
    /// Cancel safe as [`plan`](Self::plan) is, and stopped by `control` as [`plan_until_stopped`](Self::plan_until_stopped).
    pub async fn plan_found(
        &self,
        found: &Target,
        operation: Operation,
        policy: Policy,
        control: &RunControl,
    ) -> Plan {
        let began = Instant::now();
        let is_known = found.state().is_none_or(DomainState::is_active) && !operation.facts().full_listing;
        let (mut targets, mut settled, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        match found.uuid().filter(|_| !is_known) {
            None => targets.push(found.clone()),
            Some(uuid) => match self.look_at(&found.host, uuid, &policy, control).await {
                Ok(domain) => {
                    targets.push(Target { host: found.host.clone(), domain: Some(domain) });
                    listed.push(found.host.clone());
                }
                Err(error) => {
                    let status = match error.kind {
                        ErrorKind::VmNotFound => Status::Failed,
                        ErrorKind::Stopped => Status::Skipped,
                        _ => Status::Unreachable,
                    };
                    let (op, host) = (operation.name(), Some(found.host.clone()));
                    let outcome = resolve::settle(op, host, found.vm(), status, error, began.elapsed());
                    settled.push(Outcome { uuid: Some(uuid), ..outcome });
                }
            },
        }
        Plan {
            operation: operation.over(1),
            policy,
            targets,
            settled,
            listed,
            notices: Vec::new(),
            placements: Placements::default(),
            done_before: 0,
            to_undo: BTreeSet::new(),
            planned_in: began.elapsed(),
            allowance: Allowance::default(),
        }
    }

    /// Asks a host for one VM, for as long as for a listing.
    async fn look_at(
        &self,
        host: &HostId,
        uuid: Uuid,
        policy: &Policy,
        control: &RunControl,
    ) -> Result<DomainInfo, OutcomeError> {
        let budget = listing_budget(policy);
        let deadline = Instant::now() + budget;
        let options = ExecuteOptions::by(deadline);
        let look = self.manager.execute_on_host_with(host.as_str(), options, |connection| async move {
            Ok::<_, ProtocolError>(connection.domain_info(uuid).await?)
        });
        tokio::select! {
            looked = time::timeout_at(deadline + policy.grace, look) => match looked {
                Ok(looked) => looked.map_err(|error| OutcomeError::from(&error)),
                Err(_) => Err(given_up(host, budget + policy.grace)),
            },
            () = control.asked() => Err(not_listed(host)),
        }
    }

    /// Asks one host for its VMs, and for the labels of those VMs whose selection depends on them.
    async fn list(
        &self,
        id: HostId,
        host: HostInfo,
        selection: &Selection,
        operation: &Operation,
        policy: &Policy,
        control: &RunControl,
    ) -> Listing {
        let started = Instant::now();
        let budget = listing_budget(policy);
        let deadline = started + budget;
        let options = ExecuteOptions::by(deadline);
        let asked = &host;
        let in_full = operation.facts().full_listing || selection.state.needs_full_listing();
        let named = if in_full { None } else { selection.named_on(&host) };
        let seen = named.as_ref().and_then(|names| self.seen(&id, names));
        let names = named.as_ref();
        let listing = self.manager.execute_on_host_with(id.as_str(), options, |connection| async move {
            // A VM keeps its UUID, and its name if the host still says so. In doubt the host is listed.
            if let (Some(names), Some(uuids)) = (names, seen) {
                let domains = connection.domain_states(uuids).await?;
                if domains.len() == names.len()
                    && domains.iter().all(|domain| names.contains(domain.name.as_str()))
                {
                    return Ok((domains, HashMap::new()));
                }
            }
            // Everything else that a listing can say costs a round trip for each VM.
            let domains = match in_full {
                true => connection.list_domains().await?,
                false => connection.list_domain_states().await?,
            };
            let mut labels = HashMap::new();
            if selection.labels_beyond(asked).next().is_some() {
                let chosen = domains.iter().filter(|domain| selection.chooses(asked, domain));
                labels = connection.domain_labels(chosen.map(|domain| domain.uuid).collect()).await?;
            }
            Ok::<_, ProtocolError>((domains, labels))
        });
        // The transport ends by the deadline and reports its stage. The grace period is for the case that it does not.
        let listed = tokio::select! {
            listed = time::timeout_at(deadline + policy.grace, listing) => listed.map_err(|_| given_up(&id, budget + policy.grace)),
            () = control.asked() => Err(not_listed(&id)),
        };
        let listed = match listed {
            Ok(result) => result.map_err(|error| OutcomeError::from(&error)),
            Err(error) => Err(error),
        };
        let (domains, labels) = match listed {
            Ok((domains, labels)) => (Ok(domains), labels),
            Err(error) => (Err(error), HashMap::new()),
        };
        if let (Some(names), Ok(domains)) = (&named, &domains) {
            self.saw(&id, domains.iter().filter(|domain| names.contains(domain.name.as_str())));
        }
        Listing { id, host, domains, labels, took: started.elapsed() }
    }

    /// The UUIDs of these VMs of a host as they were when they were found last, if all of them were.
    fn seen(&self, host: &HostId, names: &BTreeSet<&str>) -> Option<Vec<Uuid>> {
        let seen = self.seen.lock();
        let uuid = |name: &&str| seen.get(&(host.clone(), (*name).to_owned())).copied();
        names.iter().map(uuid).collect()
    }

    /// Takes note of the UUIDs of VMs that were named and found.
    fn saw<'a>(&self, host: &HostId, domains: impl Iterator<Item = &'a DomainInfo>) {
        let mut seen = self.seen.lock();
        for domain in domains {
            if seen.len() >= MAX_SEEN {
                seen.clear();
            }
            seen.insert((host.clone(), domain.name.clone()), domain.uuid);
        }
    }

    /// The identities of the daemons that may be one, as these targets show them.
    async fn same_daemons(&self, targets: &[Target], began: Instant, policy: &Policy) -> Daemons {
        let mut daemons = self.daemons(same_daemon::doubtful(targets), began, policy).await;
        let again = self.daemons(same_daemon::undecided(&daemons), began, policy).await;
        daemons.extend(again);
        daemons
    }

    /// Asks daemons, all at once, for their identity. They answered just now, so each has the full time again: a host that
    /// hung does not hide that two others are the same. Of the time for the whole run, which counts from when the planning
    /// `began`, they have half of what is left.
    async fn daemons(&self, hosts: BTreeSet<HostId>, began: Instant, policy: &Policy) -> Daemons {
        let now = Instant::now();
        let left = policy.deadline.map(|whole| (began + whole).saturating_duration_since(now));
        let budget = left.map_or(policy.timeout, |left| policy.timeout.min(left / 2));
        let deadline = now + budget;
        let ask = |id: HostId| async move {
            let options = ExecuteOptions::by(deadline);
            let asked = self.manager.execute_on_host_with(id.as_str(), options, |connection| async move {
                let (machine, hostname) = (connection.machine().await?, connection.hostname().await?);
                let domains = connection.list_domain_states().await?;
                Ok::<_, ProtocolError>(Daemon::new(machine, hostname, domains))
            });
            let daemon = match time::timeout_at(deadline + policy.grace, asked).await {
                Ok(asked) => asked.map_err(|error| OutcomeError::in_full(&error)),
                Err(_) => Err(format!("no answer after {:?}", budget + policy.grace)),
            };
            (id, daemon)
        };
        join_all(hosts.into_iter().map(ask)).await.into_iter().collect()
    }

    /// Carries out a plan. The run continues in the background and reports by its events.
    ///
    /// Must be called within a tokio runtime.
    pub fn run(&self, plan: Plan, control: &RunControl) -> Run {
        self.run_noted(plan, None, control)
    }

    /// As [`run`](Self::run), with a journal or another recorder, in which every target is recorded before it is started and before its
    /// outcome is reported.
    ///
    /// Must be called within a tokio runtime.
    pub fn run_noted(&self, plan: Plan, journal: Option<Arc<dyn Recorder>>, control: &RunControl) -> Run {
        let Plan {
            operation,
            policy,
            targets,
            settled,
            done_before,
            planned_in,
            placements,
            to_undo,
            allowance,
            ..
        } = plan;
        let to_undo = Arc::new(to_undo);
        let placements = Arc::new(placements.for_targets(&targets));
        // The policy may be another than that of the planning.
        let policy = Policy {
            poll_initial: policy.poll_initial.max(SHORTEST_PAUSE),
            poll_max: policy.poll_max.max(SHORTEST_PAUSE),
            ..policy
        };
        let deadline = policy.deadline.map(|whole| whole.saturating_sub(planned_in));
        let run_policy = match &operation {
            // Its steps have the time and the retries of a target each.
            Operation::Scenario(scenario) => {
                let timeout = scenario.budget(policy.timeout);
                Policy { deadline, timeout, retries: 0, ..policy.clone() }
            }
            operation if operation.facts().all_at_once => {
                Policy { deadline, parallel: policy.parallel.max(targets.len()), ..policy.clone() }
            }
            _ => Policy { deadline, ..policy.clone() },
        };
        let spec =
            RunSpec { op: operation.name(), targets, settled, done_before, policy: run_policy, journal };
        let (manager, agents) = (self.manager.clone(), Arc::clone(&self.agents));
        let watches = Arc::clone(&self.watches);
        let operation = Arc::new(operation);
        run_targets(spec, control, move |target, attempt| {
            let operation = Arc::clone(&operation);
            let (manager, agents) = (manager.clone(), Arc::clone(&agents));
            let is_to_undo = to_undo.contains(&(target.host.clone(), target.uuid()));
            let job = Job {
                manager,
                agents,
                watches: Arc::clone(&watches),
                policy: policy.clone(),
                planned_on: Arc::new(target.host.clone()),
                placements: Arc::clone(&placements),
                was_active: target.state().is_some_and(DomainState::is_active),
                is_step: false,
                allowance: allowance.clone(),
                target,
                attempt,
            };
            async move {
                match is_to_undo {
                    true => verbs::undo(&operation, &job).await,
                    false => verbs::perform(&operation, &job).await,
                }
            }
        })
    }
}

/// Refuses a policy with which hosts would be asked without a pause.
fn check_pauses(policy: &Policy) -> Result<(), PlanError> {
    for (field, pause) in [("poll_initial", policy.poll_initial), ("poll_max", policy.poll_max)] {
        if pause.is_zero() {
            return Err(PlanError::NoPause { field });
        }
    }
    Ok(())
}

/// The time for listing a host, at most half of the time for the whole run: a host that hangs does not use up the time
/// of the others.
fn listing_budget(policy: &Policy) -> Duration {
    policy.deadline.map_or(policy.timeout, |whole| policy.timeout.min(whole / 2))
}

/// Why a host was not listed when a stop was requested.
fn not_listed(id: &HostId) -> OutcomeError {
    let message = format!(
        "host {id}: not asked for its VMs to the end, as a stop was requested; nothing was sent to them"
    );
    OutcomeError::new(ErrorKind::Stopped, message).retryable()
}

fn given_up(id: &HostId, after: Duration) -> OutcomeError {
    OutcomeError::new(ErrorKind::CallTimeout, format!("host {id}: not listed after {after:?}; abandoned"))
        .with_hint(Hint::silent_host(id))
        .retryable()
}
