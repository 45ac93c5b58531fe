//! What a pool costs: checkout and return, ours beside `bb8` and `deadpool`, over links that open at once.
//!
//! ```sh
//! cargo bench -p atp-transport
//! ```
//!
//! And what the circuit breaker, the rate limit and interceptors add to a call.
//!
//! All three have as many connections, lend each to one caller at a time, bound the wait for one by the same
//! time-out, and ask no connection for a sign of life. They run on one runtime, in turns. Tables are printed in
//! Markdown, as they stand in `docs/benchmarks.md`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

mod allocations;
mod chain;
mod contended;
mod pools;
mod uncontended;

use criterion::Criterion;
use tokio::runtime::Runtime;

/// Connections in each pool.
const SLOTS: usize = 8;

fn main() {
    let runtime = Runtime::new().expect("a runtime can be had");
    let mut criterion = Criterion::default().configure_from_args();
    uncontended::criterion(&mut criterion, &runtime);
    chain::around_a_call(&mut criterion, &runtime);
    criterion.final_summary();

    // Without `--bench` this is a test run, which is to show only that it works.
    let effort = if std::env::args().any(|arg| arg == "--bench") {
        Effort { rounds: 15, leases: 100_000 }
    } else {
        Effort { rounds: 1, leases: 1_000 }
    };
    uncontended::report(&runtime, effort);
    contended::report(&runtime, effort);
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// The pools take turns this many times; reported is the median of the rounds.
    rounds: usize,
    /// Leases taken in a round, by all callers together.
    leases: usize,
}

/// The middle one of some figures, or the upper one of the two in the middle.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
