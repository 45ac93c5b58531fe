//! `fleet`: a simulated fleet as a process.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use atp_fleet::{Faults, Fleet, FleetOptions};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Simulated libvirt hosts on 127.0.1.1 and the addresses after it, for tests and experiments.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a fleet, and run it until Ctrl-C.
    Up(Up),
    /// Print what a running fleet has executed, as JSON.
    Report {
        /// The fleet's port.
        #[arg(long)]
        port: u16,
    },
    /// Set the fault of a host or a VM of a running fleet.
    Fault {
        /// The fleet's port.
        #[arg(long)]
        port: u16,
        /// `h7` or `h7/vm1`.
        target: String,
        /// Of a host: `refused`, `dead`, `behind`, `slow:TIME`, `flapping:UP/DOWN`, `cutting:N`. Of a VM: `hung`, `agent-silent`,
        /// `agent-absent`, `shut-off`, `start-hangs`.
        fault: String,
    },
    /// Remove the fault of a host or a VM. Calls that hung are then executed.
    Heal {
        /// The fleet's port.
        #[arg(long)]
        port: u16,
        /// `h7` or `h7/vm1`.
        target: String,
    },
}

#[derive(Args)]
struct Up {
    /// Number of hosts.
    #[arg(long, default_value_t = 2)]
    hosts: u32,
    /// Number of VMs of each host.
    #[arg(long, default_value_t = 2)]
    vms: u32,
    /// The seed of all randomness.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The port; 0 lets the system choose one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The round-trip time of the network, such as 1ms.
    #[arg(long, default_value = "0s")]
    rtt: humantime::Duration,
    /// Faults by seed, such as `refused=1%,hung=5%,slow=3:200ms`. A share is a number, or a percentage of all hosts or VMs.
    #[arg(long, default_value = "")]
    faults: Faults,
    /// At so many calls in flight on a connection, the daemon stops reading it.
    #[arg(long, default_value_t = 5)]
    max_client_requests: usize,
    /// Write the hosts to this file, as settings for atp.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Write what was executed to this file at the end, as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up(up) => run(&up),
        Command::Report { port } => ask(port, "report"),
        Command::Fault { port, target, fault } => ask(port, &format!("fault {target} {fault}")),
        Command::Heal { port, target } => ask(port, &format!("heal {target}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(up: &Up) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(serve(up))
}

async fn serve(up: &Up) -> Result<(), String> {
    let options = FleetOptions {
        hosts: up.hosts,
        vms: up.vms,
        seed: up.seed,
        port: up.port,
        rtt: up.rtt.into(),
        faults: up.faults.clone(),
        max_client_requests: up.max_client_requests,
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options).await.map_err(|error| format!("cannot start a fleet: {error}"))?;
    let put = |path: &PathBuf, text: &str| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    let port = fleet.port();
    let settings = match &up.write {
        Some(path) => {
            put(path, &fleet.settings())?;
            path.display().to_string()
        }
        None => {
            say(&fleet.settings());
            "FILE".to_owned()
        }
    };
    eprintln!(
        "{} hosts with {} VMs each are up on port {port}, until Ctrl-C\n\nUse it:   atp --config {settings} vm list\n\
         Counts:   cargo xtask fleet report --port {port}",
        up.hosts, up.vms
    );
    let failed = |error| format!("cannot wait for a signal: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map_err(failed)?,
        _ = terminate.recv() => {}
    }
    if let Some(path) = &up.report {
        let report = serde_json::to_string(&fleet.report()).map_err(|error| error.to_string())?;
        put(path, &report)?;
    }
    Ok(())
}

/// Sends a line to a running fleet, and prints the answer.
fn ask(port: u16, line: &str) -> Result<(), String> {
    const TIME: Duration = Duration::from_secs(30);
    let answer = || -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(TIME))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| format!("no fleet answers on port {port}: {error}"))?;
    match answer.strip_prefix("error: ") {
        Some(error) => Err(error.trim_end().to_owned()),
        None => {
            say(&answer);
            Ok(())
        }
    }
}

/// Writes to stdout. An error means that it was closed, and is ignored.
fn say(text: &str) {
    let _closed = io::stdout().write_all(text.as_bytes());
}
