//! One attempt at a target's work, and how its end is waited for.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use atp_transport::{Effect, ErrorKind, HostId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::RunEvent;
use crate::error::OutcomeError;
use crate::outcome::Status;
use crate::verbs::Data;
use crate::verbs::completion::Completion;

/// What a target's work is told of the run around it.
#[derive(Debug, Clone)]
pub struct Attempt {
    deadline: Instant,
    /// Whether anything was sent that may change the target. Decided once, by what comes first: true by the work when it
    /// is about to send, false by the supervisor when it gives up on the work, which then sends nothing more.
    sent: Arc<OnceLock<bool>>,
    /// The same of the attempt that this one is a part of.
    whole: Option<Arc<OnceLock<bool>>>,
    stop: CancellationToken,
    /// None when the attempt is over: nothing is told of a target after its outcome.
    teller: Arc<Mutex<Option<Teller>>>,
    so_far: Arc<Mutex<SoFar>>,
}

/// What is told of work that is cut off, besides that it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct SoFar {
    /// How far it was and what is left behind, in words.
    pub(crate) words: Option<String>,
    /// What it had yielded.
    pub(crate) data: Option<Data>,
}

/// Where the run's events go, and of which target they tell.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) events: mpsc::Sender<RunEvent>,
    pub(super) host: HostId,
    pub(super) vm: Option<String>,
}

impl Attempt {
    pub(super) fn new(deadline: Instant, stop: CancellationToken, teller: Teller) -> Self {
        Attempt {
            deadline,
            sent: Arc::default(),
            whole: None,
            stop,
            teller: Arc::new(Mutex::new(Some(teller))),
            so_far: Arc::default(),
        }
    }

    /// An attempt at a part of the work, with a deadline of its own. What it sends it marks for itself and the whole. A
    /// part that is cut off keeps no other part from sending; the whole, when it is cut off, keeps all.
    pub(crate) fn part(&self, deadline: Instant) -> Self {
        Attempt {
            deadline,
            sent: Arc::default(),
            whole: Some(Arc::clone(&self.sent)),
            stop: self.stop.clone(),
            teller: Arc::clone(&self.teller),
            so_far: Arc::default(),
        }
    }

    /// Whether the run was asked to stop. Work that goes through several stages is to end with the one it is in.
    pub fn is_stop_requested(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// When the work has to have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// To be awaited before anything is sent that may change the target: from here on, work that is cut
    /// off leaves [`Effect::Unknown`] behind, before it [`Effect::None`].
    ///
    /// Never returns if the work was cut off before: its outcome says that nothing was sent, while its task may still
    /// run until it waits for something.
    pub async fn mark_sent(&self) {
        // The part before the whole: a part that was cut off has sent nothing, and leaves the whole as it is.
        for sent in [Some(&self.sent), self.whole.as_ref()].into_iter().flatten() {
            if !sent.get_or_init(|| true) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the work has come past [`mark_sent`](Self::mark_sent).
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.get() == Some(&true)
    }

    /// Tells how far the work is, in bytes. Never waits: it is left out where the events are not read fast enough, so
    /// that there is always room for those that matter.
    pub fn progress(&self, done: u64, total: u64) {
        if let Some(Teller { events, host, vm }) = &*self.teller()
            && events.capacity() * 2 > events.max_capacity()
        {
            let _ = events.try_send(RunEvent::Progress { host: host.clone(), vm: vm.clone(), done, total });
        }
    }

    /// Says what is to be told if the work is cut off from here on.
    pub(crate) fn if_cut_off(&self, so_far: SoFar) {
        *self.so_far.lock().unwrap_or_else(PoisonError::into_inner) = so_far;
    }

    /// What work comes to that is cut off now, for what `error` says. It sends nothing from here on.
    pub(crate) fn cut_off(&self, status: Status, error: OutcomeError) -> Completion {
        let SoFar { words, data } = self.so_far.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let message = match words {
            Some(words) => format!("{}; {words}", error.message),
            None => error.message,
        };
        let error = OutcomeError { message, ..error };
        Completion { data, ..Completion::failed(status, self.end_sending(), error) }
    }

    fn teller(&self) -> MutexGuard<'_, Option<Teller>> {
        // Nothing under this lock can panic half-way.
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the run is asked to stop.
    pub(crate) async fn stop_requested(&self) {
        self.stop.cancelled().await;
    }

    /// Returns so long after the deadline, counted from when it is seen to have passed: after a standstill of the whole
    /// machine, work that is to end by the deadline is due as well, and gets its turn to say so.
    async fn given_up(&self, grace: Duration) {
        sleep_until(self.deadline).await;
        sleep(grace).await;
    }

    /// Keeps work that has sent nothing yet from doing so; what it has done until now.
    fn end_sending(&self) -> Effect {
        if *self.sent.get_or_init(|| false) { Effect::Unknown } else { Effect::None }
    }

    /// Waits for the work to end, in whatever way, and says when it did. Nothing is told of it afterwards.
    pub(super) async fn last(
        &self,
        work: AbortOnDropHandle<(Completion, Instant)>,
        grace: Duration,
        abort: &CancellationToken,
    ) -> (Completion, Instant) {
        let ended = self.supervise(work, grace, abort).await;
        self.teller().take();
        ended
    }

    /// Waits for the work, or a part of it, to end, in whatever way, and says when it did.
    pub(crate) async fn supervise(
        &self,
        mut work: AbortOnDropHandle<(Completion, Instant)>,
        grace: Duration,
        abort: &CancellationToken,
    ) -> (Completion, Instant) {
        let completion = tokio::select! {
            // Work that has ended counts as ended, whatever else happened meanwhile.
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
                OutcomeError::new(ErrorKind::DeadlinePassed, format!("not ended {grace:?} after its deadline; given up on"))
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
    let Ok(payload) = error.try_into_panic() else { return "its task was ended from outside".to_owned() };
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
        let teller = Teller { events, host: "h1".parse().unwrap(), vm: None };
        Attempt::new(Instant::now(), CancellationToken::new(), teller)
    }

    /// Whether the work goes ahead and sends.
    fn sends(attempt: &Attempt) -> bool {
        attempt.mark_sent().now_or_never().is_some()
    }

    #[test]
    fn what_a_part_sends_the_whole_has_sent_and_no_other_part() {
        let whole = attempt();
        let (first, second) = (whole.part(Instant::now()), whole.part(Instant::now()));
        assert!(sends(&first));
        assert_eq!(
            [&whole, &first, &second].map(Attempt::end_sending),
            [Effect::Unknown, Effect::Unknown, Effect::None]
        );
    }

    #[test]
    fn a_part_that_is_cut_off_sends_nothing_and_the_next_does() {
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
    fn work_sends_if_and_only_if_the_effect_is_unknown_however_close_the_two_are() {
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
