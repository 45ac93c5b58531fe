//! What a host's numbers mean, and what its hosts' states mean for the fleet: plain functions.

use humantime::format_duration;

use super::{HealthState, Vitals};
use crate::admission::breaker::BreakerState;
use crate::config::HealthConfig;

/// What these numbers, by themselves, say about a host; and why.
pub(super) fn assess(vitals: &Vitals, config: &HealthConfig) -> (HealthState, String) {
    use HealthState::{Degraded, Healthy, Overloaded, Unavailable};
    let mut findings = Vec::new();
    let mut find = |state: HealthState, reason: String| findings.push((state, reason));

    match vitals.breaker {
        BreakerState::Closed => {}
        state => find(Unavailable, format!("the circuit breaker is {state}")),
    }
    let down = vitals.reconnecting + vitals.failed;
    if down > 0 {
        let why = vitals.last_connect_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        match vitals.connected {
            0 => find(Unavailable, format!("not connected{why}")),
            up => find(Degraded, format!("{down} of {} connections are down{why}", up + down)),
        }
    }

    let window = format_duration(config.window);
    if vitals.calls >= config.min_calls.max(1) {
        let (rate, calls) = (vitals.error_rate(), vitals.calls);
        let reason = || format!("{} of {calls} calls got no answer in the last {window}", percent(rate));
        if rate >= config.unavailable_error_rate {
            find(Unavailable, reason());
        } else if rate >= config.degraded_error_rate && rate > 0.0 {
            find(Degraded, reason());
        }
        for (what, took, limit) in [
            ("on average", vitals.mean_latency, config.slow_mean),
            ("at the 99th percentile", vitals.p99_latency, config.slow_p99),
        ] {
            if !limit.is_zero() && took > limit {
                find(Degraded, format!("calls take {took:.1?} {what}"));
            }
        }
    }

    if vitals.rejected > config.tolerated_refusals {
        let reason = format!("{} callers were refused in the last {window}", vitals.rejected);
        find(Overloaded, reason);
    }
    if vitals.utilisation >= 1.0 && vitals.waiting > 0 {
        find(Overloaded, format!("all connections are in use and {} callers wait", vitals.waiting));
    } else if config.high_utilisation > 0.0 && vitals.utilisation >= config.high_utilisation {
        find(Degraded, format!("{} of the connections are in use", percent(vitals.utilisation)));
    }
    match vitals.stuck_calls {
        0 => {}
        1 => find(Degraded, "a call hangs".to_owned()),
        stuck => find(Degraded, format!("{stuck} calls hang")),
    }

    let worst = findings.iter().map(|(state, _)| *state).max().unwrap_or(Healthy);
    let reasons: Vec<_> =
        findings.into_iter().filter(|(state, _)| *state == worst).map(|(_, reason)| reason).collect();
    (worst, if reasons.is_empty() { "all is well".to_owned() } else { reasons.join("; ") })
}

/// What the number of hosts in each state says about a fleet; and why.
pub(super) fn assess_fleet(
    hosts: [usize; HealthState::ALL.len()],
    config: &HealthConfig,
) -> (HealthState, String) {
    let all: usize = hosts.iter().sum();
    let at_least = |state: HealthState| hosts[state as usize..].iter().sum::<usize>();
    let exceeds = |state, share: f64| at_least(state) as f64 > share * all as f64;
    let state = if exceeds(HealthState::Unavailable, config.fleet_unavailable_share) {
        HealthState::Unavailable
    } else if exceeds(HealthState::Overloaded, config.fleet_unavailable_share) {
        HealthState::Overloaded
    } else if exceeds(HealthState::Degraded, config.fleet_degraded_share) {
        HealthState::Degraded
    } else {
        HealthState::Healthy
    };
    let by_state = HealthState::ALL.iter().copied().zip(hosts).rev();
    let bad = by_state.filter(|(state, count)| *state != HealthState::Healthy && *count > 0);
    let bad: Vec<_> = bad.map(|(state, count)| format!("{count} {state}")).collect();
    let reason = match (all, bad.is_empty()) {
        (0, _) => "no hosts".to_owned(),
        (_, true) => "all is well".to_owned(),
        (_, false) => format!("of {all} hosts {}", bad.join(", ")),
    };
    (state, reason)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use HealthState::{Degraded, Healthy, Overloaded, Unavailable};
    use proptest::prelude::*;

    use super::*;

    fn well() -> Vitals {
        Vitals {
            connected: 2,
            calls: 100,
            utilisation: 0.5,
            mean_latency: Duration::from_millis(5),
            p99_latency: Duration::from_millis(50),
            ..Vitals::default()
        }
    }

    fn seen(change: impl FnOnce(&mut Vitals)) -> (HealthState, String) {
        let mut vitals = well();
        change(&mut vitals);
        assess(&vitals, &HealthConfig::default())
    }

    type Change = Box<dyn Fn(&mut Vitals)>;

    #[test]
    fn each_threshold_is_one() {
        assert_eq!(seen(|_| {}).0, Healthy);
        let seconds = Duration::from_secs;
        let cases: [(HealthState, &str, Change); 17] = [
            (Healthy, "all is well", Box::new(|v| v.unanswered = 9)),
            (Degraded, "10 % of 100 calls", Box::new(|v| v.unanswered = 10)),
            (Degraded, "89 % of 100 calls", Box::new(|v| v.unanswered = 89)),
            (Unavailable, "90 % of 100 calls got no answer in the last 1m", Box::new(|v| v.unanswered = 90)),
            (Healthy, "all is well", Box::new(|v| (v.calls, v.unanswered) = (9, 9))),
            (Healthy, "all is well", Box::new(move |v| v.mean_latency = seconds(2))),
            (Degraded, "2.1s on average", Box::new(|v| v.mean_latency = Duration::from_millis(2100))),
            (Degraded, "11.0s at the 99th", Box::new(move |v| v.p99_latency = seconds(11))),
            (Degraded, "90 % of the connections", Box::new(|v| v.utilisation = 0.9)),
            (Degraded, "100 % of the connections", Box::new(|v| v.utilisation = 1.0)),
            (Overloaded, "3 callers wait", Box::new(|v| (v.utilisation, v.waiting) = (1.0, 3))),
            (Overloaded, "1 callers were refused", Box::new(|v| v.rejected = 1)),
            (Degraded, "a call hangs", Box::new(|v| v.stuck_calls = 1)),
            (
                Unavailable,
                "the circuit breaker is half-open",
                Box::new(|v| v.breaker = BreakerState::HalfOpen),
            ),
            (Degraded, "1 of 3 connections are down", Box::new(|v| v.reconnecting = 1)),
            (Degraded, "2 of 4 connections are down", Box::new(|v| v.failed = 2)),
            (
                Unavailable,
                "not connected: refused",
                Box::new(|v| {
                    (v.connected, v.failed) = (0, 1);
                    v.last_connect_error = Some("refused".to_owned());
                }),
            ),
        ];
        for (n, (state, reason, change)) in cases.into_iter().enumerate() {
            let (found, why) = seen(change);
            assert_eq!(found, state, "case {n}: {why}");
            assert!(why.contains(reason), "case {n}: {why}");
        }
    }

    #[test]
    fn the_worst_counts_and_only_its_reasons_are_told() {
        let (state, reason) =
            seen(|v| (v.rejected, v.stuck_calls, v.utilisation, v.waiting) = (2, 1, 1.0, 4));
        assert_eq!(state, Overloaded);
        assert!(reason.contains("2 callers were") && reason.contains("; all connections"), "{reason}");
        assert!(!reason.contains("hangs"), "{reason}");
    }

    #[test]
    fn a_host_that_nothing_has_been_asked_of_is_healthy() {
        assert_eq!(assess(&Vitals::default(), &HealthConfig::default()).0, Healthy);
        assert_eq!(
            assess(&Vitals { connecting: 1, ..Vitals::default() }, &HealthConfig::default()).0,
            Healthy
        );
    }

    #[test]
    fn a_fleet_is_what_most_of_its_hosts_are() {
        let fleet = |healthy, degraded, overloaded, unavailable| {
            assess_fleet([healthy, degraded, overloaded, unavailable], &HealthConfig::default())
        };
        assert_eq!(fleet(0, 0, 0, 0), (Healthy, "no hosts".to_owned()));
        assert_eq!(
            fleet(90, 3, 3, 4),
            (Healthy, "of 100 hosts 4 unavailable, 3 overloaded, 3 degraded".to_owned())
        );
        assert_eq!(fleet(89, 11, 0, 0).0, Degraded);
        assert_eq!(fleet(50, 0, 25, 25).0, Degraded);
        assert_eq!(fleet(49, 0, 26, 25).0, Overloaded);
        assert_eq!(fleet(49, 0, 0, 51).0, Unavailable);
        assert_eq!(fleet(0, 0, 0, 1).0, Unavailable);
    }

    proptest! {
        /// Whatever else is the case, more of what is bad never makes a host better.
        #[test]
        fn worse_numbers_never_make_a_better_state(
            connected in 0usize..3, failed in 0usize..3, unanswered in 0u64..100, utilisation in 0.0f64..2.0,
            waiting in 0usize..3, rejected in 0u64..3, stuck_calls in 0usize..3, worse in 0usize..6,
        ) {
            let before = Vitals { connected, failed, unanswered, utilisation, waiting, rejected, stuck_calls, ..well() };
            let mut after = before.clone();
            match worse {
                0 => after.failed += 1,
                1 => after.unanswered += 1,
                2 => after.utilisation += 0.5,
                3 => after.waiting += 1,
                4 => after.rejected += 1,
                _ => after.stuck_calls += 1,
            }
            let config = HealthConfig::default();
            prop_assert!(assess(&after, &config).0 >= assess(&before, &config).0);
        }
    }
}
