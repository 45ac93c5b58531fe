//! A rate limiter: so many turns a second, with or without a burst after a quiet time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::sync::atomic_time::AtomicDuration;

/// Hands out turns. Waiting for a turn delays no other caller, and a turn is not held: what is done in it may take any
/// time.
///
/// It is a token bucket, kept as the time at which it will be full again (the generic cell rate algorithm).
pub(crate) struct RateLimiter {
    /// Between two turns; nothing for no limit.
    spacing: AtomicDuration,
    /// Turns that can be had at once after a quiet time.
    burst: AtomicU32,
    /// When all turns that were handed out will have been made up for.
    full_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// A limit of `per_second` turns a second, of which `burst` may be taken at once; 0 for no limit.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        let (spacing, burst) = (AtomicDuration::new(spacing(per_second)), AtomicU32::new(burst));
        RateLimiter { spacing, burst, full_at: Mutex::new(None) }
    }

    /// Sets another rate.
    pub(crate) fn set(&self, per_second: f64, burst: u32) {
        let spacing = spacing(per_second);
        let mut full_at = self.full_at.lock();
        if (self.spacing.get(), self.burst.load(Ordering::Relaxed)) == (spacing, burst) {
            return;
        }
        self.spacing.set(spacing);
        self.burst.store(burst, Ordering::Relaxed);
        // Turns handed out were counted in time at the old rate, and would delay the new one.
        *full_at = full_at.map(|at| at.min(Instant::now() + spacing.saturating_mul(burst)));
    }

    /// Waits for the next turn. Cancel safe: a turn given up is lost, and delays no other caller.
    pub(crate) async fn turn(&self) {
        // There is no deadline that it could miss.
        let (Ok(at) | Err(at)) = self.next_turn(None);
        sleep_until(at).await;
    }

    /// Takes the next turn, if it comes by `deadline`, and returns when it comes.
    ///
    /// # Errors
    /// When the next turn would come; nothing was taken.
    pub(crate) fn next_turn(&self, deadline: Option<Instant>) -> Result<Instant, Instant> {
        let now = Instant::now();
        let mut full_at = self.full_at.lock();
        let spacing = self.spacing.get();
        if spacing.is_zero() {
            return Ok(now);
        }
        let head_start = spacing.saturating_mul(self.burst.load(Ordering::Relaxed).saturating_sub(1));
        let full = full_at.map_or(now, |at| at.max(now));
        let at = full.checked_sub(head_start).map_or(now, |at| at.max(now));
        if deadline.is_some_and(|deadline| deadline < at) {
            return Err(at);
        }
        *full_at = Some(full + spacing);
        Ok(at)
    }

    /// Takes a turn if none was taken lately, so that the next caller finds the others of the burst. Returns whether it did.
    pub(crate) fn spare_turn(&self) -> bool {
        let now = Instant::now();
        let mut full_at = self.full_at.lock();
        let is_full = full_at.is_none_or(|at| at <= now);
        if is_full {
            *full_at = Some(now + self.spacing.get());
        }
        is_full
    }
}

fn spacing(per_second: f64) -> Duration {
    if per_second > 0.0 { Duration::from_secs_f64(1.0 / per_second) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn turns_are_spaced_evenly_and_unused_ones_do_not_add_up() {
        let pace = RateLimiter::new(10.0, 1);
        tokio::time::advance(60 * SECOND).await;
        let ready = Instant::now();
        join_all((0..11).map(|_| pace.turn())).await;
        assert_eq!(ready.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn another_pace_holds_at_once() {
        let pace = RateLimiter::new(1.0, 100);
        join_all((0..100).map(|_| pace.turn())).await;
        pace.set(100.0, 100);
        assert!(pace.next_turn(Some(Instant::now() + SECOND)).is_ok(), "held up by the pace before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_had_at_once_and_again_after_a_quiet_time() {
        let pace = RateLimiter::new(10.0, 5);
        for _ in 0..2 {
            let ready = Instant::now();
            join_all((0..5).map(|_| pace.turn())).await;
            assert_eq!(ready.elapsed(), Duration::ZERO);
            join_all((0..5).map(|_| pace.turn())).await;
            assert_eq!(ready.elapsed(), SECOND / 2);
            tokio::time::advance(SECOND / 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_past_the_deadline_is_not_taken() {
        let pace = RateLimiter::new(1.0, 1);
        let now = Instant::now();
        assert_eq!(pace.next_turn(Some(now)), Ok(now));
        for _ in 0..3 {
            assert_eq!(pace.next_turn(Some(now + SECOND / 2)), Err(now + SECOND));
        }
        assert_eq!(pace.next_turn(Some(now + SECOND)), Ok(now + SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_spare_turn_is_one_of_a_full_burst() {
        let pace = RateLimiter::new(2.0, 3);
        let now = Instant::now();
        assert!(pace.spare_turn() && !pace.spare_turn());
        assert_eq!(
            [(); 3].map(|()| pace.next_turn(None).unwrap() - now),
            [Duration::ZERO, Duration::ZERO, SECOND / 2]
        );
        tokio::time::advance(3 * SECOND / 2).await;
        assert!(!pace.spare_turn());
        tokio::time::advance(SECOND / 2).await;
        assert!(pace.spare_turn());
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_is_no_wait() {
        let pace = RateLimiter::new(0.0, 1);
        let now = Instant::now();
        assert!((0..1000).all(|_| pace.spare_turn()));
        assert!((0..1000).all(|_| pace.next_turn(Some(now)) == Ok(now)));
        pace.set(1.0, 1);
        pace.turn().await;
        pace.turn().await;
        assert_eq!(now.elapsed(), SECOND);
    }
}
