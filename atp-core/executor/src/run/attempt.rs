//! One attempt at a target's work, and the supervisor that waits for its end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atp_api::{Data, OutcomeError, RunEvent, Status};
use atp_transport::{Effect, ErrorKind, HostId, Unanswered};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::verbs::completion::Completion;

/// One attempt at a target: its deadline, its mark, and its way to report progress.
#[derive(Debug, Clone)]
pub struct Attempt {
    deadline: Instant,
    /// The mark: whether anything was sent that may change the target. Set once, by whichever comes first: to true by the
    /// work when it is about to send, to false by the supervisor when it gives up on the work, which then sends nothing.
    sent: Arc<OnceLock<bool>>,
    /// The mark of the attempt that this one is a part of.
    whole: Option<Arc<OnceLock<bool>>>,
    stop: CancellationToken,
    /// The calls of the target.
    unanswered: Unanswered,
    /// None when the attempt is over: no events of a target follow its outcome.
    target_events: Arc<Mutex<Option<TargetEvents>>>,
    partial: Arc<Mutex<PartialResult>>,
}

/// What is reported of work that is cut off, besides the reason.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartialResult {
    /// Its progress and what is left behind, in words.
    pub(crate) words: Option<String>,
    /// What it had yielded.
    pub(crate) data: Option<Data>,
}

/// The sender of a target's events.
#[derive(Debug)]
pub(super) struct TargetEvents {
    pub(super) events: mpsc::Sender<RunEvent>,
    pub(super) host: HostId,
    pub(super) vm: Option<String>,
}

impl Attempt {
    pub(super) fn new(
        deadline: Instant,
        stop: CancellationToken,
        unanswered: Unanswered,
        target_events: TargetEvents,
    ) -> Self {
        Attempt {
            deadline,
            sent: Arc::default(),
            whole: None,
            stop,
            unanswered,
            target_events: Arc::new(Mutex::new(Some(target_events))),
            partial: Arc::default(),
        }
    }

    /// Makes the attempt at a part of the work, with its own deadline. Sending sets the marks of the part and of the whole.
    /// Cutting off a part does not keep other parts from sending; cutting off the whole does.
    pub(crate) fn part(&self, deadline: Instant) -> Self {
        Attempt {
            deadline,
            sent: Arc::default(),
            whole: Some(Arc::clone(&self.sent)),
            stop: self.stop.clone(),
            unanswered: self.unanswered.clone(),
            target_events: Arc::clone(&self.target_events),
            partial: Arc::default(),
        }
    }

    /// Whether the run was asked to stop. Work with several stages should end after its current one.
    pub fn is_stop_requested(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The time by which the work must have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Calls of the work that were sent and not answered: work whose calls count here gives up its slot to other targets while
    /// it waits for an answer for longer than [`Policy::answer_patience`](atp_api::Policy::answer_patience).
    pub fn unanswered(&self) -> &Unanswered {
        &self.unanswered
    }

    /// Marks the work as sent. Await this before sending anything that may change the target: work that is cut off before
    /// it has the effect [`Effect::None`], after it [`Effect::Unknown`].
    ///
    /// Never returns if the work was cut off before: its outcome says that nothing was sent, while its task may still
    /// run until its next await.
    pub async fn mark_sent(&self) {
        // The part's mark first: a part that was cut off has sent nothing and must not set the mark of the whole.
        for sent in [Some(&self.sent), self.whole.as_ref()].into_iter().flatten() {
            if !sent.get_or_init(|| true) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reports a line of the VM's console. Waits until events are read, at most until `by`: then the line is dropped.
    pub(crate) async fn console_line(&self, vm: &str, line: String, by: Instant) {
        let sender =
            self.target_events.lock().as_ref().map(|target| (target.events.clone(), target.host.clone()));
        if let Some((events, host)) = sender {
            let event = RunEvent::Console { host, vm: vm.to_owned(), line };
            // An error means that the time is over, or that the reader of the events has left.
            let _unread = tokio::time::timeout_at(by, events.send(event)).await;
        }
    }

    /// Whether the work was [marked](Self::mark_sent) as sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.get() == Some(&true)
    }

    /// Reports progress in bytes. Never waits: progress is dropped if events are not read fast enough, so that there is
    /// always room for the events that matter.
    pub fn progress(&self, done: u64, total: u64) {
        if let Some(TargetEvents { events, host, vm }) = &*self.target_events.lock()
            && events.capacity() * 2 > events.max_capacity()
        {
            let _ = events.try_send(RunEvent::Progress { host: host.clone(), vm: vm.clone(), done, total });
        }
    }

    /// Sets what is reported if the work is cut off from here on.
    pub(crate) fn if_cut_off(&self, partial: PartialResult) {
        *self.partial.lock() = partial;
    }

    /// Cuts the work off and returns its completion, with the reason in `error`. It sends nothing from here on.
    pub(crate) fn cut_off(&self, status: Status, error: OutcomeError) -> Completion {
        let PartialResult { words, data } = self.partial.lock().clone();
        let message = match words {
            Some(words) => format!("{}; {words}", error.message),
            None => error.message,
        };
        let error = OutcomeError { message, ..error };
        Completion { data, ..Completion::failed(status, self.end_sending(), error) }
    }

    /// Returns when the run is asked to stop.
    pub(crate) async fn stop_requested(&self) {
        self.stop.cancelled().await;
    }

    /// Returns when the grace period after the deadline is over. It is counted from when the deadline is seen to have
    /// passed: after the whole machine was suspended, work that ends by the deadline gets its turn to report that.
    async fn given_up(&self, grace: Duration) {
        sleep_until(self.deadline).await;
        sleep(grace).await;
    }

    /// Keeps work that has sent nothing from sending, and returns its effect until now.
    fn end_sending(&self) -> Effect {
        if *self.sent.get_or_init(|| false) { Effect::Unknown } else { Effect::None }
    }

    /// Waits for the work to end in any way, and returns when it did. It sends no events afterwards.
    pub(super) async fn finish(
        &self,
        work: AbortOnDropHandle<(Completion, Instant)>,
        grace: Duration,
        abort: &CancellationToken,
    ) -> (Completion, Instant) {
        let ended = self.supervise(work, grace, abort).await;
        self.target_events.lock().take();
        ended
    }

    /// Waits for the work, or a part of it, to end in any way, and returns when it did.
    pub(crate) async fn supervise(
        &self,
        mut work: AbortOnDropHandle<(Completion, Instant)>,
        grace: Duration,
        abort: &CancellationToken,
    ) -> (Completion, Instant) {
        let completion = tokio::select! {
            // Work that has ended counts as ended, even if it was aborted or its time passed meanwhile.
            biased;
            joined = &mut work => match joined {
                Ok(ended) => return ended,
                Err(error) => Completion::failed(Status::Failed, self.end_sending(), panicked(error)),
            },
            () = abort.cancelled() => self.cut_off(
                Status::Cancelled,
                OutcomeError::new(ErrorKind::Aborted, "the run was aborted while this was under way").retryable(),
            ),
            () = self.given_up(grace) => self.cut_off(
                Status::Timeout,
                OutcomeError::new(ErrorKind::DeadlinePassed, format!("not ended {grace:?} after its deadline; abandoned"))
                    .with_hint("the layers below should have ended it in time: please report this")
                    .retryable(),
            ),
        };
        (completion, Instant::now())
    }
}

/// The error of work that panicked.
pub(super) fn panicked(error: tokio::task::JoinError) -> OutcomeError {
    OutcomeError::new(ErrorKind::Panicked, format!("the work panicked: {}", panic_message(error)))
        .with_hint("this is a bug in atp, or in the code that was run on the target: please report it")
}

fn panic_message(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "its task was aborted".to_owned() };
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "no message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use futures_util::FutureExt as _;

    use super::*;

    fn attempt() -> Attempt {
        let (events, _run) = mpsc::channel(1);
        let target_events = TargetEvents { events, host: "h1".parse().unwrap(), vm: None };
        Attempt::new(Instant::now(), CancellationToken::new(), Unanswered::default(), target_events)
    }

    /// Whether the work may send.
    fn sends(attempt: &Attempt) -> bool {
        attempt.mark_sent().now_or_never().is_some()
    }

    #[test]
    fn a_part_that_sends_marks_the_whole_and_no_other_part() {
        let whole = attempt();
        let (first, second) = (whole.part(Instant::now()), whole.part(Instant::now()));
        assert!(sends(&first));
        assert_eq!(
            [&whole, &first, &second].map(Attempt::end_sending),
            [Effect::Unknown, Effect::Unknown, Effect::None]
        );
    }

    #[test]
    fn a_part_that_is_cut_off_sends_nothing_and_the_next_part_may() {
        let whole = attempt();
        let (first, second) = (whole.part(Instant::now()), whole.part(Instant::now()));
        assert_eq!(first.end_sending(), Effect::None);
        assert!(!sends(&first));
        assert_eq!(whole.sent.get(), None, "the whole has sent nothing, and may");
        assert!(sends(&second));
        assert_eq!(whole.end_sending(), Effect::Unknown);
    }

    #[test]
    fn no_part_of_a_whole_that_is_cut_off_sends_anything() {
        let whole = attempt();
        let part = whole.part(Instant::now());
        assert_eq!(whole.end_sending(), Effect::None);
        assert!(!sends(&part) && !sends(&whole.part(Instant::now())));
    }

    #[test]
    fn work_sends_exactly_if_the_effect_is_unknown_under_any_race() {
        const ROUNDS: usize = 4_000;
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|round| {
                let whole = attempt();
                let part = whole.part(Instant::now());
                // The part works; either is cut off.
                let cut_off = if round % 2 == 0 { whole } else { part.clone() };
                (part, cut_off)
            })
            .collect();
        let begin = Barrier::new(2);
        let (sent, effects) = thread::scope(|scope| {
            let work = scope.spawn(|| -> Vec<_> {
                let sends = |(part, _): &(Attempt, Attempt)| {
                    begin.wait();
                    sends(part)
                };
                rounds.iter().map(sends).collect()
            });
            let ends = |(_, cut_off): &(Attempt, Attempt)| {
                begin.wait();
                cut_off.end_sending()
            };
            let effects: Vec<_> = rounds.iter().map(ends).collect();
            (work.join().unwrap(), effects)
        });
        for (round, (sent, effect)) in sent.into_iter().zip(effects).enumerate() {
            assert_eq!(sent, effect == Effect::Unknown, "round {round}");
        }
    }
}
