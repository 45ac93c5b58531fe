//! The line of callers that ask for a lease, as the callers themselves see it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use crate::scripted::Probe;

/// Everyone who asks for a lease and has no answer yet.
#[derive(Default)]
pub(crate) struct Line {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    asking: BTreeMap<u64, Asking>,
    /// When those asked who were lent a connection since the last look.
    granted: Vec<Instant>,
    /// Somebody who was lent a dead connection has come back into line since the last look.
    disturbed: bool,
}

/// A caller without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    /// Different for each, and stands for its place in line, which it keeps when its connection turns out
    /// dead.
    pub(crate) asked: Instant,
    pub(crate) deadline: Instant,
    /// Lent a connection at that time, and asking it for a sign of life; or in line again, where that was not worth asking
    /// because others had found the connection dead.
    pub(crate) validating: Option<Instant>,
}

/// One caller; gone from the line when dropped.
pub(crate) struct Caller {
    line: Arc<Line>,
    id: u64,
}

impl Line {
    /// To be called when the caller really asks: at the first poll.
    pub(crate) fn ask(self: &Arc<Self>, deadline: Instant) -> Caller {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let asking = Asking { asked: Instant::now(), deadline, validating: None };
        state.asking.insert(id, asking);
        Caller { line: self.clone(), id }
    }

    /// How many have no answer yet, and how many of them are or were just asking for a sign of life.
    pub(crate) fn asking(&self) -> (usize, usize) {
        let state = self.state();
        (state.asking.len(), state.asking.values().filter(|asking| asking.validating.is_some()).count())
    }

    /// Those who certainly stand in line, first come first.
    pub(crate) fn waiting(&self) -> Vec<Asking> {
        let mut waiting: Vec<_> =
            self.state().asking.values().copied().filter(|asking| asking.validating.is_none()).collect();
        waiting.sort_by_key(|asking| asking.asked);
        waiting
    }

    pub(crate) fn overdue(&self, now: Instant) -> usize {
        self.state().asking.values().filter(|asking| asking.deadline < now).count()
    }

    /// When those asked who were lent a connection since the last look; none if that says nothing of who came
    /// first, because somebody has come back into line meanwhile.
    pub(crate) fn take_granted(&self) -> Vec<Instant> {
        let mut state = self.state();
        let granted = std::mem::take(&mut state.granted);
        if std::mem::take(&mut state.disturbed) { Vec::new() } else { granted }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Caller {
    /// What to do on probes made by this caller.
    pub(crate) fn listener(&self) -> Box<dyn Fn(Probe) + Send + Sync> {
        let (line, id) = (self.line.clone(), self.id);
        Box::new(move |probe| {
            let mut state = line.state();
            let State { asking, granted, disturbed, .. } = &mut *state;
            // Probes by one who has his lease are no validation.
            let Some(asking) = asking.get_mut(&id) else { return };
            match probe {
                Probe::Begins => {
                    granted.push(asking.asked);
                    asking.validating = Some(Instant::now());
                }
                Probe::InVain => {
                    *disturbed = true;
                    asking.validating = None;
                }
            }
        })
    }

    /// The caller has its lease. Returns since when, at the earliest.
    pub(crate) fn granted(&self) -> Instant {
        let mut state = self.line.state();
        let Some(asking) = state.asking.remove(&self.id) else { return Instant::now() };
        if asking.validating.is_none() {
            state.granted.push(asking.asked);
        }
        asking.validating.unwrap_or_else(Instant::now)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.line.state().asking.remove(&self.id);
    }
}
