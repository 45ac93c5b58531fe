//! The breaker by itself, at times of the test's choosing.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn failure() -> Arc<TransportError> {
    Arc::new(TransportError::UnknownHost { host: "any".to_owned() })
}

/// A breaker, its configuration and a clock.
struct Bench {
    breaker: Breaker,
    config: BreakerConfig,
    now: Instant,
}

impl Bench {
    fn new(share: &Arc<OpenShare>, config: BreakerConfig) -> Self {
        Bench { breaker: Breaker::new(share.clone(), |_| {}), config, now: Instant::now() }
    }

    fn alone() -> Self {
        Bench::new(&Arc::default(), BreakerConfig { consecutive_failures: 1, ..BreakerConfig::default() })
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&self) -> Result<Option<Probe<'_>>, Refused> {
        self.breaker.admit(&self.config, self.now).0
    }

    fn answered(&self, began: Instant) -> Option<Change> {
        self.breaker.answered(&self.config, began, self.now)
    }

    fn failed(&self, began: Instant) -> Option<Change> {
        self.breaker.failed(&self.config, began, self.now, failure())
    }

    fn state(&self) -> BreakerState {
        self.breaker.status().state
    }

    /// How long it will refuse work.
    fn cool_down(&self) -> f64 {
        self.breaker.status().next_probe.map_or(0.0, |at| (at - self.now).as_secs_f64())
    }
}

#[test]
fn the_cool_down_doubles_with_each_failed_probe_up_to_the_cap() {
    let mut bench = Bench::alone();
    bench.failed(bench.now);
    for longest in [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] {
        let cool_down = bench.cool_down();
        assert!(
            (0.9 * longest..=f64::min(1.1 * longest, 60.0)).contains(&cool_down),
            "{cool_down}, not {longest}"
        );
        bench.pass(Duration::from_secs_f64(cool_down - 0.001));
        assert!(bench.admit().is_err(), "before its end");
        bench.pass(Duration::from_millis(2));
        let probe = bench.admit().unwrap();
        assert!(probe.is_some());
        assert!(matches!(bench.failed(bench.now), Some(Change::Opened { .. })));
    }
}

#[test]
fn the_cool_down_starts_over_only_when_it_stayed_closed() {
    for (closed_for, longest) in [(29, 10.0), (31, 5.0)] {
        let mut bench = Bench::alone();
        bench.failed(bench.now);
        bench.pass(Duration::from_secs(6));
        drop(bench.admit());
        assert!(matches!(bench.answered(bench.now), Some(Change::Closed { .. })));
        bench.pass(Duration::from_secs(closed_for));
        bench.failed(bench.now);
        let cool_down = bench.cool_down();
        assert!((0.9 * longest..=1.1 * longest).contains(&cool_down), "{cool_down} s after {closed_for} s");
    }
}

#[test]
fn answers_to_what_was_asked_before_it_opened_change_nothing() {
    let mut bench = Bench::alone();
    let before = bench.now;
    bench.pass(Duration::from_secs(1));
    bench.failed(bench.now);
    assert!(bench.answered(before).is_none());
    bench.pass(Duration::from_secs(6));
    let probe = bench.admit().unwrap();
    assert!(bench.answered(before).is_none() && bench.failed(before).is_none());
    assert_eq!(bench.state(), BreakerState::HalfOpen);
    drop(probe);
}

#[test]
fn a_late_probe_does_not_give_back_the_place_of_another() {
    let mut bench = Bench::alone();
    bench.failed(bench.now);
    bench.pass(Duration::from_secs(6));
    let first = bench.breaker.admit(&bench.config, bench.now).0.unwrap();
    bench.failed(bench.now);
    bench.now += Duration::from_secs(12);
    let second = bench.breaker.admit(&bench.config, bench.now).0.unwrap();
    assert!(second.is_some());
    drop(first);
    assert!(bench.admit().is_err(), "the second probe still has the place");
    drop(second);
    assert!(bench.admit().unwrap().is_some());
}

#[test]
fn a_reconnect_ends_the_cool_down() {
    let bench = Bench::alone();
    assert!(bench.breaker.reconnected(bench.now).is_none());
    bench.failed(bench.now);
    assert!(bench.admit().is_err());
    assert!(matches!(bench.breaker.reconnected(bench.now), Some(Change::HalfOpened)));
    assert!(bench.admit().unwrap().is_some());
}

/// What happens to one of the hosts of a fleet.
#[derive(Debug, Clone)]
enum Step {
    Admit(usize),
    DropProbe(usize),
    Answered(usize),
    Failed(usize),
    Reconnected(usize),
    Pass(u64),
}

#[test]
fn changes_are_told_in_their_order_whoever_causes_them() {
    let told = Arc::new(Mutex::new(vec![BreakerState::Closed]));
    let listener = told.clone();
    let breaker = Breaker::new(Arc::default(), move |change| {
        listener.lock().push(match change {
            Change::Opened { .. } => BreakerState::Open,
            Change::HalfOpened => BreakerState::HalfOpen,
            Change::Closed { .. } => BreakerState::Closed,
        });
    });
    let config = BreakerConfig {
        consecutive_failures: 1,
        cool_down: Duration::from_nanos(1),
        max_cool_down: Duration::from_nanos(1),
        ..BreakerConfig::default()
    };
    let failure = failure();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let now = Instant::now();
                    let _told = breaker.failed(&config, now, now, failure.clone());
                    let _told = breaker.admit(&config, Instant::now()).1;
                    let now = Instant::now();
                    let _told = breaker.answered(&config, now, now);
                }
            });
        }
    });
    let told = told.lock();
    let follows = |pair: &[BreakerState]| match pair[1] {
        BreakerState::Open => pair[0] != BreakerState::Open,
        BreakerState::HalfOpen => pair[0] == BreakerState::Open,
        BreakerState::Closed => pair[0] == BreakerState::HalfOpen,
    };
    assert!(told.len() > 1_000, "{} changes", told.len());
    let strange = told.windows(2).find(|pair| !follows(pair));
    assert_eq!(strange, None);
}

const HOSTS: usize = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 0..HOSTS;
    let step = prop_oneof![
        3 => host.clone().prop_map(Step::Admit),
        2 => host.clone().prop_map(Step::DropProbe),
        2 => host.clone().prop_map(Step::Answered),
        5 => host.clone().prop_map(Step::Failed),
        1 => host.prop_map(Step::Reconnected),
        2 => (0..20_000u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// There is one probe at a time, its place is never lost, and no more than the share is open at once.
    #[test]
    fn whatever_happens_to_a_fleet(steps in steps(), max_open_share in 0.0f64..1.0) {
        let share = Arc::default();
        let config = BreakerConfig {
            consecutive_failures: 2, min_calls: 4, max_open_share, min_hosts_for_share: 1, ..BreakerConfig::default()
        };
        let most = (HOSTS as f64 * max_open_share) as usize;
        let breakers: Vec<_> = (0..HOSTS).map(|_| Breaker::new(Arc::clone(&share), |_| {})).collect();
        // Each host's probes, and whether they belong to the half-open time it is in: one that was decided is over.
        let mut probes: Vec<VecDeque<(Probe<'_>, bool)>> = (0..HOSTS).map(|_| VecDeque::new()).collect();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Admit(n) => {
                    let before = breakers[n].status();
                    let free = !probes[n].iter().any(|(_, current)| *current);
                    match breakers[n].admit(&config, now).0 {
                        Ok(None) => prop_assert_eq!(before.state, BreakerState::Closed),
                        Ok(Some(probe)) => {
                            prop_assert_eq!(breakers[n].status().state, BreakerState::HalfOpen);
                            prop_assert!(free, "two probes at once");
                            probes[n].push_back((probe, true));
                        }
                        Err(Refused) => {
                            let waits = before.next_probe.is_some_and(|at| at > now);
                            prop_assert!(waits || !free, "refused with no probe under way: {before:?}");
                        }
                    }
                }
                Step::DropProbe(n) => drop(probes[n].pop_front()),
                Step::Answered(n) => {
                    breakers[n].answered(&config, now, now);
                }
                Step::Failed(n) => {
                    breakers[n].failed(&config, now, now, failure());
                }
                Step::Reconnected(n) => {
                    breakers[n].reconnected(now);
                }
                Step::Pass(millis) => now += Duration::from_millis(millis),
            }
            for (breaker, probes) in breakers.iter().zip(&mut probes) {
                if breaker.status().state != BreakerState::HalfOpen {
                    probes.iter_mut().for_each(|(_, current)| *current = false);
                }
            }
            let open = breakers.iter().filter(|breaker| !breaker.is_closed()).count();
            prop_assert!(open <= most, "{open} of {HOSTS} open, and {most} may be");
            for breaker in &breakers {
                prop_assert_eq!(breaker.is_closed(), breaker.status().state == BreakerState::Closed);
            }
        }
        // Whatever went before, a host that is asked again and answers is used again.
        drop(probes);
        now += Duration::from_secs(67);
        for breaker in &breakers {
            prop_assert!(breaker.admit(&config, now).0.is_ok());
            breaker.answered(&config, now, now);
            prop_assert!(breaker.is_closed(), "pinned open");
        }
    }
}
