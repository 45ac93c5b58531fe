//! How long callers wait when there are as many of them as connections, and when there are more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};

use crate::pools::{Bb8, Deadpool, Ours, Pool};
use crate::{Effort, SLOTS, median};

/// Callers for each connection.
const CALLERS: [usize; 3] = [1, 2, 20];
/// The shares of waits that are no longer than the figures reported.
const QUANTILES: [f64; 4] = [0.5, 0.99, 0.999, 1.0];

/// What a caller does between two leases.
#[derive(Clone, Copy)]
enum Between {
    /// It waits until every other has had a lease too: a job of which each caller is one part.
    Everyone,
    /// Something else for a turn of the scheduler: whoever waits can have the connection.
    ATurn,
    /// Nothing: it asks again before anybody else has run.
    Nothing,
}

/// One pool in one round.
struct Round {
    waits: Histogram<u64>,
    took: Duration,
}

/// Measures, and prints the results as tables.
pub(crate) fn report(runtime: &Runtime, effort: Effort) {
    println!(
        "\nThe time that callers wait for one of {SLOTS} connections, each held for one turn of the scheduler; median of {} rounds, in turns.",
        effort.rounds
    );
    table(runtime, effort, "Every caller has one lease, then all ask again:", Between::Everyone);
    table(runtime, effort, "One turn of the scheduler between two leases of a caller:", Between::ATurn);
    table(runtime, effort, "Nothing between two leases of a caller:", Between::Nothing);
}

fn table(runtime: &Runtime, effort: Effort, heading: &str, between: Between) {
    println!("\n{heading}\n");
    println!("| callers | pool     |    p50 µs |    p99 µs |  p99.9 µs |    max µs |  leases/s |");
    println!("|--------:|:---------|----------:|----------:|----------:|----------:|----------:|");
    for callers in CALLERS.map(|times| times * SLOTS) {
        let (mut ours, mut bb8, mut deadpool) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            ours.push(runtime.block_on(round::<Ours>(callers, effort.leases, between)));
            bb8.push(runtime.block_on(round::<Bb8>(callers, effort.leases, between)));
            deadpool.push(runtime.block_on(round::<Deadpool>(callers, effort.leases, between)));
        }
        row(callers, Ours::NAME, &ours);
        row(callers, Bb8::NAME, &bb8);
        row(callers, Deadpool::NAME, &deadpool);
    }
}

fn row(callers: usize, pool: &str, rounds: &[Round]) {
    print!("| {callers:>7} | {pool:<8} ");
    for quantile in QUANTILES {
        let nanos = median(rounds.iter().map(|round| round.waits.value_at_quantile(quantile) as f64));
        print!("| {:>9.3} ", nanos / 1000.0);
    }
    let rate = median(rounds.iter().map(|round| round.waits.len() as f64 / round.took.as_secs_f64()));
    println!("| {rate:>9.0} |");
}

/// Callers that take a connection, hold it for a turn of the scheduler, and give it back.
async fn round<P: Pool>(callers: usize, leases: usize, between: Between) -> Round {
    let pool = Arc::new(P::open(SLOTS).await);
    let (start, everyone) = (Arc::new(Barrier::new(callers + 1)), Arc::new(Barrier::new(callers)));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (pool, start, everyone) = (pool.clone(), start.clone(), everyone.clone());
        tasks.spawn(async move {
            let mut waits = nanoseconds();
            start.wait().await;
            for _ in 0..leases / callers {
                let asked = Instant::now();
                let lease = pool.take().await;
                let waited = asked.elapsed();
                yield_now().await;
                drop(lease);
                waits += u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
                match between {
                    Between::Everyone => {
                        everyone.wait().await;
                    }
                    Between::ATurn => yield_now().await,
                    Between::Nothing => {}
                }
            }
            waits
        });
    }
    start.wait().await;
    let started = Instant::now();
    let mut waits = nanoseconds();
    while let Some(of_one) = tasks.join_next().await {
        waits += of_one.expect("no caller panics");
    }
    Round { waits, took: started.elapsed() }
}

fn nanoseconds() -> Histogram<u64> {
    Histogram::new(3).expect("three digits can be had")
}
