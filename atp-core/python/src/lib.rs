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
//! - **Threads of the runtime never touch the interpreter.** What waits in Python waits without the interpreter's lock, in short
//!   intervals if signals arrive in that thread. An event loop is woken through a descriptor (`bridge::Bridge`). So the
//!   interpreter can end while calls hang.
//! - **A process that was forked** has none of these threads. Each call compares the process's id, and nothing of its parent is
//!   dropped there, as a lock may have been held during the fork.

mod bridge;
mod core;
mod error;
mod feed;
mod files;
mod forked;
mod frame;
mod outcomes;
mod reservations;
mod run;
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
    use crate::outcomes::{Outcome, Outcomes};
    #[pymodule_export]
    use crate::reservations::{release, reserve};
    #[pymodule_export]
    use crate::run::Run;
    #[pymodule_export]
    use crate::statistics::Statistics;
}
