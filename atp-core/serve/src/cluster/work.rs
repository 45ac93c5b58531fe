//! What a controller does for the runs under way, one thing after the other: a request to the database that is on its way never
//! crosses another that depends on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use atp_cluster::Claim;
use atp_executor::{Operation, Selection};
use tokio::time::{Instant, sleep};

use super::clock;
use super::controller::Cluster;
use super::target::{Prepared, carry_out};
use crate::state::Service;
use crate::store::{Finished, Link, Look, SharedRun, StoreError, startable};

/// How often it is looked for work that was not heard of.
const LOOK: Duration = Duration::from_millis(500);

/// How often the database is compared with what is under way.
const COMPARE: Duration = Duration::from_secs(2);

/// The most outcomes that are told together.
const BATCH: usize = 200;

struct Worker {
    cluster: Cluster,
    service: Service,
    link: Link,
    /// Runs by when they were begun, too: one that is resumed may have another policy.
    runs: HashMap<(i64, i64), Arc<Prepared>>,
    /// Claims that were started and for which nothing is sent.
    unsent: Vec<(i64, String, Claim)>,
    /// Numbers claims. They need to differ within this process only.
    number: i64,
    compare_at: Instant,
    /// The outcomes that are in the journal.
    recorded: HashSet<(i64, String, i64)>,
}

/// Works until the service ends, and then until all that was started has its outcome.
pub(super) async fn work(cluster: Cluster, service: Service) {
    let link = cluster.inner.store.link();
    let (runs, unsent) = (HashMap::new(), Vec::new());
    let compare_at = Instant::now();
    let recorded = HashSet::new();
    let mut worker = Worker { cluster, service, link, runs, unsent, number: 0, compare_at, recorded };
    let mut has_failed = false;
    loop {
        match worker.turn().await {
            Ok(is_done) => {
                has_failed = false;
                if is_done {
                    break;
                }
            }
            Err(error) => {
                if !has_failed {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "no targets are started and no outcomes told: the database does not answer"
                    );
                }
                has_failed = true;
                // What was asked for just now may have been done all the same.
                worker.compare_at = Instant::now();
                worker.write_down().await;
                sleep(LOOK).await;
            }
        }
        tokio::select! {
            () = worker.cluster.inner.wake.notified() => {}
            () = sleep(LOOK) => {}
            () = worker.service.stopping().cancelled(), if !worker.service.stopping().is_cancelled() => {}
        }
    }
    worker.cluster.inner.ended.cancel();
}

impl Worker {
    /// Does what there is to do. Returns whether all is done, and the service ends.
    async fn turn(&mut self) -> Result<bool, StoreError> {
        let is_stopping = self.service.stopping().is_cancelled();
        self.tell().await?;
        if !self.unsent.is_empty() {
            self.link.put_back(&self.unsent).await?;
            self.unsent.clear();
        }
        if Instant::now() >= self.compare_at {
            self.compare().await?;
            self.compare_at = Instant::now() + COMPARE;
        }
        self.give_back(is_stopping).await?;
        let runs = self.link.under_way().await?;
        self.runs.retain(|run, _| runs.contains(run));
        for run in runs {
            while self.look(run, is_stopping).await? {}
        }
        let inner = &self.cluster.inner;
        let is_idle = inner.under_way.lock().is_empty() && inner.finished.lock().is_empty();
        Ok(is_stopping && is_idle && self.unsent.is_empty())
    }

    /// Tells the database the outcomes that there are.
    async fn tell(&mut self) -> Result<(), StoreError> {
        loop {
            let outcomes: Vec<_> = self.cluster.inner.finished.lock().iter().take(BATCH).cloned().collect();
            if outcomes.is_empty() {
                break;
            }
            let count = outcomes.len();
            let mut by_run: BTreeMap<i64, Vec<Finished>> = BTreeMap::new();
            for outcome in outcomes {
                by_run.entry(outcome.run).or_default().push(outcome);
            }
            for (run, outcomes) in by_run {
                self.link.finish(run, &outcomes).await?;
            }
            self.cluster.inner.finished.lock().drain(..count);
        }
        if self.cluster.inner.journal.clear().is_ok() {
            self.recorded.clear();
        }
        Ok(())
    }

    /// Writes down the outcomes that the database cannot be told now.
    async fn write_down(&mut self) {
        let mark = |outcome: &Finished| (outcome.run, outcome.key.clone(), outcome.number);
        let outcomes = self.cluster.inner.finished.lock().clone();
        let new: Vec<_> =
            outcomes.into_iter().filter(|outcome| !self.recorded.contains(&mark(outcome))).collect();
        if new.is_empty() {
            return;
        }
        self.recorded.extend(new.iter().map(mark));
        let cluster = self.cluster.clone();
        let written = tokio::task::spawn_blocking(move || cluster.inner.journal.record(&new)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "outcomes are kept in memory only: the journal cannot be written");
        }
    }

    /// Finds what the database calls started by this controller and that it never heard of, as an answer was lost. It is not
    /// heard of later either: nothing is started meanwhile.
    async fn compare(&mut self) -> Result<(), StoreError> {
        let started = self.link.started_by(self.cluster.id()).await?;
        let inner = &self.cluster.inner;
        for (run, key, claim) in started {
            let at = (run, key);
            // In the opposite order of the work itself.
            let is_under_way = inner.under_way.lock().get(&at).is_some_and(|work| work.claim == claim);
            let is_finished = inner.finished.lock().iter().any(|outcome| {
                (outcome.run, &outcome.key, outcome.number) == (at.0, &at.1, claim.number)
                    && outcome.controller == claim.controller
            });
            if !is_under_way && !is_finished {
                self.unsent.push((at.0, at.1, claim));
            }
        }
        if !self.unsent.is_empty() {
            self.link.put_back(&self.unsent).await?;
            self.unsent.clear();
        }
        Ok(())
    }

    /// Gives back the leases of hosts that belong to another controller and on which nothing is under way.
    async fn give_back(&mut self, is_stopping: bool) -> Result<(), StoreError> {
        let inner = &self.cluster.inner;
        if is_stopping {
            inner.leases.lock().close_unless(|_| false);
        }
        let busy: HashSet<_> = inner.under_way.lock().values().map(|work| work.host.clone()).collect();
        let mut free: Vec<(String, i64)> = Vec::new();
        {
            let mut leases = inner.leases.lock();
            free.extend(
                leases
                    .closing()
                    .filter(|(host, _)| !busy.contains(*host))
                    .map(|(host, epoch)| (host.to_owned(), epoch)),
            );
            for (host, epoch) in &free {
                leases.give_back(host, *epoch);
            }
        }
        if !free.is_empty() {
            self.link.give_back(&inner.id, &free).await?;
        }
        Ok(())
    }

    /// Looks at a run. Returns whether there is more to do at once.
    async fn look(&mut self, (run, begun): (i64, i64), is_stopping: bool) -> Result<bool, StoreError> {
        let Some(prepared) = self.prepare(run, begun).await? else { return Ok(false) };
        let inner = self.cluster.inner.clone();
        let asked = clock::now();
        let hosts = match is_stopping {
            true => "{}".to_owned(),
            false => startable(inner.leases.lock().startable(asked)),
        };
        self.number += 1;
        let look = Look {
            controller: &inner.id,
            number: self.number,
            startable: &hosts,
            slack_ms: i64::try_from(inner.slack.as_millis()).unwrap_or(i64::MAX),
            // Not before this controller has told which hosts it knows.
            settles_unknown: !is_stopping && !inner.leases.lock().is_empty(),
        };
        let looked = self.link.look(run, &look).await?;
        for started in looked.started {
            let now = clock::now();
            let may = inner.leases.lock().may_start(started.target.host.as_str(), now);
            if may == Some(started.claim.epoch) {
                carry_out(&self.cluster, &self.service, &prepared, started, now.saturating_sub(asked));
            } else {
                self.unsent.push((started.run, started.key, started.claim));
            }
        }
        if looked.is_aborted {
            for ((of, _), work) in inner.under_way.lock().iter() {
                if *of == run {
                    work.control.abort.cancel();
                }
            }
        }
        Ok(looked.has_more)
    }

    /// What is needed to work on a run; none if it has ended, or cannot be worked on here.
    async fn prepare(&mut self, run: i64, begun: i64) -> Result<Option<Arc<Prepared>>, StoreError> {
        if let Some(prepared) = self.runs.get(&(run, begun)) {
            return Ok(Some(Arc::clone(prepared)));
        }
        let Some(shared) = self.link.shared(run).await? else { return Ok(None) };
        let SharedRun { request, placements, to_undo, .. } = shared;
        let selection = Selection::try_from(&request.targets).unwrap_or_default();
        match Operation::prepare(request.operation).await {
            Ok(operation) => {
                let placements = placements.with_selection(selection);
                let prepared = Arc::new(Prepared { operation, policy: request.policy, placements, to_undo });
                self.runs.insert((run, begun), Arc::clone(&prepared));
                Ok(Some(prepared))
            }
            Err(error) => {
                tracing::error!(run, error = error.message, "the operation of a run cannot be made ready");
                Ok(None)
            }
        }
    }
}
