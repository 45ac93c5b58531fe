//! Controllers, their database and the faults between them, in virtual time, by seed: whatever happens, each target is started
//! at most once and has one outcome, and the limits of a host hold.
//!
//! `ATP_CLUSTER_SEEDS` sets the number of seeds, and `ATP_CLUSTER_SEED` the first of them.

mod controller;
mod world;

use world::{Seen, World};

const SEEDS: u64 = 3000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}")))
}

#[test]
fn every_target_has_one_outcome_and_is_started_at_most_once() {
    let first = number("ATP_CLUSTER_SEED", 1);
    let mut seen = Seen::default();
    for seed in first..first + number("ATP_CLUSTER_SEEDS", SEEDS) {
        World::new(seed).run(&mut seen);
    }
    // What the seeds are for has happened.
    if seen.worlds >= 1000 {
        let Seen {
            worlds: _,
            taken_over,
            late,
            unknown,
            put_back,
            sent_late,
            given_back,
            aborted,
            handed_over,
        } = seen;
        let all = [taken_over, late, unknown, put_back, sent_late, given_back, aborted, handed_over];
        let least = all.into_iter().min();
        assert!(least >= Some(20), "{seen:?}");
    }
}
