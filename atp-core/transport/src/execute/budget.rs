//! A host's retry budget: what is tried again is a share of what is tried at all, so that retries do not bury a host
//! in trouble.

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::RetryConfig;
use crate::sync::sliding_window::{SlidingWindow, WindowCounts};

/// Counts the work run on one host, and its retries.
#[derive(Default)]
pub(crate) struct RetryBudget {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Pieces of work; those that are retries are marked.
    recent: SlidingWindow,
    /// When a retry was last refused.
    refused: Option<Instant>,
}

/// No retry can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Retries within the window.
    pub(crate) retries: u64,
    /// Pieces of work within the window.
    pub(crate) work: u64,
    /// Whether this is the first for as long as the window.
    pub(crate) is_news: bool,
}

impl RetryBudget {
    /// Some work is run for the first time.
    pub(crate) fn earn(&self, config: &RetryConfig, now: Instant) {
        self.state.lock().recent.add(config.budget_window, now, WindowCounts { all: 1, marked: 0 });
    }

    /// Takes a retry.
    pub(crate) fn spend(&self, config: &RetryConfig, now: Instant) -> Result<(), Spent> {
        let mut state = self.state.lock();
        let WindowCounts { all: work, marked: retries } = state.recent.counts(now);
        let most = (config.budget_floor as u64).saturating_add((work as f64 * config.budget_share) as u64);
        if retries < most {
            state.recent.add(config.budget_window, now, WindowCounts { all: 0, marked: 1 });
            return Ok(());
        }
        let before = state.refused.replace(now);
        let is_news = before.is_none_or(|at| now.saturating_duration_since(at) >= config.budget_window);
        Err(Spent { retries, work, is_news })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn config() -> RetryConfig {
        RetryConfig { budget_share: 0.2, budget_floor: 3, ..RetryConfig::default() }
    }

    #[test]
    fn the_floor_and_the_share_and_no_more() {
        let (budget, now) = (RetryBudget::default(), Instant::now());
        for _ in 0..20 {
            budget.earn(&config(), now);
        }
        let spent = (0..100).find_map(|n| budget.spend(&config(), now).err().map(|spent| (n, spent)));
        assert_eq!(spent, Some((7, Spent { retries: 7, work: 20, is_news: true })));
        assert!(!budget.spend(&config(), now).unwrap_err().is_news);
        let later = now + Duration::from_secs(10);
        assert_eq!(budget.spend(&config(), later), Ok(()), "the window has moved on");
    }

    #[test]
    fn a_floor_without_end_is_never_spent() {
        let config = RetryConfig { budget_floor: usize::MAX, ..config() };
        let (budget, now) = (RetryBudget::default(), Instant::now());
        for _ in 0..20 {
            budget.earn(&config, now);
            assert_eq!(budget.spend(&config, now), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn within_any_window_it_is_kept(steps in proptest::collection::vec((0u64..1500, 0u8..3), 0..300)) {
            let (budget, config) = (RetryBudget::default(), config());
            let start = Instant::now();
            let (mut now, mut work, mut retries) = (start, Vec::new(), Vec::new());
            for (millis, what) in steps {
                now += Duration::from_millis(millis);
                if what == 0 {
                    budget.earn(&config, now);
                    work.push(now);
                } else if budget.spend(&config, now).is_ok() {
                    retries.push(now);
                    // The window moves on by a tenth of itself at a time: nine tenths are always looked back at.
                    let since = now.checked_sub(config.budget_window.mul_f64(0.9)).unwrap_or(start);
                    let recent = retries.iter().filter(|at| **at > since).count();
                    let earned = work.iter().filter(|at| now - **at <= config.budget_window).count();
                    let most = config.budget_floor + (earned as f64 * config.budget_share) as usize;
                    prop_assert!(recent <= most, "{recent} retries for {earned} pieces of work");
                }
            }
        }
    }
}
