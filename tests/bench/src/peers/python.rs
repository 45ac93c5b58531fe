//! `libvirt-python` with a pool of threads: a program beside this file, run by the system's own Python.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::contest::Round;

const PROGRAM: &str = include_str!("pool.py");
/// Debian's own: others do not see its packages.
const PYTHON: &str = "/usr/bin/python3";

/// What the program is to do.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Work<'a> {
    pub(super) job: &'static str,
    pub(super) uris: &'a [String],
    /// Threads for each host.
    pub(super) threads: usize,
    /// Whether the threads of a host share a connection, or have one each.
    pub(super) shared: bool,
    /// How often each host, or each VM, is asked.
    pub(super) calls: usize,
}

/// What the program says that the calls took, seconds.
#[derive(Debug, Deserialize)]
struct Answer {
    operations: usize,
    wall: f64,
    cpu: f64,
    latencies: Vec<f64>,
}

/// Whether it can be run here.
pub(super) fn check() -> Result<()> {
    let found = Command::new(PYTHON).args(["-c", "import libvirt, libvirt_qemu"]).output();
    ensure!(
        found.is_ok_and(|found| found.status.success()),
        "{PYTHON} has no libvirt module\n\nhint: apt-get install --no-install-recommends python3 python3-libvirt"
    );
    Ok(())
}

/// Has it make many calls. What starting and connecting take is not counted.
pub(super) fn calls(work: &Work<'_>) -> Result<Round> {
    let Answer { operations, wall, cpu, latencies } = serde_json::from_slice(&run(work)?)?;
    Ok(Round {
        operations,
        wall: Duration::from_secs_f64(wall),
        cpu: Duration::from_secs_f64(cpu),
        latencies: latencies.into_iter().map(Duration::from_secs_f64).collect(),
    })
}

/// Has it do something once, from its start to its end.
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
