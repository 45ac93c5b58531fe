//! The runs of the service: their store, and those that are under way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use atp_api::RunStatistics;
use atp_executor::RunControl;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lines::ConsoleLines;
use super::progress::TargetProgress;
use crate::settings::ServeConfig;
use crate::store::{Change, Refused, Store};
use crate::time::{Clock, millis};

/// How often old runs are looked for.
const FORGET: Duration = Duration::from_secs(600);

/// A change of the clock that is told.
const TOLD: Duration = Duration::from_secs(60);

/// The runs of which lines of consoles are kept after their end, for clients that come back.
const ENDED: usize = 16;

/// The runs of the service.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(super) store: Store,
    active: Mutex<HashMap<i64, Arc<Active>>>,
    /// The lines of consoles of the last runs that have ended and had some.
    ended: Mutex<VecDeque<(i64, Arc<ConsoleLines>)>>,
}

/// A run that is planned or under way.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) control: RunControl,
    /// The number of its last event in the store.
    pub(super) last: watch::Sender<i64>,
    pub(super) statistics: Mutex<RunStatistics>,
    /// What the store has refused of its outcomes, and their events do not have either.
    pub(super) refused: Refused,
    /// Apart from the rest, as is the next: a reader that waits for them does not keep `last` from being dropped.
    pub(super) lines: Arc<ConsoleLines>,
    pub(super) progress: Arc<TargetProgress>,
}

impl Runs {
    pub(crate) fn new(store: Store) -> Self {
        Runs { store, active: Mutex::default(), ended: Mutex::default() }
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn active(&self, run: i64) -> Option<Arc<Active>> {
        self.active.lock().get(&run).cloned()
    }

    /// Whether a run is planned or under way here.
    pub(crate) fn is_active(&self, run: i64) -> bool {
        self.active.lock().contains_key(&run)
    }

    /// Makes a run active; none if it is active already.
    pub(super) fn activate(&self, run: i64, last: i64) -> Option<Arc<Active>> {
        let mut all = self.active.lock();
        if all.contains_key(&run) {
            return None;
        }
        let (control, last) = (RunControl::default(), watch::Sender::new(last));
        let (statistics, lines) = (Mutex::default(), Arc::<ConsoleLines>::default());
        let (refused, progress) = (Refused::default(), Arc::<TargetProgress>::default());
        let active = Arc::new(Active { control, last, statistics, refused, lines, progress });
        all.insert(run, active.clone());
        self.ended.lock().retain(|(of, _)| *of != run);
        Some(active)
    }

    pub(super) fn deactivate(&self, run: i64) {
        let Some(active) = self.active(run) else { return };
        if active.lines.has_any() {
            let mut ended = self.ended.lock();
            if ended.len() >= ENDED {
                ended.pop_front();
            }
            ended.push_back((run, active.lines.clone()));
        }
        self.active.lock().remove(&run);
    }

    /// The lines of the consoles of a run that has ended, if they are kept.
    pub(super) fn lines_of_ended(&self, run: i64) -> Option<Arc<ConsoleLines>> {
        self.ended.lock().iter().find(|(of, _)| *of == run).map(|(_, lines)| lines.clone())
    }

    /// Forgets old runs from now on, until the service ends. Settings are read each time, as they change.
    pub(crate) fn forget_old(
        &self,
        config: impl Fn() -> Arc<ServeConfig> + Send + Sync + 'static,
        clock: Clock,
        stopping: CancellationToken,
    ) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let forget = async {
                let mut was_set = Duration::ZERO;
                loop {
                    let (forward, back) = match clock.was_set() {
                        Ok(forward) => (forward, Duration::ZERO),
                        Err(back) => (Duration::ZERO, back),
                    };
                    if forward.max(back).abs_diff(was_set) > TOLD {
                        was_set = forward.max(back);
                        tracing::warn!(
                            ?forward,
                            ?back,
                            "the clock was set since the service began; what is kept for a time is kept as if it was not"
                        );
                    }
                    forget(&store, &config(), &clock).await;
                    tokio::time::sleep(FORGET).await;
                }
            };
            tokio::select! {
                () = forget => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

/// Forgets the runs that are too old, and those that are too many.
async fn forget(store: &Store, config: &ServeConfig, clock: &Clock) {
    let ttl = i64::try_from(config.run_ttl.as_millis()).unwrap_or(i64::MAX);
    let since = match store.now(millis(clock.steady())).await {
        Ok(now) => now.saturating_sub(ttl),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "old runs are not forgotten");
            return;
        }
    };
    let change = Change::Retain { since, most: i64::try_from(config.max_runs).unwrap_or(i64::MAX) };
    loop {
        match store.change(change.clone()).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old runs are not forgotten");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::store::{Ending, NewRun};

    #[tokio::test]
    async fn a_clock_that_is_set_forward_makes_no_run_old() {
        let folder = tempfile::tempdir().unwrap();
        let shown = Arc::new(Mutex::new(SystemTime::now()));
        let read = shown.clone();
        let clock = Clock::of(move || *read.lock());
        let store = Store::open(&folder.path().join("runs.sqlite"), clock.clone()).await.unwrap();
        let new = NewRun {
            op: "exec".to_owned(),
            by: "a".to_owned(),
            request: None,
            idempotency: None,
            planner: None,
        };
        let run = store.change(Change::New(new)).await.unwrap();
        let ending = Some(Ending { state: "ended", statistics: "{}".to_owned(), stop_reason: None });
        store.change(Change::Events { run, events: Vec::new(), ending }).await.unwrap();
        let config = ServeConfig::default();
        let years = Duration::from_secs(10 * 365 * 24 * 3600);
        *shown.lock() += years;
        forget(&store, &config, &clock).await;
        assert!(store.run(run).await.unwrap().is_some(), "a run of this moment is forgotten");
        // A service that begins then takes the clock for right.
        let later = Clock::of({
            let shown = shown.clone();
            move || *shown.lock()
        });
        forget(&store, &config, &later).await;
        assert!(store.run(run).await.unwrap().is_none());
    }
}
