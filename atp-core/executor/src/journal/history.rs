//! The history in a journal: what earlier runs did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use atp_api::{Outcome, OutcomeError, Status};
use atp_transport::{Effect, ErrorKind, HostId};
use uuid::Uuid;

use super::past::{Past, Progress, not_selected};
use super::record::{Head, Key, Unresolved};
use crate::plan::{Notice, Plan};
use crate::target::Target;
use crate::verbs::Operation;
use crate::verbs::completion::Completion;

/// A journal as it was read: the targets of its run, and how far each got.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) path: PathBuf,
    pub(super) head: Head,
    /// When later runs went on.
    pub(super) resumed_at: Vec<String>,
    /// Bytes up to the end of the last batch that is on disk as it was written; in a file without seals, of the last line.
    pub(super) good_bytes: usize,
    /// How many batches with a seal these are.
    pub(super) batches: u64,
    /// Bytes in all.
    pub(super) length: usize,
    /// Whether records were lost to damage: every target may have been processed since the last record of it that was read.
    pub(super) has_lost: bool,
    /// Whether each VM's files went to a folder of their own.
    pub(super) separate: bool,
    pub(super) targets: BTreeMap<Identity, Past>,
    /// The hosts under which each VM is in `targets`.
    pub(super) hosts_of: HashMap<Uuid, BTreeSet<HostId>>,
    /// What was selected as well and could not be resolved to VMs.
    pub(super) unresolved: Vec<Unresolved>,
}

/// The identity of a target: the host and the VM's UUID; no UUID if the host is the target.
pub(super) type Identity = (HostId, Option<Uuid>);

/// What the journal has about a VM on hosts other than its present one.
enum Elsewhere {
    /// It ran there and must not be repeated.
    Ran(HostId),
    /// It is still to do there.
    ToDo(Identity),
    Nothing,
}

impl History {
    /// Reduces `plan` to what is still to do of the journal's run: the targets that were never started or failed without
    /// an effect, and the selected VMs that were not found, or whose hosts could not be listed, when the journal was begun.
    ///
    /// Of the others, those that succeeded are only counted ([`Plan::done_before`]). The rest, failures with an effect or
    /// an unknown one, become settled outcomes and are not repeated. VMs that were not selected when the journal was begun
    /// are left out. Files that are copied out of VMs go to the same places as before, even if one VM is left.
    ///
    /// A VM that is on another host now has the past of its UUID there. What ran is not repeated
    /// ([`Notice::RanElsewhere`]), and what is still to do is done on the present host ([`Notice::Moved`]). Only VMs of one
    /// UUID that were targets on two hosts when the journal was begun are two VMs.
    pub fn apply(&self, mut plan: Plan) -> Plan {
        let op = plan.operation.name();
        let mut left = self.targets.clone();
        let planned = std::mem::take(&mut plan.targets);
        let missing = self.missing(&plan, &planned, op);
        let (mut targets, mut not_repeated, mut new) = (Vec::new(), Vec::new(), 0);
        let (mut moved, mut unknown_here) = (Vec::new(), Vec::new());
        for target in planned {
            let own: Vec<Past> =
                identities(&target, &plan.notices).filter_map(|identity| left.remove(&identity)).collect();
            match own.iter().position(|past| !past.is_to_do(&plan.operation)) {
                Some(at) if own[at].is_to_undo(&plan.operation) => {
                    plan.to_undo.insert((target.host.clone(), target.uuid()));
                    targets.push(target);
                }
                Some(at) => plan.done_before += own[at].clone().settle(op, &mut not_repeated),
                None if own.is_empty() => unknown_here.push(target),
                None => match self.elsewhere(&target, &own, &left, &plan.operation) {
                    Elsewhere::Ran(ran_on) => not_repeated.push(ran_elsewhere(&target, op, &ran_on)),
                    Elsewhere::ToDo(_) | Elsewhere::Nothing => targets.push(target),
                },
            }
        }
        // VMs migrate. After every VM that stayed on its host has taken its past, the others may have one on another host.
        for target in unknown_here {
            let is_unresolved = self.is_unresolved(&target);
            let (vm, host) = (target.vm().unwrap_or_default().to_owned(), target.host.clone());
            match self.elsewhere(&target, &[], &left, &plan.operation) {
                Elsewhere::Ran(ran_on) if left.contains_key(&(ran_on.clone(), target.uuid())) => {
                    plan.notices.push(Notice::RanElsewhere { vm, host, ran_on });
                }
                // It is on both hosts: its definition stayed on the first after a migration, or it is a copy.
                Elsewhere::Ran(ran_on) if is_unresolved => {
                    not_repeated.push(ran_elsewhere(&target, op, &ran_on));
                }
                Elsewhere::ToDo(identity @ (_, Some(uuid))) if left.contains_key(&identity) => {
                    moved.extend(left.remove(&identity));
                    plan.notices.push(Notice::Moved { vm, uuid, from: identity.0, host });
                    targets.push(target);
                }
                Elsewhere::ToDo(_) | Elsewhere::Nothing if is_unresolved => {
                    let progress = if self.has_lost { Progress::Lost } else { Progress::NeverStarted };
                    let past = Past { key: Key::of(&target), progress, is_from_begin: false };
                    if past.is_to_do(&plan.operation) {
                        targets.push(target);
                    } else {
                        plan.done_before += past.settle(op, &mut not_repeated);
                    }
                }
                Elsewhere::Ran(_) | Elsewhere::ToDo(_) | Elsewhere::Nothing => new += 1,
            }
        }
        // Planning knows a VM that it did not find only by name. The journal knows its UUID.
        let (named, mut settled): (Vec<_>, Vec<_>) = std::mem::take(&mut plan.settled)
            .into_iter()
            .partition(|outcome| left.values().chain(&moved).any(|past| past.is_named_by(outcome)));
        let mut not_found = missing.len();
        for past in left.into_values() {
            if past.is_to_do(&plan.operation) {
                let outcome = past.not_selected(op, &named, &settled);
                settled.push(outcome);
                not_found += 1;
            } else {
                plan.done_before += past.settle(op, &mut not_repeated);
            }
        }
        let counted = not_repeated.len();
        settled.extend(not_repeated);
        settled.extend(missing);
        settled.sort_by(Outcome::report_order);
        plan.settled = settled;
        plan.targets = targets;
        plan.operation = plan.operation.separated(self.separate);
        if !plan.targets.is_empty() || !plan.settled.is_empty() || new > 0 {
            let (done, to_do) = (plan.done_before, plan.targets.len());
            if self.has_lost {
                plan.notices.push(Notice::JournalDamaged);
            }
            plan.notices.push(Notice::Resumed { done, to_do, not_repeated: counted, not_found, new });
        }
        plan
    }

    /// Looks up a VM on hosts other than its present one, where it has the pasts `own`. In doubt, as with copies that share
    /// a UUID, it ran. A past that is `left` is preferred to one that a VM on that host has taken.
    fn elsewhere(
        &self,
        target: &Target,
        own: &[Past],
        left: &BTreeMap<Identity, Past>,
        operation: &Operation,
    ) -> Elsewhere {
        let Some(uuid) = target.uuid() else { return Elsewhere::Nothing };
        let is_own = |past: &Past| own.iter().any(|own| own.key.host == past.key.host);
        let is_copy = |past: &Past| past.is_from_begin && own.iter().any(|own| own.is_from_begin);
        let hosts = self.hosts_of.get(&uuid).into_iter().flatten();
        let pasts = hosts.filter_map(|host| self.targets.get_key_value(&(host.clone(), Some(uuid))));
        let pasts = pasts.filter(|(_, past)| !is_own(past) && !is_copy(past));
        match pasts.min_by_key(|(identity, past)| (past.is_to_do(operation), !left.contains_key(*identity))) {
            Some((identity, past)) if past.is_to_do(operation) => Elsewhere::ToDo(identity.clone()),
            Some((_, past)) => Elsewhere::Ran(past.key.host.clone()),
            None => Elsewhere::Nothing,
        }
    }

    /// Whether the VM was selected before without being known.
    fn is_unresolved(&self, target: &Target) -> bool {
        self.unresolved.iter().any(|one| one.covers(&target.host, target.vm()))
    }

    /// The outcomes of selections that could not be resolved before and are not made now: planning does not report them.
    fn missing(&self, plan: &Plan, planned: &[Target], op: &'static str) -> Vec<Outcome> {
        let is_told = |one: &Unresolved| {
            let is_there = planned.iter().any(|target| one.covers(&target.host, target.vm()));
            let was_listed =
                one.vm.is_none() && one.host.as_ref().is_some_and(|host| plan.listed.contains(host));
            let has_outcome = plan.settled.iter().any(|outcome| {
                let is_host = one.host.is_none() || outcome.host.is_none() || outcome.host == one.host;
                is_host && (one.vm.is_none() || outcome.vm.is_none() || outcome.vm == one.vm)
            });
            is_there || was_listed || has_outcome
        };
        let left = self.unresolved.iter().filter(|one| !is_told(one));
        left.map(|one| Outcome {
            host: one.host.clone(),
            vm: one.vm.clone(),
            error: Some(not_selected()),
            ..Outcome::not_started(op, Status::Skipped)
        })
        .collect()
    }
}

/// The identities that a target may have in the journal: its host may be there under another id of the same daemon.
fn identities<'a>(target: &'a Target, notices: &'a [Notice]) -> impl Iterator<Item = Identity> {
    let aliases = notices.iter().filter_map(|notice| match notice {
        Notice::SameDaemon { host, alias, .. } if *host == target.host => Some(alias),
        _ => None,
    });
    [&target.host].into_iter().chain(aliases).map(|host| (host.clone(), target.uuid()))
}

/// The outcome of a VM that is not run on its host because a VM of its UUID ran on another.
fn ran_elsewhere(target: &Target, op: &'static str, ran_on: &HostId) -> Outcome {
    let message = format!("a VM of this UUID ran on {ran_on} in the journal's run; it is not repeated here");
    let error = OutcomeError::new(ErrorKind::RanElsewhere, message)
        .with_hint("if it is a copy, and not the same VM, run the command for this VM only");
    Completion::failed(Status::Skipped, Effect::None, error).into_outcome(
        target.clone(),
        op,
        0,
        Duration::ZERO,
    )
}
