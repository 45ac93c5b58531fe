//! What a run will do, as a value: the targets in order, the operation, the policy, and the outcomes that are
//! settled already because a host could not be listed or a VM does not exist.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use atp_api::{
    DryRun, Finding, LifecycleSpec, Outcome, OutcomeError, PlanReport, PlannedTarget, Policy, StartCheck,
};
use atp_protocol::files::Allowance;
use atp_transport::domain::{DomainState, Lifecycle, StateReason};
use atp_transport::{ErrorKind, Hint, HostId};
use uuid::Uuid;

use crate::folded::Folded;
use crate::placement::Placements;
use crate::target::{Printable, Target};
use crate::verbs::Operation;

/// What a run will do, before it is started. [`Display`](fmt::Display) prints it for a person.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is done to each target.
    pub operation: Operation,
    /// The limits and deadlines of the run.
    pub policy: Policy,
    /// The targets, by host and then VM, each once.
    pub targets: Vec<Target>,
    /// Outcomes that no run can change: hosts that could not be listed, VMs that do not exist.
    pub settled: Vec<Outcome>,
    /// The hosts that could be listed.
    pub listed: Vec<HostId>,
    /// What a person should know about how it was made.
    pub notices: Vec<Notice>,
    /// Where VMs are that several hosts list.
    pub placements: Placements,
    /// The number of targets that an earlier run of the same journal has done, and that are not repeated.
    pub done_before: usize,
    /// Of the targets those that an earlier run of the same journal left in the middle of a scenario that isolates its VMs:
    /// they are taken back to their snapshot, and no step is repeated.
    pub to_undo: BTreeSet<(HostId, Option<Uuid>)>,
    /// How much of [`Policy::deadline`] planning has used up.
    pub planned_in: Duration,
    /// How much its targets may write to files on this machine, all together: copies, pictures, consoles and evidence.
    pub allowance: Allowance,
}

/// Something unexpected about a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Two host ids lead to the same daemon. Its VMs are targets under the first id only.
    SameDaemon {
        /// The id that is kept.
        host: HostId,
        /// The other one.
        alias: HostId,
        /// The VMs that were selected under both.
        vms: usize,
    },
    /// Two host ids may lead to the same daemon, and something speaks against it. They are treated as two hosts.
    PerhapsSameDaemon {
        /// The first id.
        host: HostId,
        /// The other one.
        other: HostId,
        /// The VMs that were selected under both, and are targets under both.
        vms: usize,
        /// What speaks against it.
        doubt: Doubt,
    },
    /// The selectors match VMs, and the filters (state, labels, exclusion) leave none of them.
    NoneLeft {
        /// The VMs that the selectors match.
        vms: usize,
    },
    /// An exclusion names a VM that none of its hosts has.
    NothingExcluded {
        /// The selector.
        selector: String,
    },
    /// A VM that is planned on one host, and that the journal's run worked on when it was on another. It is not repeated.
    RanElsewhere {
        /// The VM's name.
        vm: String,
        /// The host it is on now.
        host: HostId,
        /// The host it was on then.
        ran_on: HostId,
    },
    /// A VM that the journal's run did nothing to while it was on another host. It is to do on the present host.
    Moved {
        /// The VM's name.
        vm: String,
        /// Its UUID.
        uuid: Uuid,
        /// The host it was on then.
        from: HostId,
        /// The host it is on now.
        host: HostId,
    },
    /// Records of the journal were lost to damage, not only the last ones.
    JournalDamaged,
    /// What was left to do of a journal's run.
    Resumed {
        /// Targets that are done.
        done: usize,
        /// Targets that are to be done now.
        to_do: usize,
        /// Targets that failed with an effect, or may have had one.
        not_repeated: usize,
        /// Targets that are not done and cannot be: they are not selected now, or were not found.
        not_found: usize,
        /// VMs that are selected now and were not when the journal was begun: they are left out.
        new: usize,
    },
}

/// Why two host ids that may lead to one daemon are treated as two hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// A host could not be asked for the UUID of its machine.
    NotAsked {
        /// The host.
        host: HostId,
        /// Why not.
        error: String,
    },
    /// The UUIDs of the machines are the same, and the host names are not.
    HostNames {
        /// The host name of the first.
        hostname: String,
        /// That of the other.
        other: String,
    },
    /// The UUIDs of the machines and the host names are the same, and what is listed of a VM is not.
    Vm {
        /// Its name.
        vm: String,
        /// What is listed under the first id.
        state: String,
        /// What is listed under the other.
        other: String,
    },
}

impl Notice {
    /// The second id of a daemon that two ids turned out to name.
    pub(crate) fn alias(&self) -> Option<&HostId> {
        match self {
            Notice::SameDaemon { alias, .. } => Some(alias),
            _ => None,
        }
    }

    /// What a diagnosis finds in it: two ids that lead to one daemon, or may.
    pub fn finding(&self) -> Option<Finding> {
        const CHECK: &str = "inventory";
        match self {
            Notice::SameDaemon { host, alias, .. } => Some(Finding::problem(
                CHECK,
                format!("{host} and {alias} reach the same daemon: its VMs are processed as those of {host}"),
                "keep one of the ids, and remove the other from the inventory",
            )),
            Notice::PerhapsSameDaemon { doubt, .. } => {
                let hint = match doubt {
                    Doubt::NotAsked { .. } => "run it again when both hosts answer",
                    _ => {
                        "if they are two machines, give each a different host_uuid in libvirtd.conf or virtqemud.conf; if \
                         they are one, remove one of the ids from the inventory"
                    }
                };
                Some(Finding::warning(CHECK, self.to_string(), hint))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::SameDaemon { host, alias, vms } => {
                write!(f, "{alias} is the same host as {host}: VMs selected under both are processed once: {vms}")
            }
            Notice::PerhapsSameDaemon { host, other, vms, doubt } => {
                write!(f, "{other} may be the same host as {host}, and is treated as another: ")?;
                match doubt {
                    Doubt::NotAsked { host, error } => {
                        write!(f, "{host} could not be asked for the UUID of its machine: {error}")?;
                    }
                    Doubt::HostNames { hostname, other } => write!(
                        f,
                        "the UUIDs of their machines are the same, but their host names are not ({hostname:?}, {other:?})"
                    )?,
                    Doubt::Vm { vm, state, other: state_there } => write!(
                        f,
                        "the UUIDs of their machines and their host names are the same, but VM {vm:?} is {state} under \
                         {host} and {state_there} under {other}"
                    )?,
                }
                write!(f, "; VMs selected under both are processed under both: {vms}")
            }
            Notice::NoneLeft { vms: 1 } => f.write_str(
                "the selectors match 1 VM, which a filter by state, label or exclusion excludes",
            ),
            Notice::NoneLeft { vms } => write!(
                f,
                "the selectors match {vms} VMs, and the filters by state, label or exclusion exclude all of them"
            ),
            Notice::NothingExcluded { selector } => {
                write!(f, "the exclusion '{selector}' excludes nothing: there is no VM with this name")
            }
            Notice::RanElsewhere { vm, host, ran_on } => {
                let vm = Printable(vm);
                write!(f, "{host}/{vm} ran on {ran_on} in the journal's run and is not repeated on {host}")
            }
            Notice::JournalDamaged => f.write_str(
                "the journal is damaged: the records after the damage are lost, and what may have had an effect since is \
                 not repeated",
            ),
            Notice::Moved { vm, from, host, .. } => {
                let vm = Printable(vm);
                write!(
                    f,
                    "{host}/{vm} was on {from} in the journal's run, which did nothing to it: it is still to do on {host}"
                )
            }
            &Notice::Resumed { done, to_do, not_repeated, not_found, new } => {
                write!(f, "of the journal's run {}", counted(done, "target is done", "targets are done"))?;
                for (count, one, several) in [
                    (to_do, "is to do", "are to do"),
                    (
                        not_repeated,
                        "had or may have had an effect and is not repeated",
                        "had or may have had an effect and are not repeated",
                    ),
                    (not_found, "was not found", "were not found"),
                ] {
                    if count > 0 {
                        write!(f, ", {}", counted(count, one, several))?;
                    }
                }
                match new {
                    0 => Ok(()),
                    new => {
                        let vms = counted(
                            new,
                            "selected VM is not in it and is left out",
                            "selected VMs are not in it and are left out",
                        );
                        write!(f, "; {vms}")
                    }
                }
            }
        }
    }
}

/// A number with its noun and verb.
fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

impl Plan {
    /// Whether there is nothing to do and nothing to report: the selectors matched nothing, or the filters left nothing
    /// of that, on hosts that could all be listed.
    pub fn matched_nothing(&self) -> bool {
        let left_out = |notice: &Notice| matches!(notice, Notice::Resumed { new: 1.., .. });
        self.targets.is_empty()
            && self.settled.is_empty()
            && self.done_before == 0
            && !self.notices.iter().any(left_out)
    }

    /// The plan as an answer to a client.
    pub fn report(&self) -> PlanReport {
        let planned = |(target, dry_run): (&Target, DryRun)| PlannedTarget {
            host: target.host.clone(),
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            state: target.state(),
            listed: target.domain.clone(),
            dry_run,
            refusal: (dry_run == DryRun::NotRunning).then(|| self.refusal(target)).flatten(),
        };
        PlanReport {
            version: atp_api::VERSION,
            op: self.operation.name().into(),
            disruptive: self.operation.is_disruptive(),
            policy: self.policy.clone(),
            targets: self.dry_run().map(planned).collect(),
            settled: self.settled.clone(),
            notices: self.notices.iter().map(ToString::to_string).collect(),
            findings: self.notices.iter().filter_map(Notice::finding).collect(),
            done_before: self.done_before,
            id: None,
            chosen_by: None,
        }
    }

    /// The plan with this operation, which is the planned one: only where its files are may have become known since.
    #[must_use]
    pub fn with_operation(self, operation: Operation) -> Self {
        let operation = operation.over(self.targets.len() + self.settled.len());
        Plan { operation, ..self }
    }

    /// The targets, each with what the operation will do to it, as far as the state at listing tells.
    pub fn dry_run(&self) -> impl Iterator<Item = (&Target, DryRun)> {
        self.targets.iter().map(|target| {
            let expected = match &target.domain {
                None => DryRun::Proceed,
                Some(_) if self.starts_twice(target) => DryRun::NotRunning,
                Some(domain) => self.operation.dry_run_of(domain),
            };
            (target, expected)
        })
    }

    /// The error of a target whose state does not allow the operation, as far as the state at listing tells.
    pub fn refusal(&self, target: &Target) -> Option<OutcomeError> {
        let domain = target.domain.as_ref()?;
        if self.starts_twice(target) {
            let error = match self.placements.runs_on(domain.uuid, &target.host) {
                Some(other) => format!("host {}: VM {:?} runs on {other}", target.host, domain.name),
                None => format!("host {}: VM {:?} was migrated to another host", target.host, domain.name),
            };
            return Some(OutcomeError::new(ErrorKind::VmMoved, error).with_hint(Hint::START_ELSEWHERE));
        }
        Some(self.operation.refusal(&target.host, domain))
    }

    /// Whether the operation starts a VM that is shut off on this host and was migrated away, or runs elsewhere.
    fn starts_twice(&self, target: &Target) -> bool {
        let Operation::Lifecycle(LifecycleSpec {
            action: Lifecycle::Start | Lifecycle::Restore,
            start_check,
            ..
        }) = self.operation
        else {
            return false;
        };
        let Some(domain) = &target.domain else { return false };
        start_check != StartCheck::Nothing
            && domain.state == DomainState::ShutOff
            && (domain.reason == Some(StateReason::Migrated)
                || self.placements.runs_on(domain.uuid, &target.host).is_some())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} target{}, at most {} at once, at most {:?} each",
            self.operation,
            self.targets.len(),
            if self.targets.len() == 1 { "" } else { "s" },
            self.policy.parallel.max(1),
            self.policy.timeout,
        )?;
        let width = self.targets.iter().map(|target| target.to_string().chars().count()).max().unwrap_or(0);
        for (target, expected) in self.dry_run() {
            let target_text = target.to_string();
            let Some(state) = target.state() else {
                writeln!(f, "  {target_text}")?;
                continue;
            };
            let note = match expected {
                DryRun::Proceed | DryRun::Unknown => "",
                DryRun::Unchanged => ": nothing to do",
                DryRun::NotRunning => ": will fail, its state does not allow it",
            };
            writeln!(f, "  {target_text:width$}  {state}{note}")?;
        }
        for outcome in &self.settled {
            let host = outcome.host.as_ref().map_or("", HostId::as_str);
            let slash = if outcome.host.is_some() && outcome.vm.is_some() { "/" } else { "" };
            let vm = Printable(outcome.vm.as_deref().unwrap_or_default());
            let message = outcome.error.as_ref().map_or("", |error| error.message.as_str());
            writeln!(f, "  {host}{slash}{vm}  {}: {}", outcome.status, Printable(message))?;
        }
        Ok(())
    }
}

/// Why there is no plan: something in the request is wrong, and nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is no host at all.
    #[error("there are no hosts to use")]
    NoHosts,
    /// The policy asks for no pause between two looks, so that hosts would be asked without end.
    #[error("{field} of the policy is zero, and leaves no pause between two looks at a VM")]
    NoPause {
        /// The field: `poll_initial` or `poll_max`.
        field: &'static str,
    },
    /// A selector names a host that is not registered.
    #[error("selector {selector:?} names the host {host:?}, which is not in the inventory (hosts: {known})")]
    UnknownHost {
        /// The selector's text.
        selector: String,
        /// The host it names.
        host: String,
        /// The hosts there are.
        known: Names,
    },
    /// A selector names a group that no host is in.
    #[error("selector {selector:?} names the group {group:?}, which no host is in (groups: {known})")]
    UnknownGroup {
        /// The selector's text.
        selector: String,
        /// The group it names.
        group: String,
        /// The groups there are.
        known: Names,
    },
    /// The operation is for hosts, and a part of the selection chooses VMs.
    #[error("{op} is for hosts, and {choice} chooses VMs")]
    VmsForHosts {
        /// The operation's name.
        op: &'static str,
        /// The part of the selection, in words.
        choice: String,
        /// What selects hosts in its place, if anything does.
        instead: Option<String>,
    },
}

impl PlanError {
    /// The kind, for programs to match on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlanError::NoHosts => ErrorKind::NoHosts,
            PlanError::NoPause { .. } => ErrorKind::InvalidRequest,
            PlanError::UnknownHost { .. } => ErrorKind::UnknownHost,
            PlanError::UnknownGroup { .. } => ErrorKind::UnknownGroup,
            PlanError::VmsForHosts { .. } => ErrorKind::InvalidSelector,
        }
    }

    /// What a person can try.
    pub fn hint(&self) -> Hint {
        match self {
            PlanError::NoHosts => Hint::ADD_HOST,
            PlanError::NoPause { .. } => self.kind().hint(),
            PlanError::UnknownHost { .. } => Hint::CHECK_HOST_NAME,
            PlanError::UnknownGroup { .. } => Hint::CHECK_GROUP_OF_HOSTS,
            PlanError::VmsForHosts { instead: Some(instead), .. } => {
                Hint::from(format!("a host is HOST/, a group @GROUP/, and every host */: write {instead}"))
            }
            PlanError::VmsForHosts { instead: None, .. } => Hint::plain("leave it out"),
        }
    }
}

/// Names for an error message: folded, and only the first few are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Folded::of(&self.0).fmt(f)
    }
}
