//! `cargo xtask bench`: the cost of ATP in the process, on real daemons and compared with other tools.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::{Result, cargo, python, setup};

/// The parts that need no daemons, with their packages. All other parts belong to `atp-bench`, which knows their
/// names.
const IN_PROCESS: [(&str, &str); 2] = [("pool", "atp-transport"), ("scrape", "atp-telemetry")];

/// The part that compares `atp` with other tools, and the packages it needs in addition to those of the tests.
const PEERS: (&str, &[&str]) = ("peers", &["python3", "python3-libvirt"]);

/// The part that compares the Python package with libvirt-python.
const PYTHON: &str = "python";

/// The part that needs PostgreSQL.
const CLUSTER: (&str, &str) = ("cluster", "postgresql-15");

/// Sets up and measures: the parts with these names, or all.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let all = arguments.is_empty();
    let (peers, packages) = PEERS;
    let (of_python, arguments): (Vec<_>, Vec<_>) = arguments.iter().partition(|part| *part == PYTHON);
    let with = |name: &str| all || arguments.iter().any(|part| *part == name);
    let with_python = all || !of_python.is_empty();
    let mut needed = if with(peers) || with_python { packages.to_vec() } else { Vec::new() };
    let (cluster, server) = CLUSTER;
    if with(cluster) {
        needed.push(server);
    }
    setup::run_with(&needed)?;
    let is_ours = |part: &&OsString| IN_PROCESS.iter().any(|(name, _)| *part == name);
    let (ours, others): (Vec<_>, Vec<_>) = arguments.into_iter().partition(is_ours);
    let mut results = Vec::new();
    for (name, package) in IN_PROCESS {
        if all || ours.iter().any(|part| *part == name) {
            results.push(measure(cargo::cargo().args(["bench", "--package", package]))?);
        }
    }
    if all || !others.is_empty() {
        // Both in one build: common dependencies are built once, and `atp-bench` finds `atp` in its own folder.
        let built = measure(cargo::cargo().args(["build", "--quiet", "--release"]).args([
            "--package",
            "atp-bench",
            "--package",
            "atp-cli",
        ]))?;
        results.push(built && measure(Command::new(cargo::released("atp-bench")?).args(others))?);
    }
    if with_python {
        results.push(python::bench()? == ExitCode::SUCCESS);
    }
    Ok(if results.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs a measurement and returns whether it succeeded. A failure does not stop the later ones.
fn measure(command: &mut Command) -> Result<bool> {
    let status = command.status();
    let status =
        status.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    Ok(status.success())
}
