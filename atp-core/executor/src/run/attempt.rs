//! One attempt at a target's work, and how its end is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atp_transport::{Effect, ErrorKind, HostId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::RunEvent;
use crate::completion::Completion;
use crate::error::OutcomeError;
use crate::outcome::{Data, Status};

/// What a target's work is told of the run around it.
#[derive(Debug, Clone)]
pub struct Attempt {
    deadline: Instant,
    sent: Arc<AtomicBool>,
    /// The mark of the attempt that this one is a part of.
    whole: Option<Arc<AtomicBool>>,
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

    /// An attempt at a part of the work, with a deadline of its own. What it sends it marks for itself and the whole.
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

    /// To be called before anything is sent that may change the target: from here on, work that is cut
    /// off leaves [`Effect::Unknown`] behind, before it [`Effect::None`].
    pub fn mark_sent(&self) {
        for sent in [Some(&self.sent), self.whole.as_ref()].into_iter().flatten() {
            sent.store(true, Ordering::Release);
        }
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

    /// What work comes to that is cut off now, for what `error` says.
    fn cut_off(&self, status: Status, error: OutcomeError) -> Completion {
        let SoFar { words, data } = self.so_far.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let message = match words {
            Some(words) => format!("{}; {words}", error.message),
            None => error.message,
        };
        let error = OutcomeError { message, ..error };
        Completion { data, ..Completion::failed(status, self.effect_if_cut_off(), error) }
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

    /// What work that is cut off now has done.
    pub(crate) fn effect_if_cut_off(&self) -> Effect {
        if self.sent.load(Ordering::Acquire) { Effect::Unknown } else { Effect::None }
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
                Err(error) => Completion::failed(Status::Failed, self.effect_if_cut_off(), panicked(error)),
            },
            () = abort.cancelled() => self.cut_off(
                Status::Cancelled,
                OutcomeError::new("aborted", "the run was aborted while this was under way").retryable(),
            ),
            () = self.given_up(grace) => self.cut_off(
                Status::Timeout,
                OutcomeError::new("deadline-passed", format!("not ended {grace:?} after its deadline; given up on"))
                    .with_hint("the layers below should have ended it in time: please report this")
                    .retryable(),
            ),
        };
        (completion, Instant::now())
    }
}

/// The error of work that panicked.
pub(super) fn panicked(error: tokio::task::JoinError) -> OutcomeError {
    OutcomeError::new(ErrorKind::Panicked.as_str(), format!("the work panicked: {}", panic_message(error)))
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
    use super::*;

    #[test]
    fn what_a_part_sends_the_whole_has_sent_and_no_other_part() {
        let (events, _run) = mpsc::channel(1);
        let teller = Teller { events, host: "h1".parse().unwrap(), vm: None };
        let whole = Attempt::new(Instant::now(), CancellationToken::new(), teller);
        let (first, second) = (whole.part(Instant::now()), whole.part(Instant::now()));
        assert_eq!(whole.effect_if_cut_off(), Effect::None);
        first.mark_sent();
        assert_eq!(
            [&whole, &first, &second].map(Attempt::effect_if_cut_off),
            [Effect::Unknown, Effect::Unknown, Effect::None]
        );
    }
}
