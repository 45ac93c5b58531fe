//! `cargo xtask schemathesis`: the HTTP API of `atp serve` on a simulated fleet, tried with requests that schemathesis generates
//! from the API's own description.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use crate::{Result, cargo, setup};

/// The version that the options below are for.
const VERSION: &str = "schemathesis==4.32.5";

/// What decides which requests are generated.
const SEED: &str = "7";

/// The most generated requests of each operation and phase: the whole takes some minutes.
const EXAMPLES: &str = "20";

/// A process that ends with this one.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a fleet and a service, and tries it.
pub(crate) fn run() -> Result<ExitCode> {
    setup::run_with(&["python3-venv"])?;
    cargo::build(&["atp-fleet", "atp-cli"])?;
    let folder = cargo::root().join("target/schemathesis");
    let program = install(&folder)?;
    // What a run before has left would be among the answers.
    let state = folder.join("state");
    let _none = fs::remove_dir_all(&state);
    let settings = folder.join("fleet.toml");
    let _none = fs::remove_file(&settings);
    let mut fleet = Command::new(cargo::binary("fleet")?);
    fleet.args(["up", "--hosts", "2", "--vms", "2", "--write"]).arg(&settings).stdout(Stdio::null());
    let mut fleet = Running(started(&mut fleet)?);
    while !fs::read_to_string(&settings).is_ok_and(|text| text.contains("[hosts.h2]")) {
        if let Ok(Some(status)) = fleet.0.try_wait() {
            return Err(format!("the fleet has ended: {status}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let limits = "starts_per_second = 10000\nrequests_per_second = 10000\nmax_files = 1073741824";
    let serve = format!("[serve]\nlisten = \"127.0.0.1:0\"\nfolder = {state:?}\n{limits}\n");
    let hosts = fs::read_to_string(&settings).map_err(|error| error.to_string())?;
    let whole = folder.join("serve.toml");
    fs::write(&whole, hosts + "\n" + &serve).map_err(|error| error.to_string())?;
    let atp = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new(cargo::binary("atp")?);
        command.arg("--config").arg(&whole).args(arguments).stdin(Stdio::null());
        Ok(command)
    };
    let added = atp(&["serve", "token", "add", "schemathesis", "--role", "admin"])?.output();
    let added = added.map_err(|error| format!("cannot run atp: {error}"))?;
    let token = String::from_utf8_lossy(&added.stdout).trim().to_owned();
    let mut service = Running(started(atp(&["serve"])?.stderr(Stdio::piped()))?);
    let stderr = service.0.stderr.take().ok_or("the service has no stderr")?;
    let mut lines = BufReader::new(stderr).lines().map_while(std::result::Result::ok);
    let url = lines.find_map(|line| Some(line[line.find("http://")?..].to_owned()));
    let url = url.ok_or("the service does not listen")?;
    // What it says later must not fill the pipe.
    thread::spawn(move || lines.for_each(drop));
    let mut command = Command::new(program);
    command.arg("run").arg(format!("{url}/api/v1/openapi.json"));
    command.args([
        "--header",
        &format!("Authorization: Bearer {token}"),
        "--seed",
        SEED,
        "--max-examples",
        EXAMPLES,
    ]);
    // A stream has no end. Some texts, such as selectors, have a syntax that no schema describes. A token is sent with each
    // request, so that what a request without one is answered says nothing: a test of the service asks that of each route.
    command.args(["--exclude-path-regex", "/events$"]);
    command.args(["--exclude-checks", "positive_data_acceptance,ignored_auth"]);
    command.current_dir(&folder);
    let status = command.status().map_err(|error| format!("cannot run schemathesis: {error}"))?;
    match service.0.try_wait() {
        Ok(None) => Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        ended => Err(format!("the service has ended: {ended:?}")),
    }
}

/// Installs it below a folder, in a Python environment of its own.
fn install(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join("venv");
    let done = |command: &mut Command| match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} ended with {status}", command.get_program().display())),
        Err(error) => Err(format!("cannot run {}: {error}", command.get_program().display())),
    };
    done(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let pip = environment.join("bin/pip");
    done(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", VERSION]))?;
    Ok(environment.join("bin/schemathesis"))
}

fn started(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))
}
