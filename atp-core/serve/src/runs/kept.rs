//! The runs of the service: their store, and those that are under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use atp_api::RunStatistics;
use atp_executor::RunControl;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::settings::ServeConfig;
use crate::store::{Change, Store, now};

/// How often old runs are looked for.
const FORGET: Duration = Duration::from_secs(600);

/// The runs of the service.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(super) store: Store,
    active: Mutex<HashMap<i64, Arc<Active>>>,
}

/// A run that is planned or under way.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) control: RunControl,
    /// The number of its last event in the store.
    pub(super) last: watch::Sender<i64>,
    pub(super) statistics: Mutex<RunStatistics>,
}

impl Runs {
    pub(crate) fn new(store: Store) -> Self {
        Runs { store, active: Mutex::default() }
    }

    pub(super) fn active(&self, run: i64) -> Option<Arc<Active>> {
        self.active.lock().get(&run).cloned()
    }

    /// Makes a run active; none if it is active already.
    pub(super) fn activate(&self, run: i64, last: i64) -> Option<Arc<Active>> {
        let mut all = self.active.lock();
        if all.contains_key(&run) {
            return None;
        }
        let (control, last) = (RunControl::default(), watch::Sender::new(last));
        let active = Arc::new(Active { control, last, statistics: Mutex::default() });
        all.insert(run, active.clone());
        Some(active)
    }

    pub(super) fn deactivate(&self, run: i64) {
        self.active.lock().remove(&run);
    }

    /// Forgets old runs from now on, until the service ends. Settings are read each time, as they change.
    pub(crate) fn forget_old(
        &self,
        config: impl Fn() -> Arc<ServeConfig> + Send + Sync + 'static,
        stopping: CancellationToken,
    ) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let forget = async {
                loop {
                    let config = config();
                    let ttl = i64::try_from(config.run_ttl.as_millis()).unwrap_or(i64::MAX);
                    let change =
                        Change::Retain { since: now().saturating_sub(ttl), most: i64::from(config.max_runs) };
                    loop {
                        match store.change(change.clone()).await {
                            Ok(0) => break,
                            Ok(_) => {}
                            Err(error) => {
                                tracing::warn!(
                                    error = &error as &dyn std::error::Error,
                                    "old runs are not forgotten"
                                );
                                break;
                            }
                        }
                    }
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
