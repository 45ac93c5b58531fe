//! A state counts once it has shown itself for a while.

use std::time::Duration;

use tokio::time::Instant;

use super::HealthState;

const STATES: usize = HealthState::ALL.len();

/// Steadies a state that is looked at now and then.
///
/// A worse state counts when so many looks in a row saw it, or a worse one still. A better state counts when for so
/// long none saw a worse one.
#[derive(Debug, Clone)]
pub(crate) struct Hysteresis {
    state: HealthState,
    since: Instant,
    reason: String,
    /// For each state, how many looks in a row have seen it or a worse one.
    at_least: [u32; STATES],
    /// For each state, since when no look has seen a worse one.
    at_most_since: [Option<Instant>; STATES],
}

impl Hysteresis {
    /// Healthy, until a look says otherwise.
    pub(crate) fn new(now: Instant) -> Self {
        Hysteresis {
            state: HealthState::Healthy,
            since: now,
            reason: "not looked at yet".to_owned(),
            at_least: [0; STATES],
            at_most_since: [Some(now); STATES],
        }
    }

    /// Takes note of what a look saw, and why; returns the state before, if another counts now.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        (seen, reason): (HealthState, String),
        worse_after: u32,
        better_after: Duration,
    ) -> Option<HealthState> {
        for (n, state) in HealthState::ALL.iter().copied().enumerate() {
            self.at_least[n] = if seen >= state { self.at_least[n].saturating_add(1) } else { 0 };
            self.at_most_since[n] = (seen <= state).then(|| self.at_most_since[n].unwrap_or(now));
        }
        let worse = HealthState::ALL
            .iter()
            .copied()
            .rev()
            .find(|state| *state > self.state && self.at_least[*state as usize] >= worse_after.max(1));
        let has_held = |since: Instant| now.saturating_duration_since(since) >= better_after;
        let better = HealthState::ALL
            .iter()
            .copied()
            .find(|state| *state < self.state && self.at_most_since[*state as usize].is_some_and(has_held));
        let next = worse.or(better).unwrap_or(self.state);
        let before = self.state;
        if next != before {
            (self.state, self.since) = (next, now);
        }
        // What was the reason stays the reason for as long as the state counts without being seen.
        if seen == next || next != before {
            self.reason = reason;
        }
        (next != before).then_some(before)
    }

    pub(crate) fn state(&self) -> HealthState {
        self.state
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use HealthState::{Degraded, Healthy, Overloaded, Unavailable};
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_secs(5);
    const BETTER_AFTER: Duration = Duration::from_secs(30);

    /// The states that count after each of a row of looks.
    fn steadied(looks: &[HealthState], worse_after: u32) -> Vec<HealthState> {
        let start = Instant::now();
        let mut hysteresis = Hysteresis::new(start);
        let after_each = |(n, seen): (usize, &HealthState)| {
            let now = start + EVERY * n as u32;
            hysteresis.look(now, (*seen, format!("{seen}")), worse_after, BETTER_AFTER);
            hysteresis.state()
        };
        looks.iter().enumerate().map(after_each).collect()
    }

    #[test]
    fn a_worse_state_counts_after_so_many_looks_or_at_once() {
        let looks = [Healthy, Unavailable, Unavailable, Unavailable];
        assert_eq!(steadied(&looks, 1), [Healthy, Unavailable, Unavailable, Unavailable]);
        assert_eq!(steadied(&looks, 3), [Healthy, Healthy, Healthy, Unavailable]);
        let blip = [Healthy, Unavailable, Healthy, Unavailable];
        assert_eq!(steadied(&blip, 2), [Healthy; 4]);
        let mixed = [Degraded, Unavailable, Overloaded];
        assert_eq!(steadied(&mixed, 2), [Healthy, Degraded, Overloaded], "what both looks saw at least");
    }

    #[test]
    fn a_better_state_counts_when_it_has_held() {
        let mut looks = vec![Unavailable];
        looks.extend([Healthy; 8]);
        let mut expected = vec![Unavailable; 7];
        expected.extend([Healthy; 2]);
        assert_eq!(steadied(&looks, 1), expected, "30 s after the first look that saw it");
        // Something worse in between starts the waiting anew, for what is better than it.
        looks[4] = Degraded;
        assert_eq!(steadied(&looks, 1)[7..], [Degraded, Degraded]);
    }

    #[test]
    fn the_reason_is_that_of_the_state_that_counts() {
        let start = Instant::now();
        let mut hysteresis = Hysteresis::new(start);
        let look = |hysteresis: &mut Hysteresis, seconds, seen, reason: &str| {
            let now = start + Duration::from_secs(seconds);
            let before = hysteresis.look(now, (seen, reason.to_owned()), 1, BETTER_AFTER);
            (before, hysteresis.reason().to_owned())
        };
        assert_eq!(look(&mut hysteresis, 0, Degraded, "slow"), (Some(Healthy), "slow".to_owned()));
        assert_eq!(look(&mut hysteresis, 5, Healthy, "well"), (None, "slow".to_owned()));
        assert_eq!(look(&mut hysteresis, 10, Degraded, "slower"), (None, "slower".to_owned()));
        assert_eq!(look(&mut hysteresis, 15, Healthy, "well"), (None, "slower".to_owned()));
        assert_eq!(look(&mut hysteresis, 45, Healthy, "well"), (Some(Degraded), "well".to_owned()));
    }

    fn any_state() -> impl Strategy<Value = HealthState> {
        (0..STATES).prop_map(|n| HealthState::ALL[n])
    }

    proptest! {
        #[test]
        fn it_flaps_no_more_often_than_it_may(
            looks in prop::collection::vec((any_state(), 0u64..20), 1..300),
            worse_after in 1u32..4,
        ) {
            let mut now = Instant::now();
            let start = now;
            let mut hysteresis = Hysteresis::new(now);
            let (mut last_worsened, mut turns) = (None::<Instant>, 0_u64);
            let mut seen_lately = Vec::new();
            for (seen, wait) in looks {
                now += Duration::from_secs(wait);
                seen_lately.push((now, seen));
                let Some(before) = hysteresis.look(now, (seen, String::new()), worse_after, BETTER_AFTER) else {
                    continue;
                };
                let after = hysteresis.state();
                prop_assert_ne!(before, after);
                if after > before {
                    let row = seen_lately.iter().rev().take(worse_after as usize);
                    prop_assert!(row.clone().count() == worse_after as usize && row.clone().all(|(_, s)| *s >= after));
                    last_worsened = Some(now);
                } else {
                    let held = seen_lately.iter().rev().take_while(|(_, s)| *s <= after);
                    let since = held.last().map_or(now, |(at, _)| *at);
                    prop_assert!(now - since >= BETTER_AFTER || since == seen_lately[0].0);
                    if let Some(worsened) = last_worsened.take() {
                        prop_assert!(now - worsened >= BETTER_AFTER, "better {:?} after it got worse", now - worsened);
                        turns += 1;
                    }
                }
            }
            prop_assert!(turns <= (now - start).as_secs() / BETTER_AFTER.as_secs());
        }
    }
}
