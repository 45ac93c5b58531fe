//! Simulations by seed.
//!
//! `ATP_SIM_SEED` is the first seed, and `ATP_SIM_SEEDS` how many there are: without the second, the one seed is shown in full.
#![expect(clippy::print_stdout, reason = "a seed that is asked for is shown")]

use std::env;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use atp_simulation::{Case, Simulation, simulate};

/// How many seeds there are without a word.
const SEEDS: u64 = 300;

/// How many failing seeds are shown.
const SHOWN: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, and not {text:?}")))
}

fn report(seed: u64, simulation: &Simulation) -> String {
    let mut report = format!("{}\nseed {seed} breaks:\n", simulation.trace);
    simulation.violations.iter().for_each(|violation| report += &format!("  {violation}\n"));
    report + &format!("again: cargo xtask simulate --seed {seed}\n")
}

#[test]
fn promises_hold_under_every_seed() {
    let (first, count) = (number("ATP_SIM_SEED"), number("ATP_SIM_SEEDS"));
    if let (Some(seed), None) = (first, count) {
        let simulation = simulate(seed);
        print!("{}", simulation.trace);
        assert!(simulation.violations.is_empty(), "{}", report(seed, &simulation));
        return;
    }
    let first = first.unwrap_or(1);
    let end = first.saturating_add(count.unwrap_or(SEEDS));
    let (next, failures) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let simulation = simulate(seed);
                    if let Some(first) = simulation.violations.first() {
                        // At once: many seeds take hours.
                        println!("seed {seed} breaks: {first}");
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push((
                            seed,
                            report(seed, &simulation),
                            simulation.violations,
                        ));
                    }
                }
            });
        }
    });
    println!("{} seeds from {first} on", end - first);
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    let shown: String = failures.iter().take(SHOWN).map(|(_, report, _)| report.as_str()).collect();
    let list: Vec<_> =
        failures.iter().map(|(seed, _, violations)| format!("{seed}: {}", violations[0])).collect();
    assert!(failures.is_empty(), "{shown}\n{} seeds fail:\n{}", failures.len(), list.join("\n"));
}

#[test]
fn the_same_seed_has_the_same_trace() {
    let seeds = (1..).filter(|seed| Case::of(*seed).is_exact()).take(60);
    let mut lines = 0;
    for seed in seeds {
        let (one, other) = (simulate(seed).trace, simulate(seed).trace);
        assert_eq!(one.to_string(), other.to_string(), "seed {seed}");
        lines += one.lines();
    }
    assert!(lines > 1_000, "little happens: {lines} lines");
}
