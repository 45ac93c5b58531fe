//! `cargo xtask bench`: what ATP costs, in the process, on real daemons and beside other tools.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::{Result, cargo, setup};

/// The parts that need no daemons, and the packages they are in; all others are parts of `atp-bench`, which knows
/// their names.
const IN_PROCESS: [(&str, &str); 2] = [("pool", "atp-transport"), ("scrape", "atp-telemetry")];

/// The part that compares `atp` with other tools, and what it needs besides what tests need.
const PEERS: (&str, &[&str]) = ("peers", &["python3", "python3-libvirt"]);

/// Sets up and measures: the parts of those names, or everything.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let all = arguments.is_empty();
    let (peers, packages) = PEERS;
    let with_peers = all || arguments.iter().any(|part| part == peers);
    setup::run_with(if with_peers { packages } else { &[] })?;
    let is_ours = |part: &&OsString| IN_PROCESS.iter().any(|(name, _)| *part == name);
    let (ours, others): (Vec<_>, Vec<_>) = arguments.iter().partition(is_ours);
    let mut results = Vec::new();
    for (name, package) in IN_PROCESS {
        if all || ours.iter().any(|part| *part == name) {
            results.push(measure(cargo::cargo().args(["bench", "--package", package]))?);
        }
    }
    if all || !others.is_empty() {
        // Together: what they share is built once, and the program that measures finds `atp` beside itself.
        let built = measure(cargo::cargo().args(["build", "--quiet", "--release"]).args([
            "--package",
            "atp-bench",
            "--package",
            "atp-cli",
        ]))?;
        results.push(built && measure(Command::new(cargo::released("atp-bench")?).args(others))?);
    }
    Ok(if results.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether it succeeded; one that fails keeps no other from being measured.
fn measure(command: &mut Command) -> Result<bool> {
    let status = command.status();
    let status =
        status.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    Ok(status.success())
}
