//! `libvirt-python` with a pool of threads: a program beside this file, run by the system's Python.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::contest::Round;

const PROGRAM: &str = include_str!("pool.py");
/// Debian's own Python: others do not find its packages.
const PYTHON: &str = "/usr/bin/python3";

/// The work of the program.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Work<'a> {
    pub(super) job: &'static str,
    pub(super) uris: &'a [String],
    /// Threads for each host.
    pub(super) threads: usize,
    /// Whether the threads of a host share a connection, or have one each.
    pub(super) shared: bool,
    /// The number of calls to each host, or to each VM.
    pub(super) calls: usize,
}

/// The cost of the calls as the program reports it, seconds.
#[derive(Debug, Deserialize)]
struct Answer {
    operations: usize,
    wall: f64,
    cpu: f64,
    latencies: Vec<f64>,
}

/// Checks that the program can be run here.
pub(super) fn check() -> Result<()> {
    let found = Command::new(PYTHON).args(["-c", "import libvirt, libvirt_qemu"]).output();
    ensure!(
        found.is_ok_and(|found| found.status.success()),
        "{PYTHON} has no libvirt module\n\nhint: apt-get install --no-install-recommends python3 python3-libvirt"
    );
    Ok(())
}

/// Lets the program make many calls. The cost of starting and connecting is not counted.
pub(super) fn calls(work: &Work<'_>) -> Result<Round> {
    let Answer { operations, wall, cpu, latencies } = serde_json::from_slice(&run(work)?)?;
    Ok(Round {
        operations,
        wall: Duration::from_secs_f64(wall),
        cpu: Duration::from_secs_f64(cpu),
        latencies: latencies.into_iter().map(Duration::from_secs_f64).collect(),
    })
}

/// Lets the program do something once, and measures from its start to its end.
pub(super) fn once(work: &Work<'_>) -> Result<Round> {
    Round::of_processes(|| run(work).map(drop))
}

fn run(work: &Work<'_>) -> Result<Vec<u8>> {
    let mut command = Command::new(PYTHON);
    command.args(["-c", PROGRAM, &serde_json::to_string(work)?]).stdin(Stdio::null());
    let output = command.stderr(Stdio::inherit()).output().context("cannot run Python")?;
    if !output.status.success() {
        bail!("Python ended with {}", output.status);
    }
    Ok(output.stdout)
}
