//! The queue of targets that wait to be admitted.
//!
//! The next target is one of the host with the fewest under way; hosts with equally many take turns. So a host with many
//! slow VMs fills no more of the window than its share, as long as others have targets waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use atp_api::Policy;
use atp_transport::HostId;
use uuid::Uuid;

use crate::target::Target;

/// The targets of a run that were not admitted yet, and the number under way of each host.
pub(super) struct Waiting {
    per_host: usize,
    per_vm: usize,
    /// Batches that were not opened yet.
    batches: VecDeque<Vec<Target>>,
    opened: usize,
    /// Whether there are batches at all, and so a canary.
    is_serial: bool,
    hosts: BTreeMap<HostId, Queue>,
    /// How many targets of the open batch wait.
    queued: usize,
    /// Hosts that may be next: the fewest under way first, then the longest without a turn.
    ready: BTreeSet<(usize, u64, HostId)>,
    turns: u64,
}

#[derive(Default)]
struct Queue {
    targets: VecDeque<Target>,
    under_way: usize,
    vms: HashMap<Uuid, usize>,
    turn: u64,
}

impl Waiting {
    /// Queues all targets and opens the first batch.
    pub(super) fn new(targets: Vec<Target>, policy: &Policy) -> Self {
        let size = policy.serial.map_or(usize::MAX, |serial| serial.of(targets.len()));
        let mut batches = VecDeque::new();
        let mut targets = targets.into_iter().peekable();
        while targets.peek().is_some() {
            batches.push_back(targets.by_ref().take(size).collect());
        }
        let mut waiting = Waiting {
            // More are under way in all where some give up their slots, and yet not on one host.
            per_host: policy.per_host.unwrap_or(usize::MAX).min(policy.parallel).max(1),
            per_vm: policy.per_vm.max(1),
            batches,
            opened: 0,
            is_serial: policy.serial.is_some(),
            hosts: BTreeMap::new(),
            queued: 0,
            ready: BTreeSet::new(),
            turns: 0,
        };
        waiting.open_batch();
        waiting
    }

    /// Opens the next batch. Call this when the batch before has ended.
    pub(super) fn open_batch(&mut self) {
        let Some(batch) = self.batches.pop_front() else { return };
        self.opened += 1;
        self.queued += batch.len();
        for target in batch {
            self.hosts.entry(target.host.clone()).or_default().targets.push_back(target);
        }
        let per_host = self.per_host;
        let ready = self.hosts.iter().filter(|(_, queue)| queue.is_ready(per_host));
        self.ready = ready.map(|(id, queue)| (queue.under_way, queue.turn, id.clone())).collect();
    }

    /// Whether the open batch is the one whose failure ends the run.
    pub(super) fn is_canary(&self) -> bool {
        self.is_serial && self.opened == 1
    }

    /// Whether nothing of the open batch waits.
    pub(super) fn is_batch_admitted(&self) -> bool {
        self.queued == 0
    }

    /// Whether nothing waits, and no batch is left.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.is_batch_admitted()
    }

    /// Takes the next target; none if no target waits, or limits hold all of them back.
    pub(super) fn next(&mut self) -> Option<Target> {
        let (id, place) = self.ready.iter().find_map(|(_, _, id)| {
            let queue = self.hosts.get(id)?;
            Some((id.clone(), queue.targets.iter().position(|target| queue.admits(target, self.per_vm))?))
        })?;
        self.turns += 1;
        let turn = self.turns;
        self.queued -= 1;
        self.with_queue(&id, |queue| {
            let target = queue.targets.remove(place)?;
            queue.turn = turn;
            queue.under_way += 1;
            if let Some(uuid) = target.uuid() {
                *queue.vms.entry(uuid).or_default() += 1;
            }
            Some(target)
        })
        .flatten()
    }

    /// Records the end of a target that was taken.
    pub(super) fn ended(&mut self, target: &Target) {
        self.with_queue(&target.host, |queue| {
            queue.under_way = queue.under_way.saturating_sub(1);
            if let Some(uuid) = target.uuid()
                && let Some(count) = queue.vms.get_mut(&uuid)
            {
                *count -= 1;
                if *count == 0 {
                    queue.vms.remove(&uuid);
                }
            }
        });
    }

    /// Takes all waiting targets, by host and in order.
    pub(super) fn drain(&mut self) -> Vec<Target> {
        self.ready.clear();
        self.queued = 0;
        let open = self.hosts.values_mut().flat_map(|queue| std::mem::take(&mut queue.targets));
        open.chain(std::mem::take(&mut self.batches).into_iter().flatten()).collect()
    }

    /// Changes a host's queue and updates the host's position among those that may be next.
    fn with_queue<T>(&mut self, id: &HostId, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let queue = self.hosts.get_mut(id)?;
        self.ready.remove(&(queue.under_way, queue.turn, id.clone()));
        let result = change(queue);
        if queue.is_ready(self.per_host) {
            self.ready.insert((queue.under_way, queue.turn, id.clone()));
        }
        Some(result)
    }
}

impl Queue {
    /// Whether its host may be next.
    fn is_ready(&self, per_host: usize) -> bool {
        !self.targets.is_empty() && self.under_way < per_host
    }

    fn admits(&self, target: &Target, per_vm: usize) -> bool {
        target.uuid().and_then(|uuid| self.vms.get(&uuid)).is_none_or(|&count| count < per_vm)
    }
}
