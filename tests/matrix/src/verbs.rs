//! Every verb that speaks to a daemon, in the order in which they are tried.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::ChildStdout;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::call::{self, Atp};

/// A verb and what shows that it works.
pub(crate) struct Verb {
    /// Its words on the command line.
    pub(crate) name: &'static str,
    /// What is asserted, for the table.
    pub(crate) shows: &'static str,
    /// Whether it is in the smoke test.
    pub(crate) in_smoke: bool,
    /// Tries it with a folder for files. The guest `vm1` runs before and after. Returns the words of the table.
    pub(crate) check: fn(&Atp, &Path) -> Result<String>,
}

const VM: &str = "h/vm1";

/// Commands of `atp` that connect to no daemon.
pub(crate) const WITHOUT_DAEMON: [&str; 11] = [
    "check",
    "host list",
    "host add",
    "host remove",
    "config",
    "completions",
    "journal show",
    "man",
    "help",
    "release",
    "serve token",
];

/// What is written in a cell of what works.
pub(crate) const OK: &str = "ok";

/// A verb that has to work on every daemon.
macro_rules! verb {
    ($name:literal, $in_smoke:literal, $shows:literal, $check:expr) => {
        Verb {
            name: $name,
            shows: $shows,
            in_smoke: $in_smoke,
            check: |atp, folder| {
                let check: fn(&Atp, &Path) -> Result<()> = $check;
                check(atp, folder).map(|()| OK.to_owned())
            },
        }
    };
}

/// All of them.
pub(crate) const VERBS: [Verb; 38] = [
    verb!("host check", false, "the daemon's version is told", |atp, _| {
        let outcomes = atp.ok(&["host", "check"])?;
        has(&outcomes, "version")
    }),
    verb!("vm list", true, "the guest is listed as running", list),
    verb!("vm info", false, "the state and the agent's channel are told", |atp, _| {
        has(&atp.ok(&["vm", "info", VM])?, "connected")
    }),
    verb!("exec", true, "the guest's kernel says its version", exec),
    verb!("cp", true, "a file comes back as it went in", copy),
    verb!("wait", false, "the agent answers; a command in the guest succeeds", |atp, _| {
        atp.ok(&["wait", VM, "--for", "agent"])?;
        atp.ok(&["wait", VM, "--for", "exec=true"]).map(drop)
    }),
    verb!("qmp", true, "QEMU's monitor says that the guest runs", |atp, _| {
        has(&atp.ok(&["qmp", VM, "--", "query-status"])?, "running")
    }),
    verb!("qga", false, "the agent says which commands it has", |atp, _| {
        has(&atp.ok(&["qga", VM, "--", "guest-info"])?, "guest-exec")
    }),
    verb!("run", false, "both steps of a scenario are done", |atp, folder| {
        let path = folder.join(format!("scenario-{}.yaml", atp.engine));
        let text = format!("name: matrix\ntargets: {VM}\nsteps:\n  - exec: \"true\"\n  - wait: agent\n");
        fs::write(&path, text)?;
        let outcomes = atp.ok(&["run", &path.to_string_lossy(), "--yes"])?;
        let steps = outcomes.iter().filter_map(|outcome| outcome["data"]["steps"].as_array());
        ensure!(steps.map(Vec::len).eq([2]), "not two steps: {outcomes:?}");
        Ok(())
    }),
    verb!("key", false, "the keys are accepted", |atp, _| {
        atp.ok(&["key", VM, "--", "a", "shift-b"]).map(drop)
    }),
    verb!("type", false, "the text is accepted", |atp, _| {
        atp.ok(&["type", VM, "--", "Hello, world"]).map(drop)
    }),
    verb!("mouse", false, "a move and a click are accepted", |atp, _| {
        atp.ok(&["mouse", VM, "--", "move", "0.5", "0.5"])?;
        atp.ok(&["mouse", VM, "--", "click"]).map(drop)
    }),
    verb!("screenshot", false, "a PNG file is written", |atp, folder| {
        let pictures = folder.join(format!("pictures-{}", atp.engine));
        atp.ok(&["screenshot", "-d", &pictures.to_string_lossy(), VM])?;
        let picture = fs::read(pictures.join("h/vm1.png"))?;
        ensure!(picture.starts_with(b"\x89PNG\r\n"), "no PNG");
        Ok(())
    }),
    verb!("events", true, "a guest that is paused and resumed is seen", events),
    verb!("console", false, "a line that the guest writes is shown", console),
    verb!("attach", false, "a line that the guest writes is shown on a terminal; Ctrl-] ends it", attach),
    verb!("channel", false, "what is sent to the guest comes back", channel),
    verb!("vm xml", false, "the definition has the VM's name", |atp, _| {
        has(&atp.ok(&["vm", "xml", VM])?, "<name>vm1</name>")
    }),
    verb!("vm autostart", false, "it is set, and set back", |atp, _| {
        atp.ok(&["vm", "autostart", "on", VM])?;
        atp.ok(&["vm", "autostart", "off", VM]).map(drop)
    }),
    verb!("vm nmi", false, "the interrupt is accepted", |atp, _| {
        atp.ok(&["vm", "nmi", VM, "--yes"]).map(drop)
    }),
    verb!("snapshot create", false, "a snapshot of disks and memory is made", |atp, _| {
        has(&atp.ok(&["snapshot", "create", VM, &snapshot(atp)])?, "created")
    }),
    verb!("snapshot list", false, "the guest is at the snapshot", |atp, _| {
        has(&atp.ok(&["snapshot", "list", VM])?, &snapshot(atp))
    }),
    verb!("snapshot revert", false, "a file that was written since is gone", |atp, _| {
        atp.ok(&["exec", VM, "--", "touch", "/tmp/since"])?;
        atp.ok(&["snapshot", "revert", VM, &snapshot(atp), "--yes"])?;
        atp.ok(&["wait", VM, "--for", "agent"])?;
        atp.ok(&["exec", VM, "--", "test", "!", "-e", "/tmp/since"]).map(drop)
    }),
    verb!("snapshot delete", false, "it is not listed any more", |atp, _| {
        atp.ok(&["snapshot", "delete", VM, &snapshot(atp), "--yes"])?;
        let listed = atp.ok(&["snapshot", "list", VM])?;
        ensure!(has(&listed, &snapshot(atp)).is_err(), "it is still listed: {listed:?}");
        Ok(())
    }),
    Verb {
        name: "snapshot create --disk-only",
        shows: "a quiesced snapshot of the disks of a guest that runs is reverted to, and deleted",
        in_smoke: true,
        check: of_disks,
    },
    verb!("vm save", false, "the guest is shut off, and its memory saved", |atp, _| {
        save(atp)?;
        let saved = has(&atp.ok(&["vm", "list"])?, "saved");
        // The next one begins with a guest that runs.
        atp.ok(&["vm", "start", VM, "--wait"])?;
        saved
    }),
    verb!("vm restore", false, "the guest goes on from its memory", |atp, _| {
        save(atp)?;
        atp.ok(&["vm", "restore", VM, "--wait"])?;
        atp.ok(&["exec", VM, "--", "rm", "/tmp/saved"]).map(drop)
    }),
    verb!("stats", false, "the use of the processor and of QEMU's memory are measured", |atp, _| {
        let rounds = atp.ok(&["stats", VM, "--interval", "1s"])?;
        let vm = rounds.first().map(|round| &round["vms"][0]);
        let vm = vm.context("no round")?;
        let values = [&vm["cpu"]["percent"], &vm["memory"]["resident_kib"]];
        ensure!(values.iter().all(|value| value.is_number()), "a value is missing: {vm}");
        Ok(())
    }),
    verb!("top", false, "the guest is on the screen; q ends it", |atp, _| {
        on_terminal(atp, &["top", VM], &["vm1"], b"q")
    }),
    verb!("reserve", false, "the guest is its owner's, and no other's until it is released", reserve),
    verb!("vm suspend", false, "the guest is paused", |atp, _| {
        atp.ok(&["vm", "suspend", VM, "--yes"])?;
        state_is(atp, "paused")
    }),
    verb!("vm resume", false, "it runs on", |atp, _| {
        atp.ok(&["vm", "resume", VM])?;
        state_is(atp, "running")
    }),
    verb!("vm reboot", false, "its agent answers again", |atp, _| {
        atp.ok(&["vm", "reboot", VM, "--yes", "--wait"]).map(drop)
    }),
    verb!("vm reset", false, "its agent answers again", |atp, _| {
        atp.ok(&["vm", "reset", VM, "--yes", "--wait"]).map(drop)
    }),
    verb!("vm shutdown", false, "it is shut off", |atp, _| {
        atp.ok(&["wait", VM, "--for", "agent"])?;
        atp.ok(&["vm", "shutdown", VM, "--yes", "--wait"])?;
        state_is(atp, "shut off")?;
        atp.ok(&["vm", "start", VM])?;
        atp.ok(&["wait", VM, "--for", "agent"]).map(drop)
    }),
    verb!("vm destroy", false, "it is shut off", |atp, _| {
        atp.ok(&["vm", "destroy", VM, "--yes"])?;
        state_is(atp, "shut off")?;
        atp.ok(&["vm", "start", VM])?;
        atp.ok(&["wait", VM, "--for", "agent"]).map(drop)
    }),
    verb!("vm start", true, "it runs, after it was shut off", |atp, _| {
        atp.ok(&["vm", "destroy", VM, "--yes"])?;
        atp.ok(&["vm", "start", VM])?;
        state_is(atp, "running")?;
        atp.ok(&["wait", VM, "--for", "agent"]).map(drop)
    }),
    verb!("doctor", false, "nothing is a problem", |atp, _| atp.ok(&["doctor"]).map(drop)),
];

/// The guest writes this line to its console once a second for two minutes, in the background: what it writes before the
/// console is open is lost.
const LINE: &str = "written by the guest";

fn write_lines(atp: &Atp) -> Result<()> {
    let lines = format!(
        "(for i in $(seq 120); do echo '{LINE}' > /dev/ttyS0; sleep 1; done) < /dev/null > /dev/null 2>&1 &"
    );
    atp.ok(&["exec", VM, "--shell", "--", &lines]).map(drop)
}

fn console(atp: &Atp, _folder: &Path) -> Result<()> {
    write_lines(atp)?;
    let mut capture = atp.start(&["--output", "jsonl", "console", VM, "--follow"])?;
    let stdout = capture.stdout.take().context("no stdout")?;
    let seen = until(stdout, &[LINE]);
    call::end(capture)?;
    seen
}

fn attach(atp: &Atp, _folder: &Path) -> Result<()> {
    write_lines(atp)?;
    on_terminal(atp, &["attach", VM], &["attached to h/vm1", LINE], &[0x1d])
}

/// Runs it on a terminal of its own until all these words were shown, and then types these keys, which have to end it.
fn on_terminal(atp: &Atp, arguments: &[&str], words: &[&str], keys: &[u8]) -> Result<()> {
    let mut running = atp.start_on_terminal(arguments)?;
    let mut stdin = running.stdin.take().context("no stdin")?;
    let stdout = running.stdout.take().context("no stdout")?;
    let mut shown = Reading::of(stdout);
    let ended = shown.until(words).and_then(|()| Ok(stdin.write_all(keys)?)).and_then(|()| {
        // What is not read keeps it from ending.
        shown.read_on()?;
        let status = running.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    });
    drop(stdin);
    call::end(running)?;
    ended
}

fn channel(atp: &Atp, _folder: &Path) -> Result<()> {
    atp.ok(&["exec", VM, "--", "channel-peer", "bytes"])?;
    let arguments = ["channel", VM, "org.atp.test.channel", "--idle", "20s"];
    let mut channel = atp.start(&arguments)?;
    let mut stdin = channel.stdin.take().context("no stdin")?;
    let stdout = channel.stdout.take().context("no stdout")?;
    let came_back = stdin.write_all(b"there and back\n").map_err(Into::into);
    let came_back = came_back.and_then(|()| until(stdout, &["there and back"]));
    call::end(channel)?;
    came_back
}

fn reserve(atp: &Atp, folder: &Path) -> Result<()> {
    let file = folder.join(format!("reserved-{}", atp.engine));
    let file = file.to_str().context("a path that is not UTF-8")?;
    let reserve = |owner: &str| atp.call(&["reserve", VM, "--for", "1h", "--owner", owner, "--file", file]);
    has(&reserve("matrix")?.outcomes()?, "vm1")?;
    let other = reserve("another")?;
    ensure!(!other.is_ok(), "it was reserved twice");
    atp.ok(&["release", "--owner", "matrix", "--file", file])?;
    has(&reserve("another")?.outcomes()?, "vm1")
}

/// A snapshot of the disks of a guest that runs, in files of its own, where the daemon can revert it; elsewhere it is refused.
fn of_disks(atp: &Atp, _folder: &Path) -> Result<String> {
    let name = format!("disks-{}", atp.engine);
    let look = ["exec", VM, "--shell", "--", "mount-data; cat /data/matrix"];
    let write = |content: &str| {
        let line = format!("mount-data; echo {content} > /data/matrix; sync");
        atp.ok(&["exec", VM, "--shell", "--", &line])
    };
    write("before")?;
    let create = ["snapshot", "create", VM, &name, "--disk-only", "--quiesce"];
    let created = atp.call(&create)?;
    if !created.is_ok() {
        return created.refused_as(&["snapshot-impossible"]).map(|kind| format!("`{kind}`"));
    }
    write("after")?;
    atp.ok(&["snapshot", "revert", VM, &name, "--start", "--yes"])?;
    atp.ok(&["wait", VM, "--for", "agent"])?;
    has(&atp.ok(&look)?, "before")?;
    atp.ok(&["snapshot", "delete", VM, &name, "--yes"])?;
    let listed = atp.ok(&["snapshot", "list", VM])?;
    ensure!(has(&listed, &name).is_err(), "it is still listed: {listed:?}");
    has(&atp.ok(&look)?, "before")?;
    Ok(OK.to_owned())
}

/// Reads until all these words have been seen, in this order.
fn until(stdout: ChildStdout, words: &[&str]) -> Result<()> {
    Reading::of(stdout).until(words)
}

/// What a program writes, by bytes: a terminal's lines may never end.
struct Reading {
    stdout: ChildStdout,
    text: String,
}

impl Reading {
    fn of(stdout: ChildStdout) -> Self {
        Self { stdout, text: String::new() }
    }

    fn until(&mut self, words: &[&str]) -> Result<()> {
        let mut from = 0;
        for word in words {
            from = loop {
                if let Some(at) = self.text[from..].find(word) {
                    break from + at + word.len();
                }
                ensure!(self.more()?, "it ended before it showed {word:?}");
            };
        }
        Ok(())
    }

    fn read_on(&mut self) -> Result<()> {
        while self.more()? {}
        Ok(())
    }

    /// Reads what there is. False at the end.
    fn more(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        // The end of a terminal is an error.
        let read = self.stdout.read(&mut buffer).unwrap_or_default();
        self.text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        Ok(read > 0)
    }
}

/// Saves the memory of the guest, with a file in it.
fn save(atp: &Atp) -> Result<()> {
    atp.ok(&["exec", VM, "--", "touch", "/tmp/saved"])?;
    atp.ok(&["vm", "save", VM, "--yes"]).map(drop)
}

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
    call::end(watching)?;
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
