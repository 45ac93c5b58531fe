//! The tools of the end-to-end tests: one shared testbed, and the real `atp` binary with a deadline.
//!
//! ```no_run
//! let bed = atp_e2e::bed(); // exclusive: three hosts with two guests each, without faults
//! bed.host("h2")?.pause_daemon()?;
//! let run = bed.run(&["--timeout", "5s", "exec", "h1/*", "h2/*", "--", "true"]);
//! run.exits_with(1);
//! assert_eq!(run.brief(), ["h1/vm1 ok done", "h1/vm2 ok done", "h2 unreachable none connect-timeout"]);
//! # Ok::<(), atp_testbed::Error>(())
//! ```
//!
//! Every failure here panics and so fails the calling test: there are no other users. A test never waits without a
//! limit: `atp` is killed at a deadline, [`within`] limits the time of library calls, and [`eventually`] and
//! [`becomes`] limit the wait for a state.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | bed | the hosts and guests of the testbed, for one test at a time ([`bed()`]) |
//! | run | the result of a call of `atp`: its exit code, outcomes and messages ([`Run`]) |
//! | brief | an outcome in a line: target, status, effect, kind of the error ([`Run::brief`]) |
//! | engine | what speaks to the daemons: `native` or `library`, as `ATP_ENGINE` says ([`engine()`]) |

mod atp;
mod bed;
mod engine;
mod outcome;
mod process;
mod run;
mod wait;

pub use atp::Atp;
pub use bed::{Bed, bed};
pub use engine::{config, engine};
pub use outcome::{Failure, LibvirtCode, Outcome};
pub use process::{Resources, is_stopped};
pub use run::{Run, Running};
pub use wait::{becomes, eventually, within};
