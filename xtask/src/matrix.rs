//! `cargo xtask matrix`: every verb on each daemon, and each way to a daemon, with both engines.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{Result, cargo, setup};

/// Sets up, builds, and continues as `atp-matrix`.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    setup::run_with(setup::OF_TESTS)?;
    // Each by itself, as other tasks build them: the two together would have other features of what they depend on.
    cargo::build(&["atp-cli"])?;
    cargo::build(&["atp-matrix"])?;
    cargo::exec(&cargo::binary("atp-matrix")?, arguments)
}
