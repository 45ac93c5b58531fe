//! Every verb that speaks to a daemon, in the order in which they are tried.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::call::Atp;

/// A verb and what shows that it works.
pub(crate) struct Verb {
    /// Its words on the command line.
    pub(crate) name: &'static str,
    /// What is asserted, for the table.
    pub(crate) shows: &'static str,
    /// Whether it is in the smoke test.
    pub(crate) in_smoke: bool,
    /// Tries it with a folder for files. The guest `vm1` runs before and after.
    pub(crate) check: fn(&Atp, &Path) -> Result<()>,
}

const VM: &str = "h/vm1";

/// Commands of `atp` that connect to nothing, or do what a verb of the table does, or need a guest that writes to its console or its
/// channel, which those of the matrix do not.
pub(crate) const WITHOUT_DAEMON: [&str; 15] = [
    "attach",
    "channel",
    "console",
    "host list",
    "host add",
    "host remove",
    "config",
    "completions",
    "journal show",
    "man",
    "help",
    "release",
    "reserve",
    "serve token",
    "top",
];

const fn verb(
    name: &'static str,
    in_smoke: bool,
    shows: &'static str,
    check: fn(&Atp, &Path) -> Result<()>,
) -> Verb {
    Verb { name, shows, in_smoke, check }
}

/// All of them.
pub(crate) const VERBS: [Verb; 32] = [
    verb("host check", false, "the daemon's version is told", |atp, _| {
        let outcomes = atp.ok(&["host", "check"])?;
        has(&outcomes, "version")
    }),
    verb("vm list", true, "the guest is listed as running", list),
    verb("vm info", false, "the state and the agent's channel are told", |atp, _| {
        has(&atp.ok(&["vm", "info", VM])?, "connected")
    }),
    verb("exec", true, "the guest's kernel says its version", exec),
    verb("cp", true, "a file comes back as it went in", copy),
    verb("wait", false, "the agent answers; a command in the guest succeeds", |atp, _| {
        atp.ok(&["wait", VM, "--for", "agent"])?;
        atp.ok(&["wait", VM, "--for", "exec=true"]).map(drop)
    }),
    verb("qmp", true, "QEMU's monitor says that the guest runs", |atp, _| {
        has(&atp.ok(&["qmp", VM, "--", "query-status"])?, "running")
    }),
    verb("qga", false, "the agent says which commands it has", |atp, _| {
        has(&atp.ok(&["qga", VM, "--", "guest-info"])?, "guest-exec")
    }),
    verb("run", false, "both steps of a scenario are done", |atp, folder| {
        let path = folder.join(format!("scenario-{}.yaml", atp.engine));
        let text = format!("name: matrix\ntargets: {VM}\nsteps:\n  - exec: \"true\"\n  - wait: agent\n");
        fs::write(&path, text)?;
        let outcomes = atp.ok(&["run", &path.to_string_lossy(), "--yes"])?;
        let steps = outcomes.iter().filter_map(|outcome| outcome["data"]["steps"].as_array());
        ensure!(steps.map(Vec::len).eq([2]), "not two steps: {outcomes:?}");
        Ok(())
    }),
    verb("key", false, "the keys are accepted", |atp, _| {
        atp.ok(&["key", VM, "--", "a", "shift-b"]).map(drop)
    }),
    verb("type", false, "the text is accepted", |atp, _| {
        atp.ok(&["type", VM, "--", "Hello, world"]).map(drop)
    }),
    verb("mouse", false, "a move and a click are accepted", |atp, _| {
        atp.ok(&["mouse", VM, "--", "move", "0.5", "0.5"])?;
        atp.ok(&["mouse", VM, "--", "click"]).map(drop)
    }),
    verb("screenshot", false, "a PNG file is written", |atp, folder| {
        let pictures = folder.join(format!("pictures-{}", atp.engine));
        atp.ok(&["screenshot", "-d", &pictures.to_string_lossy(), VM])?;
        let picture = fs::read(pictures.join("h/vm1.png"))?;
        ensure!(picture.starts_with(b"\x89PNG\r\n"), "no PNG");
        Ok(())
    }),
    verb("events", true, "a guest that is paused and resumed is seen", events),
    verb("vm xml", false, "the definition has the VM's name", |atp, _| {
        has(&atp.ok(&["vm", "xml", VM])?, "<name>vm1</name>")
    }),
    verb("vm autostart", false, "it is set, and set back", |atp, _| {
        atp.ok(&["vm", "autostart", "on", VM])?;
        atp.ok(&["vm", "autostart", "off", VM]).map(drop)
    }),
    verb("vm nmi", false, "the interrupt is accepted", |atp, _| {
        atp.ok(&["vm", "nmi", VM, "--yes"]).map(drop)
    }),
    verb("snapshot create", false, "a snapshot of disks and memory is made", |atp, _| {
        has(&atp.ok(&["snapshot", "create", VM, &snapshot(atp)])?, "created")
    }),
    verb("snapshot list", false, "the guest is at the snapshot", |atp, _| {
        has(&atp.ok(&["snapshot", "list", VM])?, &snapshot(atp))
    }),
    verb("snapshot revert", false, "a file that was written since is gone", |atp, _| {
        atp.ok(&["exec", VM, "--", "touch", "/tmp/since"])?;
        atp.ok(&["snapshot", "revert", VM, &snapshot(atp), "--yes"])?;
        atp.ok(&["wait", VM, "--for", "agent"])?;
        atp.ok(&["exec", VM, "--", "test", "!", "-e", "/tmp/since"]).map(drop)
    }),
    verb("snapshot delete", false, "it is not listed any more", |atp, _| {
        atp.ok(&["snapshot", "delete", VM, &snapshot(atp), "--yes"])?;
        let listed = atp.ok(&["snapshot", "list", VM])?;
        ensure!(has(&listed, &snapshot(atp)).is_err(), "it is still listed: {listed:?}");
        Ok(())
    }),
    verb("vm save", false, "the guest is shut off, and its memory saved", |atp, _| {
        atp.ok(&["exec", VM, "--", "touch", "/tmp/saved"])?;
        atp.ok(&["vm", "save", VM, "--yes"])?;
        has(&atp.ok(&["vm", "list"])?, "saved")
    }),
    verb("vm restore", false, "the guest goes on from its memory", |atp, _| {
        // By itself it begins with a guest that runs.
        if state_is(atp, "running").is_ok() {
            atp.ok(&["exec", VM, "--", "touch", "/tmp/saved"])?;
            atp.ok(&["vm", "save", VM, "--yes"])?;
        }
        atp.ok(&["vm", "restore", VM, "--wait"])?;
        atp.ok(&["exec", VM, "--", "rm", "/tmp/saved"]).map(drop)
    }),
    verb("stats", false, "the use of the processor and of QEMU's memory are measured", |atp, _| {
        let rounds = atp.ok(&["stats", VM, "--interval", "1s"])?;
        let vm = rounds.first().map(|round| &round["vms"][0]);
        let vm = vm.context("no round")?;
        let values = [&vm["cpu"]["percent"], &vm["memory"]["resident_kib"]];
        ensure!(values.iter().all(|value| value.is_number()), "a value is missing: {vm}");
        Ok(())
    }),
    verb("vm suspend", false, "the guest is paused", |atp, _| {
        atp.ok(&["vm", "suspend", VM, "--yes"])?;
        state_is(atp, "paused")
    }),
    verb("vm resume", false, "it runs on", |atp, _| {
        atp.ok(&["vm", "resume", VM])?;
        state_is(atp, "running")
    }),
    verb("vm reboot", false, "its agent answers again", |atp, _| {
        atp.ok(&["vm", "reboot", VM, "--yes", "--wait"]).map(drop)
    }),
    verb("vm reset", false, "its agent answers again", |atp, _| {
        atp.ok(&["vm", "reset", VM, "--yes", "--wait"]).map(drop)
    }),
    verb("vm shutdown", false, "it is shut off", |atp, _| {
        atp.ok(&["wait", VM, "--for", "agent"])?;
        atp.ok(&["vm", "shutdown", VM, "--yes", "--wait"])?;
        state_is(atp, "shut off")?;
        atp.ok(&["vm", "start", VM])?;
        atp.ok(&["wait", VM, "--for", "agent"]).map(drop)
    }),
    verb("vm destroy", false, "it is shut off", |atp, _| {
        atp.ok(&["vm", "destroy", VM, "--yes"])?;
        state_is(atp, "shut off")?;
        atp.ok(&["vm", "start", VM])?;
        atp.ok(&["wait", VM, "--for", "agent"]).map(drop)
    }),
    verb("vm start", true, "it runs, after it was shut off", |atp, _| {
        atp.ok(&["vm", "destroy", VM, "--yes"])?;
        atp.ok(&["vm", "start", VM])?;
        state_is(atp, "running")?;
        atp.ok(&["wait", VM, "--for", "agent"]).map(drop)
    }),
    verb("doctor", false, "nothing is a problem", |atp, _| atp.ok(&["doctor"]).map(drop)),
];

/// The name of the snapshot that a pass with one engine makes.
fn snapshot(atp: &Atp) -> String {
    format!("matrix-{}", atp.engine)
}

/// One listing.
pub(crate) fn list(atp: &Atp, _folder: &Path) -> Result<()> {
    let outcomes = atp.ok(&["vm", "list"])?;
    has(&outcomes, "vm1")?;
    has(&outcomes, "running")
}

/// One command in the guest.
pub(crate) fn exec(atp: &Atp, _folder: &Path) -> Result<()> {
    has(&atp.ok(&["exec", VM, "--", "uname", "-r"])?, "cloud-amd64")
}

/// A file into the guest and back.
pub(crate) fn copy(atp: &Atp, folder: &Path) -> Result<()> {
    let [there, back] = ["there", "back"].map(|name| folder.join(format!("{name}-{}", atp.engine)));
    let content: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&there, &content)?;
    let inside = format!("{VM}:/tmp/matrix");
    atp.ok(&["cp", &there.to_string_lossy(), &inside])?;
    atp.ok(&["cp", &inside, &back.to_string_lossy()])?;
    ensure!(fs::read(&back)? == content, "the copy has another content");
    Ok(())
}

fn events(atp: &Atp, _folder: &Path) -> Result<()> {
    let mut watching = atp.start(&["--output", "jsonl", "events", "--for", "100s"])?;
    let stdout = watching.stdout.take().context("no stdout")?;
    let seen = see(atp, BufReader::new(stdout));
    // It may have ended; it is ended here otherwise.
    let _ = watching.kill();
    let _ = watching.wait();
    seen
}

/// Reads the lines of a watch, and pauses and resumes the guest once it is established.
fn see(atp: &Atp, lines: impl BufRead) -> Result<()> {
    let mut wanted = ["running", "suspended", "resumed"].into_iter();
    let mut next = wanted.next();
    for line in lines.lines() {
        let line = line?;
        let Some(word) = next else { break };
        if line.contains("vm1") && line.contains(word) {
            match word {
                "running" => atp.ok(&["vm", "suspend", VM, "--yes"]).map(drop)?,
                "suspended" => atp.ok(&["vm", "resume", VM]).map(drop)?,
                _ => {}
            }
            next = wanted.next();
            if next.is_none() {
                return Ok(());
            }
        }
    }
    bail!("the watch did not show that the guest is {}", next.unwrap_or_default())
}

fn state_is(atp: &Atp, state: &str) -> Result<()> {
    let outcomes = atp.ok(&["vm", "list"])?;
    has(&outcomes, state).or_else(|_| has(&outcomes, &state.replace(' ', "-")))
}

/// Whether the outcomes have this text anywhere in their data.
fn has(outcomes: &[Value], text: &str) -> Result<()> {
    let found = outcomes.iter().any(|outcome| outcome.to_string().contains(text));
    ensure!(found, "{text:?} is not in {outcomes:?}");
    Ok(())
}
