//! The extension module of the Python package `atp_libvirt`: fleets of virtual machines in test suites and notebooks.
//!
//! ```text
//! python/atp_libvirt   what users see: typed methods and results, exceptions, the asyncio face, the pytest plugin
//!        │  a request as JSON, as programs of ATP exchange it
//! Core ──► Run ──► Outcomes ──► Arrow
//! ```
//!
//! A `core::Core` has the hosts, or the service, and a runtime of its own. It makes a `run::Run` of each request, of
//! which outcomes are taken one by one or all at once.
//!
//! - **Work never touches the interpreter.** What waits in Python waits without the interpreter's lock, in short
//!   intervals if signals arrive in that thread. An event loop is woken through a descriptor (`bridge::Bridge`). So the
//!   interpreter can end while calls hang.
//! - **A call that waits drives the runtime in its own thread** (`driver::Driver`): no request and no answer passes between threads.
//! - **A process that was forked** has none of these threads. Each call compares the process's id, and nothing of its parent is
//!   dropped there, as a lock may have been held during the fork.
//!
//! What users see of it:
//!
//! ```python
//! from atp_libvirt import Fleet
//!
//! with Fleet(hosts={"node7": "qemu+tcp://10.0.0.7/system"}) as fleet:
//!     for outcome in fleet.exec("node7/*", ["uname", "-r"], timeout=10):
//!         print(outcome.target, outcome.status, outcome.data.stdout.text)
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | face | one of the classes over which the verbs are called: with or without asyncio, with outcomes as a list or one by one |
//! | core | the hosts, or the service, with a runtime of its own (`core::Core`) |
//! | run | one operation on many targets, under way (`run::Run`) |
//! | outcome | the result of a target; it is read when it is asked for (`outcomes::Outcome`) |
//! | frame | all outcomes of a run as a record batch of Arrow |
//! | plan | what a run would do, as JSON: nothing is changed |
//! | feed | what has no end of its own, as JSON: events, lines of consoles, rounds of statistics (`feed::Feed`) |
//! | pipe | a console or channel of one VM, open for bytes both ways (`pipe::Pipe`) |

mod bridge;
mod core;
mod driver;
mod error;
mod feed;
mod forked;
mod frame;
mod journal;
mod json;
mod outcomes;
mod pipe;
mod reservations;
mod run;
mod scenario;
mod settings;
mod statistics;
mod wait;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::bridge::Bridge;
    #[pymodule_export]
    use crate::core::Core;
    #[pymodule_export]
    use crate::feed::Feed;
    #[pymodule_export]
    use crate::journal::journal;
    #[pymodule_export]
    use crate::outcomes::{Found, Outcome, Outcomes};
    #[pymodule_export]
    use crate::pipe::Pipe;
    #[pymodule_export]
    use crate::reservations::{Claim, release, reservations};
    #[pymodule_export]
    use crate::run::Run;
    #[pymodule_export]
    use crate::scenario::scenario;
    #[pymodule_export]
    use crate::statistics::Statistics;
}
