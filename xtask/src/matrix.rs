//! `cargo xtask matrix`: every verb on each daemon, and each way to a daemon, with both engines.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{Result, cargo, setup};

/// Sets up, builds, and continues as `atp-matrix`.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    setup::run_with(setup::OF_TESTS)?;
    cargo::build(&["atp-cli", "atp-matrix"])?;
    cargo::exec(&cargo::binary("atp-matrix")?, arguments)
}
