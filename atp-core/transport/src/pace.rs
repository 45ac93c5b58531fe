//! A common pace for many: so many turns a second, evenly spaced.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::moment::Span;

/// Hands out turns. Waiting for one's own turn holds up nobody else's, and a turn is not held: whoever got it
/// may take as long as it likes.
pub(crate) struct Pace {
    spacing: Span,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        Pace { spacing: Span::new(spacing(per_second)), next: Mutex::new(None) }
    }

    /// Has turns follow at another pace from now on.
    pub(crate) fn set(&self, per_second: u32) {
        self.spacing.set(spacing(per_second));
    }

    /// Waits for the next turn. Cancel safe: a turn given up is lost, and takes nobody else's place.
    pub(crate) async fn turn(&self) {
        let at = {
            // Nothing under this lock can panic.
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.spacing.get());
            at
        };
        sleep_until(at).await;
    }
}

fn spacing(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_spaced_evenly_and_unused_ones_do_not_add_up() {
        let pace = Pace::new(10);
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(60)).await;
        let ready = start.elapsed();
        futures_util::future::join_all((0..11).map(|_| pace.turn())).await;
        assert_eq!((start.elapsed() - ready).as_secs(), 1);
    }
}
