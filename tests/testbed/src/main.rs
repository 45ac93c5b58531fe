//! `testbed`: hosts and guests for manual tests and for scripts.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use atp_testbed::{Builder, DiskFormat, Error, Guest, Host, Libvirt, Mode, Testbed};
use clap::{Args, Parser, Subcommand};

mod interrupt;

/// Prints a line. Errors are ignored: if stdout is closed, the command still has to do its work.
macro_rules! say {
    ($($format:tt)*) => {{ let _ = writeln!(io::stdout(), $($format)*); }};
}

const FAULTS: &str = "\
Faults of a host (TARGET h1):
  pause-daemon  resume-daemon  kill-daemon  start-daemon
  link-down     link-up        drop-packets reject-packets  heal
  pause-driver-daemon  resume-driver-daemon  kill-driver-daemon   (the virtqemud behind a virtproxyd)
Faults of a guest (TARGET h1/vm1):
  pause-qemu    resume-qemu    kill-qemu    destroy  start  stop-agent  start-agent

Examples:
  testbed up --hosts 3 --guests 2
  testbed up --hosts 2 --daemon machine,trixie-modular
  testbed fault h1/vm2 pause-qemu";

/// Real libvirt daemons and real QEMU guests on this machine, for tests and experiments.
#[derive(Parser)]
#[command(name = "testbed", after_help = FAULTS, disable_help_subcommand = true)]
struct Cli {
    /// The bed, if several are up; also ATP_TESTBED
    #[arg(long, value_name = "N", global = true)]
    bed: Option<u8>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a bed that stays until `down`
    Up(Size),
    /// Show the state of this user's beds, or of one; the exit code is 1 if a host or guest does not work
    Status,
    /// Print ID=URI for each host, one per line
    Hosts,
    /// Print the hosts as a settings file for atp
    Config,
    /// Inject a fault
    Fault {
        /// A host (h1) or a guest (h1/vm1)
        target: String,
        /// One of those that `testbed --help` lists
        fault: String,
    },
    /// Undo every fault
    Restore,
    /// Remove all beds except those of running tests, or one bed
    Down,
    /// Start a bed, run a command with ATP_TESTBED set to the bed's number, remove the bed
    Run {
        #[command(flatten)]
        size: Size,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args)]
struct Size {
    /// The number of hosts
    #[arg(long, value_name = "N", default_value_t = 2)]
    hosts: u8,
    /// The number of guests of each host
    #[arg(long, value_name = "M", default_value_t = 2)]
    guests: u8,
    /// Session daemons on ports of 127.0.0.1
    #[arg(long)]
    rootless: bool,
    /// Guests with disks in the format qcow2, which keeps snapshots
    #[arg(long)]
    qcow2: bool,
    /// The languages of the daemons' messages, in the order of the hosts: de,ja,C
    #[arg(long, value_name = "LANG", value_delimiter = ',')]
    language: Vec<String>,
    /// The libvirt of the hosts, in their order: machine, trixie, trixie-modular or testing; further hosts have the last one's
    #[arg(long = "daemon", value_name = "LIBVIRT", value_delimiter = ',')]
    daemons: Vec<Libvirt>,
}

impl Size {
    fn builder(&self) -> Builder {
        let languages: Vec<_> = self.language.iter().map(String::as_str).collect();
        let builder = Testbed::builder()
            .hosts(self.hosts)
            .guests(self.guests)
            .languages(&languages)
            .daemons(&self.daemons);
        let builder = if self.qcow2 { builder.disks(DiskFormat::Qcow2) } else { builder };
        if self.rootless { builder.mode(Mode::Rootless) } else { builder }
    }
}

/// The maximum time that the command of `testbed run` may take to end after a signal.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match dispatch(&Cli::parse()) {
        Ok(code) => code,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\n\nhint: see `testbed --help`");
            ExitCode::from(2)
        }
        Err(Failure::Bed(error)) => match interrupt::exit_code() {
            // The error only says that a child was interrupted as well.
            Some(code) => {
                eprintln!("interrupted");
                ExitCode::from(code)
            }
            None => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

enum Failure {
    Usage(String),
    Bed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Bed(error)
    }
}

impl Cli {
    /// The bed to use: the one with the given number, else the only one.
    fn attach(&self) -> Result<Testbed, Failure> {
        let from_environment = || env::var("ATP_TESTBED").ok().and_then(|bed| bed.parse().ok());
        let beds = Testbed::list()?;
        if let Some(number) = self.bed.or_else(from_environment) {
            return match beds.iter().any(|bed| bed.number == number) {
                true => Ok(Testbed::attach(number)?),
                false => Err(no_such_bed(number)),
            };
        }
        match beds.iter().filter(|bed| bed.owner.is_none()).collect::<Vec<_>>()[..] {
            [] => Err(Failure::Usage("no testbed is up; `testbed up` starts one".into())),
            [bed] => Ok(Testbed::attach(bed.number)?),
            ref several => {
                let numbers: Vec<_> = several.iter().map(|bed| bed.number.to_string()).collect();
                let numbers = numbers.join(", ");
                Err(Failure::Usage(format!("testbeds {numbers} are up; select one with --bed N")))
            }
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.task {
        Task::Up(size) => return up(size.builder()),
        Task::Status => return status(cli.bed),
        Task::Hosts => cli.attach()?.hosts().iter().for_each(|host| say!("{}={}", host.id(), host.uri())),
        Task::Config => {
            for host in cli.attach()?.hosts() {
                say!("[hosts.{}]\nuri = {:?}", host.id(), host.uri());
            }
        }
        Task::Fault { target, fault } => inject(&cli.attach()?, target, fault)?,
        Task::Restore => cli.attach()?.restore()?,
        Task::Down => {
            let removed = match cli.bed {
                Some(bed) if Testbed::remove(bed)? => vec![bed],
                Some(bed) => return Err(no_such_bed(bed)),
                None => Testbed::remove_all()?,
            };
            match &removed[..] {
                [] => say!("nothing to remove"),
                beds => beds.iter().for_each(|bed| say!("testbed {bed} is removed")),
            }
        }
        Task::Run { size, command } => return run(size.builder(), command),
    }
    Ok(ExitCode::SUCCESS)
}

fn no_such_bed(bed: u8) -> Failure {
    Failure::Usage(format!("there is no testbed {bed}; `testbed status` lists the existing ones"))
}

fn up(builder: Builder) -> Result<ExitCode, Failure> {
    interrupt::defer();
    let start = Instant::now();
    let bed = builder.detached().start()?;
    say!("testbed {} is up after {:.1} s", bed.number(), start.elapsed().as_secs_f64());
    say!();
    for host in bed.hosts() {
        let guests: Vec<String> = host.guests().iter().map(|guest| guest.name().to_owned()).collect();
        say!("  {}  {}  {}", host.id(), host.uri(), guests.join(" "));
    }
    let hosts: Vec<String> =
        bed.hosts().iter().map(|host| format!("--host {}={}", host.id(), host.uri())).collect();
    say!();
    say!("Use it:     atp {} vm list", hosts.join(" "));
    say!("Settings:   cargo xtask testbed config --bed {}", bed.number());
    say!("Remove it:  cargo xtask testbed down --bed {}", bed.number());
    Ok(ExitCode::SUCCESS)
}

fn run(builder: Builder, command: &[OsString]) -> Result<ExitCode, Failure> {
    interrupt::defer();
    let bed = builder.start()?;
    let child =
        Command::new(&command[0]).args(&command[1..]).env("ATP_TESTBED", bed.number().to_string()).spawn();
    let status = child.and_then(|mut child| wait(&mut child));
    bed.down()?;
    let status = status.map_err(|error| Failure::Usage(format!("cannot run {:?}: {error}", command[0])))?;
    let code = interrupt::exit_code().unwrap_or_else(|| code_of(status));
    Ok(ExitCode::from(code))
}

/// Waits for a child. After a signal to this process, which the child may have got as well, it has a grace period.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let mut interrupted = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt::exit_code().is_some() && interrupted.get_or_insert_with(Instant::now).elapsed() > GRACE
        {
            child.kill()?;
            return child.wait();
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The exit code that a shell would return.
fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;

    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn inject(bed: &Testbed, target: &str, fault: &str) -> Result<(), Failure> {
    let unknown = || Failure::Usage(format!("{target} has no fault {fault:?}"));
    let Some((host, guest)) = target.split_once('/') else {
        let host = bed.host(target)?;
        let action = match fault {
            "pause-daemon" => Host::pause_daemon,
            "resume-daemon" => Host::resume_daemon,
            "kill-daemon" => Host::kill_daemon,
            "start-daemon" => Host::start_daemon,
            "link-down" => Host::link_down,
            "link-up" => Host::link_up,
            "drop-packets" => Host::drop_packets,
            "reject-packets" => Host::reject_packets,
            "heal" => Host::heal,
            "pause-driver-daemon" => Host::pause_driver_daemon,
            "resume-driver-daemon" => Host::resume_driver_daemon,
            "kill-driver-daemon" => Host::kill_driver_daemon,
            _ => return Err(unknown()),
        };
        return Ok(action(&host)?);
    };
    let guest = bed.host(host)?.guest(guest)?;
    let action = match fault {
        "pause-qemu" => Guest::pause_qemu,
        "resume-qemu" => Guest::resume_qemu,
        "kill-qemu" => Guest::kill_qemu,
        "destroy" => Guest::destroy,
        "start" => Guest::start,
        "stop-agent" => Guest::stop_agent,
        "start-agent" => Guest::start_agent,
        _ => return Err(unknown()),
    };
    Ok(action(&guest)?)
}

fn status(only: Option<u8>) -> Result<ExitCode, Failure> {
    let mut beds = Testbed::list()?;
    if let Some(bed) = only {
        beds.retain(|summary| summary.number == bed);
        if beds.is_empty() {
            return Err(no_such_bed(bed));
        }
    }
    if beds.is_empty() {
        say!("no testbed is up");
    }
    let mut well = true;
    for summary in &beds {
        let owner = match summary.owner {
            None => "stays until `down`".to_owned(),
            Some(pid) if summary.stale => format!("left over from process {pid}; `down` removes it"),
            Some(pid) => format!("of process {pid}"),
        };
        say!("testbed {}: {owner}", summary.number);
        if summary.stale {
            well = false;
            continue;
        }
        for host in Testbed::attach(summary.number)?.hosts() {
            well &= show(host);
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the state of a host and its guests, and returns whether all of them work.
fn show(host: &Host) -> bool {
    let hostname = host.virsh_within(&["hostname"], Duration::from_secs(3));
    let daemon = match (&hostname, host.daemon_pid()) {
        (Ok(_), _) => "answers",
        (Err(_), Some(_)) => "does not answer",
        (Err(_), None) => "does not run",
    };
    say!("  {}  {}  daemon {daemon}", host.id(), host.uri());
    if hostname.is_err() {
        return false;
    }
    let mut well = true;
    for guest in host.guests() {
        let state = guest.state().unwrap_or_else(|error| error.to_string());
        let agent = match guest.ping_agent() {
            Ok(()) => "agent answers",
            Err(_) => "agent does not answer",
        };
        well &= agent == "agent answers";
        say!("    {}  {state}, {agent}", guest.name());
    }
    well
}
