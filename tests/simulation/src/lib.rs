//! The simulated fleet and the real client in one process, in virtual time.
//!
//! A seed is a [`Case`]: hosts and VMs with faults, changes of them at random times, an operation, a policy, and how the run ends.
//! [`simulate`] carries it out over in-memory connections and checks what ATP promises. The same seed gives the same [`Trace`], so
//! that a failure is repeated by its seed alone. See `docs/fleet.md`.
//!
//! ```
//! let simulation = atp_simulation::simulate(7);
//! assert_eq!(simulation.violations, [""; 0]);
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | seed | a number from which all that is random in a case is drawn |
//! | case | the hosts, their faults, the operation and the policy of a seed ([`Case`]) |
//! | fault | what is wrong with a host or a VM: it hangs, refuses, breaks connections |
//! | virtual time | a clock that stands still while there is work, and jumps to the next time that something waits for |
//! | trace | what happened, line by line ([`Trace`]) |
//! | violation | a promise of ATP that did not hold ([`Simulation::violations`]) |

mod case;
mod fleet;
mod laws;
mod record;
mod run;
mod trace;

pub use case::Case;
pub use trace::Trace;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Builder;

/// What a simulation came to.
#[derive(Debug)]
pub struct Simulation {
    /// What happened, line by line.
    pub trace: Trace,
    /// The promises that were broken.
    pub violations: Vec<String>,
}

/// Carries out the case of a seed.
///
/// Must not be called inside a runtime.
pub fn simulate(seed: u64) -> Simulation {
    // ATP draws its random numbers on this thread.
    fastrand::seed(seed);
    let trace = Trace::default();
    let case = Case::of(seed);
    let work = || {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        match runtime {
            Ok(runtime) => runtime.block_on(run::run(&case, &trace)),
            Err(error) => vec![format!("no runtime: {error}")],
        }
    };
    let violations = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        vec![format!("a panic: {}", words.unwrap_or("without a message"))]
    });
    Simulation { trace, violations }
}
