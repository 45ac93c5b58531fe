//! `testbed`: hosts and guests for manual tests and for scripts.

use std::env;
use std::io::{self, Write};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use atp_testbed::{Builder, Error, Guest, Host, Mode, Testbed};

mod interrupt;

/// Prints a line. Errors are ignored: if stdout is closed, the command still has to do its work.
macro_rules! say {
    ($($format:tt)*) => {{ let _ = writeln!(io::stdout(), $($format)*); }};
}

const USAGE: &str = "\
Real libvirt daemons and real QEMU guests on this machine, for tests and experiments.

Usage: testbed COMMAND

  up [SIZE]                start a bed that stays until `down`
  status                   show the state of this user's beds, or of bed N with --bed N; the exit code is 1 if a host
                           or guest does not work
  hosts                    print ID=URI for each host, one per line
  config                   print the hosts as a settings file for atp
  fault TARGET FAULT       inject a fault
  restore                  undo every fault
  down                     remove all beds except those of running tests, or bed N with --bed N
  run [SIZE] -- COMMAND…   start a bed, run a command with ATP_TESTBED set to the bed's number, remove the bed

SIZE is --hosts N (2), --guests M (2 on each host), --rootless (session daemons on ports of 127.0.0.1).
If several beds are up, --bed N or ATP_TESTBED selects one.

FAULTs of a host (TARGET h1):
  pause-daemon  resume-daemon  kill-daemon  start-daemon
  link-down     link-up        drop-packets reject-packets  heal
FAULTs of a guest (TARGET h1/vm1):
  pause-qemu    resume-qemu    kill-qemu    destroy  start  stop-agent  start-agent

Examples:
  testbed up --hosts 3 --guests 2
  testbed fault h1/vm2 pause-qemu
";

/// The maximum time that the command of `testbed run` may take to end after a signal.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
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

/// The parsed arguments.
struct Options {
    builder: Builder,
    bed: Option<u8>,
    words: Vec<String>,
    command: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            builder: Testbed::builder().hosts(2).guests(2),
            bed: None,
            words: Vec::new(),
            command: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value =
                    arguments.next().ok_or_else(|| Failure::Usage(format!("{argument} needs a number")))?;
                value.parse().map_err(|_| {
                    Failure::Usage(format!("{argument} needs a number up to 255, not {value:?}"))
                })
            };
            match argument.as_str() {
                "--hosts" => options.builder = options.builder.hosts(number()?),
                "--guests" => options.builder = options.builder.guests(number()?),
                "--bed" => options.bed = Some(number()?),
                "--rootless" => options.builder = options.builder.mode(Mode::Rootless),
                "--" => options.command = arguments.by_ref().cloned().collect(),
                option if option.starts_with('-') => {
                    return Err(Failure::Usage(format!("there is no option {option}")));
                }
                word => options.words.push(word.to_owned()),
            }
        }
        Ok(options)
    }

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

fn dispatch(arguments: &[String]) -> Result<ExitCode, Failure> {
    let Some((command, rest)) = arguments.split_first() else {
        return Err(Failure::Usage("a command is missing".into()));
    };
    if arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|word| matches!(word.as_str(), "-h" | "--help"))
    {
        say!("{}", USAGE.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse(rest)?;
    match (command.as_str(), &options.words[..], &options.command[..]) {
        ("up", [], []) => up(options.builder),
        ("status", [], []) => status(options.bed),
        ("hosts", [], []) => {
            for host in options.attach()?.hosts() {
                say!("{}={}", host.id(), host.uri());
            }
            Ok(ExitCode::SUCCESS)
        }
        ("config", [], []) => {
            for host in options.attach()?.hosts() {
                say!("[hosts.{}]\nuri = {:?}", host.id(), host.uri());
            }
            Ok(ExitCode::SUCCESS)
        }
        ("fault", [target, fault], []) => {
            inject(&options.attach()?, target, fault)?;
            Ok(ExitCode::SUCCESS)
        }
        ("restore", [], []) => {
            options.attach()?.restore()?;
            Ok(ExitCode::SUCCESS)
        }
        ("down", [], []) => {
            let removed = match options.bed {
                Some(bed) if Testbed::remove(bed)? => vec![bed],
                Some(bed) => return Err(no_such_bed(bed)),
                None => Testbed::remove_all()?,
            };
            match &removed[..] {
                [] => say!("nothing to remove"),
                beds => beds.iter().for_each(|bed| say!("testbed {bed} is removed")),
            }
            Ok(ExitCode::SUCCESS)
        }
        ("run", [], [program, arguments @ ..]) => run(options.builder, program, arguments),
        _ => Err(Failure::Usage(format!("`testbed {}` is not a valid command", arguments.join(" ")))),
    }
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

fn run(builder: Builder, program: &str, arguments: &[String]) -> Result<ExitCode, Failure> {
    interrupt::defer();
    let bed = builder.start()?;
    let child = Command::new(program).args(arguments).env("ATP_TESTBED", bed.number().to_string()).spawn();
    let status = child.and_then(|mut child| wait(&mut child));
    bed.down()?;
    let status = status.map_err(|error| Failure::Usage(format!("cannot run {program}: {error}")))?;
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
