//! What a controller does for the runs under way, one thing after the other: a request to the database that is on its way never
//! crosses another that depends on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use atp_api::OutcomeError;
use atp_cluster::Claim;
use atp_executor::{Operation, Selection};
use tokio::time::{Instant, sleep};

use super::clock;
use super::controller::Cluster;
use super::target::{Prepared, carry_out};
use crate::output::take_out;
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
    /// Of one that cannot be made ready the error.
    runs: HashMap<(i64, i64), Result<Arc<Prepared>, OutcomeError>>,
    /// Claims that were started and for which nothing is sent.
    unsent: Vec<(i64, String, Claim)>,
    /// Numbers claims. They need to differ within this process only.
    number: i64,
    compare_at: Instant,
    /// Whether it is looked for targets of hosts that no controller knows: all that wait are gone through.
    settles_unknown: bool,
    /// The outcomes that are in the journal.
    recorded: HashSet<Mark>,
    /// Runs that could not be worked on when that was tried last.
    failing: HashSet<i64>,
    /// Runs that this controller is to plan and of which it knows nothing, as the last look has found.
    unplanned: HashSet<i64>,
}

/// An outcome: its run, its target, and the number of the claim.
type Mark = (i64, String, i64);

fn mark(outcome: &Finished) -> Mark {
    (outcome.run, outcome.key.clone(), outcome.number)
}

/// Works until the service ends, and then until all that was started has its outcome.
pub(super) async fn work(cluster: Cluster, service: Service) {
    let link = cluster.inner.store.link();
    let (runs, unsent) = (HashMap::new(), Vec::new());
    let compare_at = Instant::now();
    let mut worker = Worker {
        cluster,
        service,
        link,
        runs,
        unsent,
        number: 0,
        compare_at,
        settles_unknown: false,
        recorded: HashSet::new(),
        failing: HashSet::new(),
        unplanned: HashSet::new(),
    };
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
                    tracing::error!(error, "the database fails: what it refuses is tried again");
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
        let told = self.tell().await;
        let mut failed = told.err();
        if let Some(error) = failed.take_if(|error| !error.is_of_statement()) {
            return Err(error);
        }
        if !self.unsent.is_empty() {
            self.link.put_back(&self.unsent).await?;
            self.unsent.clear();
        }
        if Instant::now() >= self.compare_at {
            self.compare().await?;
            self.compare_at = Instant::now() + COMPARE;
            self.settles_unknown = true;
        }
        self.give_back(is_stopping).await?;
        let runs = self.link.under_way().await?;
        self.cluster.goes_on();
        self.runs.retain(|run, _| runs.contains(run));
        self.failing.retain(|run| runs.iter().any(|(of, _)| of == run));
        for run in runs {
            // One that cannot be worked on now must not keep those after it waiting.
            match self.look_on(run, is_stopping).await {
                Ok(()) => {
                    self.failing.remove(&run.0);
                }
                Err(error) if error.is_for_good() => {
                    tracing::error!(
                        run = run.0,
                        error = &error as &dyn std::error::Error,
                        "a run cannot be worked on, and is interrupted"
                    );
                    match self.link.interrupt(run.0).await {
                        Err(error) if error.is_of_statement() => failed = failed.or(Some(error)),
                        ended => ended?,
                    }
                }
                Err(error) if error.is_of_statement() => {
                    if self.failing.insert(run.0) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(run = run.0, error, "a run waits, and is tried again");
                    }
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.settles_unknown = false;
        if let Some(error) = failed {
            return Err(error);
        }
        let inner = &self.cluster.inner;
        let is_idle = inner.under_way.lock().is_empty() && inner.finished.lock().is_empty();
        Ok(is_stopping && is_idle && self.unsent.is_empty())
    }

    /// Tells the database the outcomes that there are.
    async fn tell(&mut self) -> Result<(), StoreError> {
        let mut by_run: BTreeMap<i64, Vec<Finished>> = BTreeMap::new();
        for outcome in self.cluster.inner.finished.lock().iter() {
            by_run.entry(outcome.run).or_default().push(outcome.clone());
        }
        let mut failed = None;
        for (run, outcomes) in by_run {
            for some in outcomes.chunks(BATCH) {
                let Err(error) = self.tell_some(run, some).await else { continue };
                if !error.is_of_statement() {
                    return Err(error);
                }
                // Others wait for this run as well, or what it is told is refused: outcomes of other runs can be told.
                failed = Some(error);
                break;
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if self.cluster.inner.journal.clear().is_ok() {
            self.recorded.clear();
        }
        Ok(())
    }

    /// Tells outcomes of a run.
    async fn tell_some(&mut self, run: i64, outcomes: &[Finished]) -> Result<(), StoreError> {
        let mut left = outcomes;
        while !left.is_empty() {
            match self.link.finish(run, left).await {
                Ok(count) => {
                    let (told, rest) = left.split_at(count.min(left.len()));
                    self.told(told);
                    left = rest;
                }
                Err(error) if error.is_of_statement() && !error.is_busy() => {
                    return self.tell_singly(run, left).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells outcomes one by one: one that the database refuses must not take the others with it.
    async fn tell_singly(&mut self, run: i64, outcomes: &[Finished]) -> Result<(), StoreError> {
        let mut failed = None;
        for outcome in outcomes {
            let mut made = self.link.finish(run, std::slice::from_ref(outcome)).await;
            if let Err(error) = &made
                && error.is_for_good()
                && let Some(rest) = self.take_out(outcome, error)
            {
                made = self.link.finish(run, &[rest]).await;
            }
            match made {
                Ok(_) => self.told(std::slice::from_ref(outcome)),
                Err(error) if error.is_of_statement() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes out of an outcome what the database refuses for good, and returns what is told in its place from now on; none if nothing
    /// was left to take out.
    fn take_out(&self, outcome: &Finished, error: &StoreError) -> Option<Finished> {
        let mut rest = outcome.clone();
        take_out(&mut rest.outcome, error);
        if rest.outcome == outcome.outcome {
            return None;
        }
        let (run, key) = (rest.run, &rest.key);
        let error = error as &dyn std::error::Error;
        tracing::error!(run, key, error, "the database refuses an outcome, which is told without its data");
        let mut finished = self.cluster.inner.finished.lock();
        finished.iter_mut().filter(|kept| mark(kept) == mark(&rest)).for_each(|kept| *kept = rest.clone());
        Some(rest)
    }

    fn told(&self, outcomes: &[Finished]) {
        let told: HashSet<_> = outcomes.iter().map(mark).collect();
        self.cluster.inner.finished.lock().retain(|outcome| !told.contains(&mark(outcome)));
        self.cluster.goes_on();
    }

    /// Writes down the outcomes that the database cannot be told now.
    async fn write_down(&mut self) {
        let outcomes = self.cluster.inner.finished.lock().clone();
        let new: Vec<_> =
            outcomes.into_iter().filter(|outcome| !self.recorded.contains(&mark(outcome))).collect();
        if new.is_empty() {
            return;
        }
        let marks: Vec<_> = new.iter().map(mark).collect();
        let cluster = self.cluster.clone();
        match tokio::task::spawn_blocking(move || cluster.inner.journal.record(&new)).await {
            Ok(Ok(())) => self.recorded.extend(marks),
            Ok(Err(error)) => {
                tracing::error!(%error, "outcomes are kept in memory only: the journal cannot be written");
            }
            // The runtime ends.
            Err(_) => {}
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
        // A planning that ended without a trace, or whose run this controller does not know, as an answer was lost. One that was
        // answered just now is not known for a moment, and so it takes two looks.
        let planned = self.link.planned_by(self.cluster.id()).await?;
        let of_nobody: HashSet<_> =
            planned.into_iter().filter(|run| !self.service.runs().is_active(*run)).collect();
        for run in of_nobody.intersection(&self.unplanned) {
            tracing::warn!(run, "a run whose planning was lost is forgotten");
            self.link.forget_planned(self.cluster.id(), *run).await?;
        }
        self.unplanned = of_nobody;
        Ok(())
    }

    /// Gives back the leases of hosts that belong to another controller and on which nothing is under way, or something that does
    /// not end: that goes on here, and the next owner does not wait for it.
    async fn give_back(&mut self, is_stopping: bool) -> Result<(), StoreError> {
        let inner = &self.cluster.inner;
        if is_stopping {
            inner.leases.lock().close_unless(clock::now(), |_| false);
        }
        let busy: HashSet<_> = inner.under_way.lock().values().map(|work| work.host.clone()).collect();
        let mut free: Vec<(String, i64)> = Vec::new();
        {
            let mut leases = inner.leases.lock();
            free.extend(
                leases
                    .closing(clock::now())
                    .filter(|(host, _, is_overdue)| *is_overdue || !busy.contains(*host))
                    .map(|(host, epoch, _)| (host.to_owned(), epoch)),
            );
            // Before it is not held any more: what is not held is aborted.
            for work in inner.under_way.lock().values_mut() {
                work.is_handed_over |=
                    free.iter().any(|(host, epoch)| (host, *epoch) == (&work.host, work.claim.epoch));
            }
            for (host, epoch) in &free {
                leases.give_back(host, *epoch);
            }
        }
        if !free.is_empty() {
            self.link.give_back(&inner.id, &free).await?;
        }
        Ok(())
    }

    /// Looks at a run until there is nothing more to do at once.
    async fn look_on(&mut self, run: (i64, i64), is_stopping: bool) -> Result<(), StoreError> {
        while self.look(run, is_stopping).await? {
            self.cluster.goes_on();
        }
        self.cluster.goes_on();
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
            settles_unknown: self.settles_unknown && !is_stopping && !inner.leases.lock().is_empty(),
            refused: prepared.as_ref().err(),
        };
        let looked = self.link.look(run, &look).await?;
        for started in looked.started {
            let now = clock::now();
            let may = inner.leases.lock().may_start(started.target.host.as_str(), now);
            match &prepared {
                Ok(prepared) if may == Some(started.claim.epoch) => {
                    carry_out(&self.cluster, &self.service, prepared, started, now.saturating_sub(asked));
                }
                _ => self.unsent.push((started.run, started.key, started.claim)),
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

    /// What is needed to work on a run, or why it cannot be worked on here; none if it has ended.
    async fn prepare(
        &mut self,
        run: i64,
        begun: i64,
    ) -> Result<Option<Result<Arc<Prepared>, OutcomeError>>, StoreError> {
        if let Some(prepared) = self.runs.get(&(run, begun)) {
            return Ok(Some(prepared.clone()));
        }
        let Some(shared) = self.link.shared(run).await? else { return Ok(None) };
        let SharedRun { request, placements, to_undo, .. } = shared;
        let selection = Selection::try_from(&request.targets).unwrap_or_default();
        let prepared = match Operation::prepare(request.operation).await {
            Ok(operation) => {
                let placements = placements.with_selection(selection);
                Ok(Arc::new(Prepared { operation, policy: request.policy, placements, to_undo }))
            }
            Err(error) => {
                tracing::error!(
                    run,
                    error = error.message,
                    "the operation of a run cannot be made ready: its targets here fail with that"
                );
                Err(error)
            }
        };
        self.runs.insert((run, begun), prepared.clone());
        Ok(Some(prepared))
    }
}
