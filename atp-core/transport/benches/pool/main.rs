//! What a pool costs: checkout and return, ours beside `bb8` and `deadpool`, over links that open at once.
//!
//! ```sh
//! cargo bench -p atp-transport
//! ```
//!
//! And what the circuit breaker, the rate limit and interceptors add to a call.
//!
//! All three have as many connections, lend each to one caller at a time, bound the wait for one by the same
//! time-out, and ask no connection for a sign of life. They run on one runtime, in turns.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

mod chain;
mod contended;
mod pools;

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use tokio::runtime::Runtime;

use pools::{Bb8, Deadpool, Ours, Pool};

/// Connections in each pool.
const SLOTS: usize = 8;

fn main() {
    let runtime = Runtime::new().expect("a runtime can be had");
    let mut criterion = Criterion::default().configure_from_args();
    uncontended::<Ours>(&mut criterion, &runtime);
    uncontended::<Bb8>(&mut criterion, &runtime);
    uncontended::<Deadpool>(&mut criterion, &runtime);
    chain::around_a_call(&mut criterion, &runtime);
    criterion.final_summary();

    // Without `--bench` this is a test run, which is to show only that it works.
    let effort = if std::env::args().any(|arg| arg == "--bench") {
        contended::Effort { rounds: 15, leases: 100_000 }
    } else {
        contended::Effort { rounds: 1, leases: 1_000 }
    };
    contended::report(&runtime, effort);
}

/// One caller, who never has to wait.
fn uncontended<P: Pool>(criterion: &mut Criterion, runtime: &Runtime) {
    let pool = runtime.block_on(P::open(SLOTS));
    criterion.bench_function(&format!("checkout and return/{}", P::NAME), |bencher| {
        bencher.iter_custom(|times| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..times {
                    drop(black_box(pool.take().await));
                }
                start.elapsed()
            })
        });
    });
}
