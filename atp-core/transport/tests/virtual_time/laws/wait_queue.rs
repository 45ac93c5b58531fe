//! The queue of callers that wait for a lease, recorded by the callers themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use crate::scripted::Probe;

/// All callers that have asked for a lease and have no answer yet.
#[derive(Default)]
pub(crate) struct WaitQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// The request times of the callers that were lent a connection since the last check.
    granted: Vec<Instant>,
    /// A caller that was lent a dead connection has returned to the queue since the last check.
    requeued: bool,
}

/// A caller without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// Unique, and the caller's position in the queue, which it keeps when its connection turns out to be dead.
    pub(crate) asked: Instant,
    pub(crate) deadline: Instant,
    /// When it was lent a connection, which it validates since then; or it is in the queue again without having
    /// validated it, because other callers had found the connection dead.
    pub(crate) validating: Option<Instant>,
}

/// One caller. Dropping it removes it from the queue.
pub(crate) struct Caller {
    wait_queue: Arc<WaitQueue>,
    id: u64,
}

impl WaitQueue {
    /// Must be called when the caller really asks: at the first poll.
    pub(crate) fn ask(self: &Arc<Self>, deadline: Instant) -> Caller {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let pending = Pending { asked: Instant::now(), deadline, validating: None };
        state.pending.insert(id, pending);
        Caller { wait_queue: self.clone(), id }
    }

    /// The number of callers without an answer, and how many of them are or were validating.
    pub(crate) fn pending(&self) -> (usize, usize) {
        let state = self.state();
        (state.pending.len(), state.pending.values().filter(|pending| pending.validating.is_some()).count())
    }

    /// The callers that are certainly in the queue, in order.
    pub(crate) fn waiting(&self) -> Vec<Pending> {
        let mut waiting: Vec<_> =
            self.state().pending.values().copied().filter(|pending| pending.validating.is_none()).collect();
        waiting.sort_by_key(|pending| pending.asked);
        waiting
    }

    pub(crate) fn late(&self, now: Instant) -> usize {
        self.state().pending.values().filter(|pending| pending.deadline < now).count()
    }

    /// The request times of callers that were lent a connection since the last check. Empty if their order is
    /// unknown, because a caller has returned to the queue in the meantime.
    pub(crate) fn take_granted(&self) -> Vec<Instant> {
        let mut state = self.state();
        let granted = std::mem::take(&mut state.granted);
        if std::mem::take(&mut state.requeued) { Vec::new() } else { granted }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Caller {
    /// The listener for probes of this caller.
    pub(crate) fn listener(&self) -> Box<dyn Fn(Probe) + Send + Sync> {
        let (wait_queue, id) = (self.wait_queue.clone(), self.id);
        Box::new(move |probe| {
            let mut state = wait_queue.state();
            let State { pending, granted, requeued, .. } = &mut *state;
            // Probes of a caller that has its lease are no validation.
            let Some(pending) = pending.get_mut(&id) else { return };
            match probe {
                Probe::Begins => {
                    granted.push(pending.asked);
                    pending.validating = Some(Instant::now());
                }
                Probe::Unanswered => {
                    *requeued = true;
                    pending.validating = None;
                }
            }
        })
    }

    /// The caller has its lease. Returns the earliest time from which it has it.
    pub(crate) fn granted(&self) -> Instant {
        let mut state = self.wait_queue.state();
        let Some(pending) = state.pending.remove(&self.id) else { return Instant::now() };
        if pending.validating.is_none() {
            state.granted.push(pending.asked);
        }
        pending.validating.unwrap_or_else(Instant::now)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.wait_queue.state().pending.remove(&self.id);
    }
}
