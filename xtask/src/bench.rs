//! `cargo xtask bench`: what the transport costs, in the process and on real daemons.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::{Result, cargo, setup};

/// The part that needs no daemons; all others are parts of `atp-bench`, which knows their names.
const POOL: &str = "pool";

/// Sets up and measures: the parts of those names, or everything.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    setup::run()?;
    let (pool, others): (Vec<_>, Vec<_>) = arguments.iter().partition(|part| *part == POOL);
    let all = arguments.is_empty();
    let mut results = Vec::new();
    if all || !pool.is_empty() {
        results.push(measure(cargo::cargo().args(["bench", "--package", "atp-transport"]))?);
    }
    if all || !others.is_empty() {
        let mut command = cargo::cargo();
        command.args(["run", "--quiet", "--release", "--package", "atp-bench", "--"]).args(others);
        results.push(measure(&mut command)?);
    }
    Ok(if results.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether it succeeded; one that fails keeps no other from being measured.
fn measure(command: &mut Command) -> Result<bool> {
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok(status.success())
}
