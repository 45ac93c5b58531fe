//! What the end-to-end tests are written with: one testbed for all of them, and the real `atp` binary under a
//! deadline.
//!
//! ```no_run
//! let bed = atp_e2e::bed(); // alone with three hosts of two guests each, all in order
//! bed.host("h2")?.pause_daemon()?;
//! let run = bed.run(&["--timeout", "5s", "exec", "h1/*", "h2/*", "--", "true"]);
//! run.exits_with(1);
//! assert_eq!(run.brief(), ["h1/vm1 ok done", "h1/vm2 ok done", "h2 unreachable none connect-timeout"]);
//! # Ok::<(), atp_testbed::Error>(())
//! ```
//!
//! Everything here fails the calling test by panicking: it has no other users. A test never waits without end:
//! `atp` is killed at a deadline, [`within`] bounds what is done through the library, and [`eventually`] and
//! [`becomes`] bound waiting for a state.

mod atp;
mod bed;
mod outcome;
mod process;
mod run;
mod wait;

pub use atp::Atp;
pub use bed::{Bed, bed};
pub use outcome::{Failure, LibvirtCode, Outcome};
pub use process::{Resources, is_stopped};
pub use run::{Run, Running};
pub use wait::{becomes, eventually, within};
