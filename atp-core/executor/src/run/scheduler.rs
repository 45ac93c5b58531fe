//! The scheduler: admits targets as the policy allows, and passes their outcomes on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use atp_api::{Outcome, OutcomeError, Policy, RunEvent, RunStart, RunStatistics, Status, StopReason, millis};
use atp_settings::LONGEST;
use atp_transport::{Effect, Unanswered};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{Attempt, TargetEvents, panicked};
use super::slots::Slots;
use super::stop::{Stop, journal_failed, not_started};
use super::waiting::Waiting;
use super::{RunSpec, Work};
use crate::journal::{JournalError, Recorder};
use crate::target::Target;
use crate::verbs::completion::Completion;

/// How long a record is waited for. A disk that takes longer hangs; a database that is away is given up much earlier.
const RECORDED_WITHIN: Duration = Duration::from_secs(60);

/// Runs until the outcome of every target, and the numbers of the run, are sent.
pub(super) async fn run(spec: RunSpec, stop: Stop, events: mpsc::Sender<RunEvent>, work: Work) {
    let RunSpec { op, targets, settled, done_before, policy, journal } = spec;
    let began = Instant::now();
    let start = RunStart {
        version: atp_api::VERSION,
        op: op.into(),
        targets: targets.len(),
        hosts: targets.iter().map(|target| &target.host).collect::<HashSet<_>>().len(),
        settled: settled.len(),
        done_before,
        policy: policy.clone(),
    };
    // Outcomes of an earlier run of the same journal have attempts, and were counted then.
    let failed_in_planning =
        settled.iter().filter(|outcome| outcome.attempts == 0 && is_failure(outcome.status)).count();
    let mut limits = Limits::new(&policy, targets.len(), failed_in_planning);
    let (mut waiting, mut slots) = (Waiting::new(targets, &policy), Slots::new(&policy));
    let context = Arc::new(RunContext { op, policy, stop, journal, events, work });
    context.emit(RunEvent::Begun(Box::new(start))).await;
    let mut statistics = RunStatistics::default();
    for outcome in settled {
        context.finished(outcome, &mut statistics).await;
    }
    if let Some(reason) = limits.reached() {
        context.stop.halt(reason);
    }

    let mut under_way = FuturesUnordered::new();
    loop {
        if under_way.is_empty() && waiting.is_batch_admitted() {
            waiting.open_batch();
        }
        while context.stop.reason().is_none()
            && slots.is_one_free(under_way.len(), limits.most_silent(waiting.is_canary()))
        {
            let Some(target) = waiting.next() else { break };
            under_way.push(context.admit(target, slots.take()));
        }
        if !waiting.is_empty()
            && let Some(reason) = context.stop.reason()
        {
            limits.announce_once(&context).await;
            for target in waiting.drain() {
                context.finished(context.skipped(target, &reason), &mut statistics).await;
            }
        }
        let count = under_way.len();
        tokio::select! {
            // In this order, so that the same run has the same events. A look is rare, and a stop is seen above in each turn.
            biased;
            () = slots.look(count), if !waiting.is_batch_admitted() => {}
            Some((target, outcome)) = under_way.next() => {
                waiting.ended(&target);
                if let Some(reason) = limits.count(outcome.status, waiting.is_canary()) {
                    context.stop.halt(reason);
                }
                if matches!(outcome.status, Status::Skipped | Status::Cancelled) {
                    limits.announce_once(&context).await;
                }
                context.finished(outcome, &mut statistics).await;
            }
            () = context.stop.asked(), if !waiting.is_empty() => {}
            else => break,
        }
    }
    if let Some(StopReason::JournalFailed { .. }) = context.stop.reason() {
        // Every target may have been started, and yet the journal lacks the last outcome.
        limits.announce_once(&context).await;
    }
    statistics.duration_ms = millis(began.elapsed());
    context.emit(RunEvent::Ended(Box::new(statistics))).await;
}

/// The limits of the policy, and how much of them is used up.
struct Limits {
    max_failures: Option<usize>,
    failures: usize,
    /// Whether the event that the run ends early was sent.
    announced: bool,
}

impl Limits {
    fn new(policy: &Policy, targets: usize, failed_in_planning: usize) -> Self {
        Limits {
            max_failures: policy.max_failures.map(|most| most.of(targets + failed_in_planning)),
            failures: failed_in_planning,
            announced: false,
        }
    }

    /// Counts an outcome. Returns the reason if no more targets may be started because of it.
    fn count(&mut self, status: Status, is_canary: bool) -> Option<StopReason> {
        if !is_failure(status) {
            return None;
        }
        self.failures += 1;
        if is_canary {
            return Some(StopReason::CanaryFailed);
        }
        self.reached()
    }

    /// Returns the reason if the maximum number of failures is reached.
    fn reached(&self) -> Option<StopReason> {
        self.max_failures
            .filter(|&most| self.failures >= most)
            .map(|_| StopReason::MaxFailures { failures: self.failures })
    }

    /// How many targets may have given up their slots: if all of them fail, the number of failures is still not reached.
    fn most_silent(&self, is_canary: bool) -> usize {
        match self.max_failures {
            _ if is_canary => 0,
            Some(most) => most.saturating_sub(self.failures + 1),
            None => usize::MAX,
        }
    }

    /// Sends the event that the run ends early, before the first outcome that it causes.
    async fn announce_once(&mut self, context: &RunContext) {
        if !self.announced
            && let Some(reason) = context.stop.reason()
        {
            self.announced = true;
            context.emit(RunEvent::Stopping(reason)).await;
        }
    }
}

fn is_failure(status: Status) -> bool {
    matches!(status, Status::Failed | Status::Timeout | Status::Unreachable)
}

/// What the scheduler and the tasks of all targets share.
struct RunContext {
    op: &'static str,
    policy: Policy,
    stop: Stop,
    journal: Option<Arc<dyn Recorder>>,
    events: mpsc::Sender<RunEvent>,
    work: Work,
}

impl RunContext {
    /// Sends an event. A dropped reader has aborted the run, so that a failure to send does not matter.
    async fn emit(&self, event: RunEvent) {
        let _ = self.events.send(event).await;
    }

    /// Counts an outcome and sends it.
    async fn finished(&self, outcome: Outcome, statistics: &mut RunStatistics) {
        statistics.add(&outcome);
        self.emit(RunEvent::Finished(Box::new(outcome))).await;
    }

    fn skipped(&self, target: Target, reason: &StopReason) -> Outcome {
        Completion::failed(Status::Skipped, Effect::None, not_started(reason)).into_outcome(
            target,
            self.op,
            0,
            Duration::ZERO,
        )
    }

    /// Records an outcome in the journal, if there is one and the target is in it. If that fails the run ends early, and
    /// the outcome is sent all the same.
    async fn note_finished(&self, outcome: &Outcome) {
        let Some(journal) = &self.journal else { return };
        // A disk that hangs does not delay an abort, or the end of the time for the run.
        let given_up = async {
            tokio::select! {
                () = self.stop.abort().cancelled() => {}
                () = self.stop.out_of_time() => {}
                () = sleep(RECORDED_WITHIN) => {}
            }
            sleep(self.policy.grace).await;
        };
        tokio::select! {
            biased;
            noted = journal.finished(outcome) => if let Err(error) = noted {
                self.stop.halt(journal_failed(&error));
            },
            () = given_up => self.stop.halt(journal_failed(&JournalError::hangs())),
        }
    }

    /// Starts the task that carries out a target, which holds its slot.
    fn admit(
        self: &Arc<Self>,
        target: Target,
        slot: Arc<Unanswered>,
    ) -> impl Future<Output = (Target, Outcome)> + use<> {
        let (context, op, given) = (Arc::clone(self), self.op, target.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move { context.carry_out(given, &slot).await }));
        async move {
            let outcome = task.await.unwrap_or_else(|error| {
                // The caller's work runs in a task of its own, so that it is not what panicked here.
                Completion::failed(Status::Failed, Effect::Unknown, panicked(error)).into_outcome(
                    target.clone(),
                    op,
                    1,
                    Duration::ZERO,
                )
            });
            (target, outcome)
        }
    }

    async fn carry_out(self: Arc<Self>, target: Target, calls: &Unanswered) -> Outcome {
        // Reserve room for the event first: a slow reader delays targets that have not started, and nothing else.
        let room = match self.events.try_reserve() {
            // The common case, without the futures of a wait.
            Ok(room) if self.stop.reason().is_none() => Some(room),
            _ => tokio::select! {
                biased;
                () = self.stop.asked() => None,
                room = self.events.reserve() => room.ok(),
            },
        };
        let Some(room) = room else {
            return self.skipped(target, &self.stop.reason().unwrap_or(StopReason::Aborted));
        };
        if let Some(journal) = &self.journal {
            let given_up = async {
                self.stop.asked().await;
                tokio::select! {
                    () = self.stop.abort().cancelled() => {}
                    () = sleep(self.policy.grace) => {}
                }
            };
            let noted = tokio::select! {
                biased;
                noted = journal.started(&target) => noted,
                // Whether it was recorded is not known. A resume counts it as started.
                () = given_up => return self.skipped(target, &self.stop.reason().unwrap_or(StopReason::Aborted)),
                () = sleep(RECORDED_WITHIN) => Err(JournalError::hangs()),
            };
            if let Err(error) = noted {
                let reason = journal_failed(&error);
                self.stop.halt(reason.clone());
                return self.skipped(target, &reason);
            }
        }
        // No await between this check and the start.
        if let Some(reason) = self.stop.reason() {
            let outcome = self.skipped(target, &reason);
            self.note_finished(&outcome).await;
            return outcome;
        }
        room.send(RunEvent::Started { host: target.host.clone(), vm: target.vm().map(str::to_owned) });
        let started = Instant::now();
        let (completion, attempts, ended) = self.attempts(&target, calls, started).await;
        let outcome = completion.into_outcome(target, self.op, attempts, ended - started);
        self.note_finished(&outcome).await;
        outcome
    }

    /// Repeats the work as long as that is needed and allowed.
    async fn attempts(
        &self,
        target: &Target,
        calls: &Unanswered,
        started: Instant,
    ) -> (Completion, u32, Instant) {
        let own = started + self.policy.timeout.min(LONGEST);
        let deadline = self.stop.deadline().map_or(own, |of_run| of_run.min(own));
        let mut pause = self.policy.retry_initial;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (completion, ended) = self.attempt(target, calls, deadline).await;
            if attempts > self.policy.retries || !completion.may_repeat() || ended + pause >= deadline {
                if deadline < own && completion.status == Status::Timeout {
                    // Work ends shortly before or after its deadline. Either way the deadline of the run counts as passed.
                    self.stop.halt(StopReason::DeadlinePassed);
                    return (cut_short(completion), attempts, ended);
                }
                return (completion, attempts, ended);
            }
            tokio::select! {
                biased;
                () = self.stop.asked() => return (completion, attempts, ended),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(self.policy.retry_max);
        }
    }

    async fn attempt(&self, target: &Target, calls: &Unanswered, deadline: Instant) -> (Completion, Instant) {
        let (host, vm) = (target.host.clone(), target.vm().map(str::to_owned));
        let target_events = TargetEvents { events: self.events.clone(), host, vm };
        let attempt = Attempt::new(deadline, self.stop.requested().clone(), calls.clone(), target_events);
        let (work, given, handle) = (Arc::clone(&self.work), target.clone(), attempt.clone());
        // A task of its own contains a panic. It has no part of the run: work that blocks its thread cannot be ended, and a
        // sender of events in it would keep the reader waiting for more.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let completion = work(given, handle).await;
            (completion, Instant::now())
        }));
        attempt.finish(task, self.policy.grace, self.stop.abort()).await
    }
}

/// Turns the timeout of a target that ran into the deadline of the whole run into a cancellation.
fn cut_short(completion: Completion) -> Completion {
    let mut error = OutcomeError::new(
        StopReason::DeadlinePassed.kind(),
        "stopped: the time for the whole run was used up while this was under way",
    )
    .retryable();
    error.causes =
        completion.error.into_iter().flat_map(|error| [vec![error.message], error.causes].concat()).collect();
    Completion { status: Status::Cancelled, error: Some(error), ..completion }
}
