//! `cargo xtask demo`: commands in the guests of real hosts, also while one hangs, with checks of its exit codes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Result, cargo, setup};

/// The internal command that runs while the testbed is up.
pub(crate) const STEPS: &str = "demo-steps";

/// A time limit that no command below reaches: the longest waits for a deadline of 5 s.
const HANGS: Duration = Duration::from_secs(30);

/// Sets up, builds, and continues as `testbed run`, which removes the testbed however the demo ends.
pub(crate) fn run() -> Result<ExitCode> {
    setup::run()?;
    println!("Building atp and the testbed …");
    cargo::build(&["atp-cli", "atp-testbed"])?;
    println!("Starting two hosts with two guests each …");
    let own = env::current_exe().map_err(|error| format!("cannot find the path of xtask: {error}"))?;
    let mut arguments = ["run", "--hosts", "2", "--guests", "2", "--"].map(Into::into).to_vec();
    arguments.extend([own.into(), STEPS.into()]);
    cargo::exec(&cargo::binary("testbed")?, &arguments)
}

/// The demo itself, on the testbed named by `ATP_TESTBED`.
pub(crate) fn steps() -> Result<ExitCode> {
    let demo = Demo::new()?;
    println!("Every command below also has {}", demo.hosts.join(" "));

    say("Check the hosts, and list their VMs.");
    demo.atp(&["host", "check"], 0)?;
    demo.atp(&["vm", "list"], 0)?;

    say("One command on every guest. Guests with the same answer are shown together.");
    demo.atp(&["exec", "*", "--", "uname", "-r"], 0)?;

    say("A command that fails: atp shows both streams and the exit code, and exits with 1.");
    demo.atp(&["exec", "*", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], 1)?;

    say("One guest hangs: its QEMU is stopped. The others do not wait for it.");
    demo.fault("h1/vm2", "pause-qemu")?;
    demo.atp(&["exec", "*", "--timeout", "5s", "--", "true"], 1)?;
    demo.fault("h1/vm2", "resume-qemu")?;

    say(
        "One host hangs: its libvirt daemon is stopped. It is reported, and the work on the other host is done.",
    );
    demo.fault("h2", "pause-daemon")?;
    demo.atp(&["exec", "*", "--timeout", "5s", "--", "true"], 1)?;
    demo.fault("h2", "resume-daemon")?;

    say("Both continue, and everything works again.");
    demo.atp(&["exec", "*", "--", "true"], 0)?;

    println!(
        "\nThe demo is complete: every command had the expected exit code. `cargo xtask testbed up` starts such hosts for your own tests."
    );
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    atp: PathBuf,
    testbed: PathBuf,
    hosts: Vec<String>,
}

impl Demo {
    fn new() -> Result<Self> {
        let (atp, testbed) = (cargo::binary("atp")?, cargo::binary("testbed")?);
        let output =
            Command::new(&testbed).arg("hosts").output().map_err(|error| cannot_run(&testbed, &error))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let hosts =
            String::from_utf8_lossy(&output.stdout).lines().map(|host| format!("--host {host}")).collect();
        Ok(Self { atp, testbed, hosts })
    }

    /// Shows and runs an atp command, and checks its exit code.
    fn atp(&self, arguments: &[&str], expected: i32) -> Result<()> {
        let line = format!("atp {}", arguments.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        println!("\n$ {line}");
        let mut command = Command::new(&self.atp);
        command.args(self.hosts.iter().flat_map(|host| host.split(' '))).args(arguments);
        let start = Instant::now();
        let mut child = command.spawn().map_err(|error| cannot_run(&self.atp, &error))?;
        let code = wait(&mut child).map_err(|problem| format!("`{line}` {problem}"))?;
        println!("[exit code {code}, {:.1} s]", start.elapsed().as_secs_f64());
        if code == expected {
            Ok(())
        } else {
            Err(format!("`{line}` exited with {code}, not with {expected}"))
        }
    }

    fn fault(&self, target: &str, fault: &str) -> Result<()> {
        println!("\n$ testbed fault {target} {fault}");
        let status = Command::new(&self.testbed).args(["fault", target, fault]).status();
        let status = status.map_err(|error| cannot_run(&self.testbed, &error))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`testbed fault {target} {fault}` failed ({status})"))
        }
    }
}

fn say(what: &str) {
    println!("\n# {what}");
}

/// Waits for the exit code of a command that must not hang.
fn wait(child: &mut Child) -> std::result::Result<i32, String> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.code().ok_or_else(|| format!("died ({status})")),
            Ok(None) if start.elapsed() > HANGS => {
                // An error means that it has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("still ran after {HANGS:?}"));
            }
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

/// A word, quoted for a shell if necessary.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

fn cannot_run(program: &Path, error: &std::io::Error) -> String {
    format!("cannot run {}: {error}", program.display())
}
