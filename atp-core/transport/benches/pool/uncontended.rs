//! What checkout and return cost a caller who never has to wait.
//!
//! Measured in CPU time of the one thread that does it, which other programs do not lengthen.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use crate::pools::{Bb8, Deadpool, Ours, Pool};
use crate::{Effort, SLOTS, median};

/// The most checkout and return may take, nanoseconds.
const GOAL: f64 = 200.0;

/// As benchmarks of criterion, which knows the last run's figures and tells whether they have changed.
pub(crate) fn criterion(criterion: &mut Criterion, runtime: &Runtime) {
    bench::<Ours>(criterion, runtime);
    bench::<Bb8>(criterion, runtime);
    bench::<Deadpool>(criterion, runtime);
}

fn bench<P: Pool>(criterion: &mut Criterion, runtime: &Runtime) {
    let pool = runtime.block_on(P::open(SLOTS));
    criterion.bench_function(&format!("checkout and return/{}", P::NAME), |bencher| {
        bencher.iter_custom(|times| runtime.block_on(take(&pool, times)));
    });
}

/// The same in turns, as a table.
pub(crate) fn report(runtime: &Runtime, Effort { rounds, leases }: Effort) {
    let ours = runtime.block_on(Ours::open(SLOTS));
    let bb8 = runtime.block_on(Bb8::open(SLOTS));
    let deadpool = runtime.block_on(Deadpool::open(SLOTS));
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        took[0].push(nanos(runtime, &ours, leases));
        took[1].push(nanos(runtime, &bb8, leases));
        took[2].push(nanos(runtime, &deadpool, leases));
    }
    println!("\nCheckout and return without waiting, CPU time; median of {rounds} rounds, in turns:\n");
    println!("| pool     | ns each | of ours |    goal |         |");
    println!("|:---------|--------:|--------:|--------:|--------:|");
    for (name, times) in [Ours::NAME, Bb8::NAME, Deadpool::NAME].into_iter().zip(&took) {
        let each = median(times.iter().copied());
        let ratio = median(times.iter().zip(&took[0]).map(|(its, ours)| its / ours));
        let (goal, verdict) = match name {
            Ours::NAME if each <= GOAL => (format!("{GOAL} ns"), "reached"),
            Ours::NAME => (format!("{GOAL} ns"), "missed"),
            _ => (String::new(), ""),
        };
        println!("| {name:<8} | {each:>7.0} | {ratio:>7.2} | {goal:>7} | {verdict:>7} |");
    }
}

/// What one took, nanoseconds.
fn nanos<P: Pool>(runtime: &Runtime, pool: &P, leases: usize) -> f64 {
    runtime.block_on(take(pool, leases as u64)).as_nanos() as f64 / leases as f64
}

/// Takes and returns that many leases; nothing in it waits, so that the caller's thread does it all.
async fn take<P: Pool>(pool: &P, leases: u64) -> Duration {
    let start = cpu_time();
    for _ in 0..leases {
        drop(black_box(pool.take().await));
    }
    cpu_time() - start
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
