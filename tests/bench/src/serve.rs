//! `atp --server … exec` beside `atp exec`: the same run over the warm connections of a service, and with connections of its own.
//! The hosts are simulated, in this process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use atp_fleet::{Fleet, FleetOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::peers::commands::{binary, wait_for};
use crate::peers::contest::{Contender, Goal, Round, compete, table};
use crate::peers::processes::cpu_of_the_running;

/// The hosts, their VMs, and the time that a message takes there and back.
const HOSTS: u32 = 24;
const VMS: u32 = 2;
const RTT: Duration = Duration::from_millis(1);

const ROUNDS: usize = 15;

/// What the service costs compared with a start of its own.
const GOAL: Goal = Goal { rate: 1.0, cpu: Some(0.5) };

/// A service that runs, and the settings of its clients.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) url: String,
    settings: PathBuf,
    _folder: TempDir,
}

impl Service {
    /// `section` has further settings of it.
    pub(crate) fn start(fleet: &Fleet, section: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (settings, token) = (folder.path().join("fleet.toml"), folder.path().join("token"));
        let state = folder.path().join("state");
        let tokens = folder.path().join("tokens.toml");
        let limits = "starts_per_second = 1000\nrequests_per_second = 1000\nlisten = \"127.0.0.1:0\"";
        let text = format!(
            "server_token_file = {token:?}\n{}\n[serve]\nfolder = {state:?}\ntokens = {tokens:?}\n{limits}\n{section}\n",
            fleet.settings()
        );
        std::fs::write(&settings, text)?;
        let added =
            atp(&settings)?.args(["serve", "token", "add", "bench", "--role", "operator"]).output()?;
        ensure!(added.status.success(), "no token: {}", String::from_utf8_lossy(&added.stderr));
        std::fs::write(&token, added.stdout)?;
        let mut child = atp(&settings)?.arg("serve").stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("the service has no stderr")?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let url = lines.find_map(|line| Some(line[line.find("http://")?..].to_owned()));
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Service { child, url: url.context("the service does not listen")?, settings, _folder: folder })
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Result<Command> {
        let mut command = atp(&self.settings)?;
        command.args(["--quiet", "--server", &self.url]);
        Ok(command)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Measures, and prints the table.
pub(crate) fn report() -> Result<()> {
    let runtime = Runtime::new()?;
    let options = FleetOptions { hosts: HOSTS, vms: VMS, rtt: RTT, ..FleetOptions::default() };
    let fleet = runtime.block_on(Fleet::start(options))?;
    let service = Service::start(&fleet, "")?;
    let exec = |server: &[&str]| -> Result<()> {
        let mut command = atp(&service.settings)?;
        wait_for(command.arg("--quiet").args(server).args(["exec", "*", "--", "true"]))
    };
    let mut table = table("run");
    compete(
        &mut table,
        ROUNDS,
        &[
            Contender::new("`atp --server … exec`, and the service", None, || {
                let before = cpu_of_the_running(service.child.id())?;
                let round = Round::of_processes(|| exec(&["--server", &service.url]))?;
                let of_service = cpu_of_the_running(service.child.id())?.saturating_sub(before);
                Ok(Round { cpu: round.cpu + of_service, ..round })
            }),
            Contender::new("`atp --server … exec` alone", None, || {
                Round::of_processes(|| exec(&["--server", &service.url]))
            }),
            Contender::new("`atp exec`", Some(GOAL), || Round::of_processes(|| exec(&[]))),
        ],
    )?;
    table.print(&format!(
        "A program in {} guests on {HOSTS} hosts, with a round trip of {RTT:?}, by a new process each time; median of {ROUNDS} \
         rounds, in turns:",
        HOSTS * VMS
    ));
    Ok(())
}

/// The program with these settings.
fn atp(settings: &Path) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(["--engine", "native", "--config"]).arg(settings).stdin(Stdio::null());
    Ok(command)
}
