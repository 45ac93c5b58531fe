//! The scheduler: work on many targets at once, and exactly one outcome for each.
//!
//! ```text
//! waiting ──admitted──► under way ──work ended──────────────► its completion
//!    │                     │ ├──────work panicked───────────► failed, panicked
//!    │                     │ ├──────deadline + grace passed──► timeout
//!    │                     │ └──────abort──────────────────► cancelled
//!    └──────────stop or abort──────────────────────────────► skipped
//! ```
//!
//! That there is one outcome for each target follows from the shape: a target is moved out of [`Waiting`] once,
//! either into the future that supervises it or into its `skipped` outcome, and the supervising future
//! owns it and returns one [`Outcome`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use atp_transport::{Effect, ErrorKind, HostId};
use futures_util::StreamExt as _;
use futures_util::stream::{FuturesUnordered, Stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::completion::Completion;
use crate::error::OutcomeError;
use crate::outcome::{Outcome, Status};
use crate::plan::Target;
use crate::policy::Policy;

/// How a run is ended early. The default never does.
#[derive(Debug, Clone, Default)]
pub struct RunControl {
    /// Start no more targets; those under way go on. Targets that wait become `skipped`.
    pub stop: CancellationToken,
    /// Give up at once, as by [`stop`](Self::stop), and targets under way become `cancelled`.
    pub abort: CancellationToken,
}

/// What happens in a run, in the order in which it happens.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A target was admitted; its deadline runs.
    Started {
        /// The host.
        host: HostId,
        /// The VM's name, unless the host is the target.
        vm: Option<String>,
    },
    /// A target has its outcome. Targets that never started have no `Started` before.
    Finished(Box<Outcome>),
}

/// A run under way: its events, to be read until there are no more.
///
/// The run goes on by itself between two reads, until a handful of events wait to be read: then no more
/// targets are started. Dropping it aborts the run.
#[derive(Debug)]
pub struct Run {
    // Dropped first: the run is aborted before it finds its reader gone.
    _abort_on_drop: DropGuard,
    events: mpsc::Receiver<RunEvent>,
}

impl Run {
    /// The next event; none when every target has finished.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<RunEvent> {
        self.events.recv().await
    }

    /// Waits for the end and returns all outcomes, by host and VM.
    ///
    /// Not cancel safe: dropping the future aborts the run.
    pub async fn outcomes(mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some(event) = self.next().await {
            if let RunEvent::Finished(outcome) = event {
                outcomes.push(*outcome);
            }
        }
        outcomes.sort_by(Outcome::report_order);
        outcomes
    }
}

impl Stream for Run {
    type Item = RunEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        self.events.poll_recv(cx)
    }
}

/// What a target's work is told of the run around it.
#[derive(Debug, Clone)]
pub struct Attempt {
    deadline: Instant,
    sent: Arc<AtomicBool>,
}

impl Attempt {
    fn new(deadline: Instant) -> Self {
        Attempt { deadline, sent: Arc::default() }
    }

    /// When the work has to have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// To be called before anything is sent that may change the target: from here on, work that is cut
    /// off leaves [`Effect::Unknown`] behind, before it [`Effect::None`].
    pub fn mark_sent(&self) {
        self.sent.store(true, Ordering::Release);
    }

    fn effect_if_cut_off(&self) -> Effect {
        if self.sent.load(Ordering::Acquire) { Effect::Unknown } else { Effect::None }
    }
}

/// Runs `work` on every target, at most [`Policy::parallel`] at once, taking hosts in turn.
///
/// `settled` outcomes come first among the events. `op` names the operation in the outcomes. The work of a
/// target is to end by its [`Attempt::deadline`]; if it has not [`Policy::grace`] later, it is dropped and the
/// outcome says so. A panic of the work is contained in its outcome.
///
/// Must be called within a tokio runtime.
pub fn run_targets<W, F>(
    op: &'static str,
    targets: Vec<Target>,
    settled: Vec<Outcome>,
    policy: &Policy,
    control: &RunControl,
    work: W,
) -> Run
where
    W: Fn(Target, Attempt) -> F + Send + Sync + 'static,
    F: Future<Output = Completion> + Send + 'static,
{
    let parallel = policy.parallel.max(1);
    let (sender, events) = mpsc::channel(parallel);
    let abort = control.abort.child_token();
    let scheduler = Scheduler {
        op,
        parallel,
        timeout: policy.timeout,
        grace: policy.grace,
        stop: control.stop.clone(),
        abort: abort.clone(),
        events: sender,
        work: Arc::new(work),
    };
    tokio::spawn(scheduler.run(Waiting::new(targets), settled));
    Run { _abort_on_drop: abort.drop_guard(), events }
}

struct Scheduler<W> {
    op: &'static str,
    parallel: usize,
    timeout: Duration,
    grace: Duration,
    stop: CancellationToken,
    abort: CancellationToken,
    events: mpsc::Sender<RunEvent>,
    work: Arc<W>,
}

impl<W, F> Scheduler<W>
where
    W: Fn(Target, Attempt) -> F + Send + Sync + 'static,
    F: Future<Output = Completion> + Send + 'static,
{
    async fn run(self, mut waiting: Waiting, settled: Vec<Outcome>) {
        for outcome in settled {
            self.emit(RunEvent::Finished(Box::new(outcome))).await;
        }
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.parallel && !waiting.is_empty() {
                // Room for the event first: nothing lies between looking whether to stop and starting.
                let Ok(room) = self.events.reserve().await else { break };
                if self.is_stopping() {
                    break;
                }
                let Some(target) = waiting.next() else { break };
                room.send(RunEvent::Started {
                    host: target.host.clone(),
                    vm: target.vm().map(str::to_owned),
                });
                under_way.push(self.admit(target));
            }
            if self.is_stopping() {
                while let Some(target) = waiting.next() {
                    self.emit(RunEvent::Finished(Box::new(self.skipped(target)))).await;
                }
            }
            tokio::select! {
                Some(outcome) = under_way.next() => self.emit(RunEvent::Finished(Box::new(outcome))).await,
                () = self.stopping(), if !waiting.is_empty() => {}
                else => break,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.is_cancelled() || self.abort.is_cancelled()
    }

    async fn stopping(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.abort.cancelled() => {}
        }
    }

    /// A reader that is gone has aborted the run by going: there is nobody left to tell.
    async fn emit(&self, event: RunEvent) {
        let _ = self.events.send(event).await;
    }

    /// Starts a target's work; the future is its supervision.
    fn admit(&self, target: Target) -> impl Future<Output = Outcome> + use<W, F> {
        let started = Instant::now();
        let attempt = Attempt::new(started + self.timeout);
        let (work, given, told) = (Arc::clone(&self.work), target.clone(), attempt.clone());
        // A task of its own: it panics alone, and runs on while the scheduler waits for a slow reader.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let completion = work(given, told).await;
            (completion, Instant::now())
        }));
        let (op, grace, abort) = (self.op, self.grace, self.abort.clone());
        async move {
            let (completion, ended) = supervise(task, &attempt, grace, &abort).await;
            completion.into_outcome(target, op, 1, ended - started)
        }
    }

    fn skipped(&self, target: Target) -> Outcome {
        Completion::failed(
            Status::Skipped,
            Effect::None,
            OutcomeError::new("stopped", "not started: the run was stopped before").retryable(),
        )
        .into_outcome(target, self.op, 0, Duration::ZERO)
    }
}

/// Waits for a target's work to end, in whatever way, and says when it did.
async fn supervise(
    mut task: AbortOnDropHandle<(Completion, Instant)>,
    attempt: &Attempt,
    grace: Duration,
    abort: &CancellationToken,
) -> (Completion, Instant) {
    let completion = tokio::select! {
        // Work that has ended counts as ended, whatever else happened meanwhile.
        biased;
        joined = &mut task => match joined {
            Ok(ended) => return ended,
            Err(error) => Completion::failed(
                Status::Failed,
                attempt.effect_if_cut_off(),
                OutcomeError::new(ErrorKind::Panicked.as_str(), format!("the work panicked: {}", panic_message(error)))
                    .with_hint("this is a bug in atp, or in the code that was run on the target: please report it"),
            ),
        },
        () = abort.cancelled() => Completion::failed(
            Status::Cancelled,
            attempt.effect_if_cut_off(),
            OutcomeError::new("aborted", "the run was aborted while this was under way").retryable(),
        ),
        () = tokio::time::sleep_until(attempt.deadline + grace) => Completion::failed(
            Status::Timeout,
            attempt.effect_if_cut_off(),
            OutcomeError::new("deadline-passed", format!("not ended {grace:?} after its deadline; given up on"))
                .with_hint("the layers below should have ended it in time: please report this")
                .retryable(),
        ),
    };
    (completion, Instant::now())
}

fn panic_message(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "its task was ended from outside".to_owned() };
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "no message".to_owned(),
    }
}

/// Targets that wait to be admitted. Hosts take turns, so that one with many targets does not fill the window.
struct Waiting {
    /// No queue is empty.
    hosts: VecDeque<VecDeque<Target>>,
}

impl Waiting {
    fn new(targets: Vec<Target>) -> Self {
        let mut by_host = std::collections::BTreeMap::<HostId, VecDeque<Target>>::new();
        for target in targets {
            by_host.entry(target.host.clone()).or_default().push_back(target);
        }
        Waiting { hosts: by_host.into_values().collect() }
    }

    fn next(&mut self) -> Option<Target> {
        let mut queue = self.hosts.pop_front()?;
        let target = queue.pop_front();
        if !queue.is_empty() {
            self.hosts.push_back(queue);
        }
        target
    }

    fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

/// Whole milliseconds, for outcomes.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
