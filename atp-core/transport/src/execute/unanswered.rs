//! Since when work waits for the answer to a call.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Since when some work waits for the answer to a call that was sent. Given with
/// [`ExecuteOptions::watched_by`](super::ExecuteOptions::watched_by), it shows a program which of its work makes no progress.
///
/// Time in which a call waits for its turn does not count: it waits for other work. Clones are handles to the same value.
#[derive(Debug, Clone, Default)]
pub struct Unanswered(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Calls that were sent and not answered.
    calls: usize,
    /// When the first of them was sent, or the last answer came, whichever is later. None without calls.
    since: Option<Instant>,
}

/// A call without an answer, until it is dropped.
#[derive(Debug)]
pub struct UnansweredCall(Unanswered);

impl Unanswered {
    /// Counts a call as sent. Its answer is when what this returns is dropped.
    #[must_use]
    pub fn sent(&self) -> UnansweredCall {
        let mut state = self.0.lock();
        state.calls += 1;
        state.since.get_or_insert_with(Instant::now);
        UnansweredCall(self.clone())
    }

    /// How long calls have been under way without any answer; zero without calls.
    pub fn for_time(&self) -> Duration {
        self.0.lock().since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for UnansweredCall {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.calls -= 1;
        state.since = (state.calls > 0).then(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_one_of_several_calls_is_progress() {
        let (second, unanswered) = (Duration::from_secs(1), Unanswered::default());
        advance(second).await;
        assert_eq!(unanswered.for_time(), Duration::ZERO);
        let first = unanswered.sent();
        advance(second).await;
        let other = unanswered.sent();
        advance(second).await;
        assert_eq!(unanswered.for_time(), 2 * second);
        drop(first);
        advance(second).await;
        assert_eq!(unanswered.for_time(), second);
        drop(other);
        advance(second).await;
        assert_eq!(unanswered.for_time(), Duration::ZERO);
    }
}
