//! Processes that do something once to the whole fleet: `atp`, and the equivalents with `virsh`.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use atp_transport::Engine;

use super::virsh::{self, Shell, xargs};
use super::{Fleet, QUERY, START, status};

/// The `atp` binary in the folder of this one.
pub(crate) fn binary() -> Result<PathBuf> {
    let binary = env::current_exe()?.with_file_name("atp");
    ensure!(
        binary.exists(),
        "{} does not exist\n\nhint: cargo build --release --package atp-cli",
        binary.display()
    );
    Ok(binary)
}

/// Runs `atp` with the fleet's settings for an engine.
pub(super) fn atp(fleet: &Fleet, engine: Engine, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(&fleet.atp);
    let settings = fleet.settings.get(&engine).context("no settings for this engine")?;
    command.arg("--config").arg(settings).args(["--quiet", "--parallel", &fleet.at_once().to_string()]);
    wait_for(command.args(arguments))
}

/// Runs a command that must succeed.
pub(crate) fn wait_for(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}

/// `true` in every guest: a shell script for each, which starts the process and polls it until it has ended.
pub(super) fn exec_by_xargs(fleet: &Fleet) -> Result<()> {
    const SCRIPT: &str = r#"
        agent() { virsh --quiet --connect "$1" qemu-agent-command "$2" "$3"; }
        pid=$(agent "$1" "$2" "$3" | tr -dc 0-9)
        until agent "$1" "$2" '{"execute":"guest-exec-status","arguments":{"pid":'"$pid"'}}' \
            | grep -q '"exited":true'; do :; done
    "#;
    let guests = fleet.guests.iter();
    let lines: String = guests.map(|(uri, vm)| format!("{uri} {vm} '{START}'\n")).collect();
    xargs(fleet.at_once(), &lines, &["sh", "-c", SCRIPT, "sh"])
}

/// The same by one virsh for each host, which handles the guests in sequence.
pub(super) fn exec_by_pipe(fleet: &Fleet) -> Result<()> {
    virsh::converse(&fleet.uris, |shell| {
        for vm in fleet.names() {
            let pid: u64 = shell
                .ask(&agent(vm, START))?
                .chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
                .parse()?;
            while !shell.ask(&agent(vm, &status(pid)))?.contains("\"exited\":true") {}
        }
        Ok(())
    })
}

/// A listing by one virsh for each host.
pub(super) fn list_by_pipe(fleet: &Fleet) -> Result<()> {
    virsh::converse(&fleet.uris, |shell: &mut Shell| shell.ask("list --all").map(drop))
}

/// `query-status` of every VM by one virsh for each host.
pub(super) fn query_by_pipe(fleet: &Fleet) -> Result<()> {
    virsh::converse(&fleet.uris, |shell| fleet.names().try_for_each(|vm| shell.ask(&monitor(vm)).map(drop)))
}

/// The virsh line that sends the query to a VM's monitor.
pub(super) fn monitor(vm: &str) -> String {
    format!("qemu-monitor-command {vm} '{QUERY}'")
}

fn agent(vm: &str, command: &str) -> String {
    format!("qemu-agent-command {vm} '{command}'")
}
