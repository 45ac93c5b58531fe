//! ATP compared with its alternatives: loops of `virsh` and programs on `libvirt-python`, with the same jobs on the
//! same hosts and the same number of parallel calls.
//!
//! In comparisons of many calls, the cost of starting a process and connecting is counted only for contenders that do
//! so for each call. In comparisons of commands, everything is counted.

pub(crate) mod commands;
pub(crate) mod contest;
pub(crate) mod library;
pub(crate) mod processes;
mod python;
pub(crate) mod virsh;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use atp_testbed::Testbed;
use atp_transport::Engine;

use commands::{atp, monitor, wait_for};
use contest::{AHEAD, Contender, Goal, Round, compete, table};
use library::Job;

const HOSTS: u8 = 3;
const GUESTS: u8 = 8;
/// Parallel calls on each host. A libvirt daemon executes at most five calls of one client in parallel.
const AT_ONCE: usize = 4;

/// The number of calls to each host (its name) and to each VM (its status).
const HOSTNAMES: usize = 1_000;
const QUERIES: usize = 100;
/// The same where each call needs a process: fewer, as only rates are compared.
const PROCESSES: usize = 60;

/// Rounds of each job.
const CALL_ROUNDS: usize = 5;
const COMMAND_ROUNDS: usize = 15;
const START_ROUNDS: usize = 101;

/// The goals of atp.
const TWENTY_TIMES: Goal = Goal { rate: 20.0, cpu: None };
const HOSTNAME_GOAL: Goal = Goal { rate: 1.2, cpu: Some(0.4) };
const QUERY_GOAL: Goal = Goal { rate: 1.0, cpu: Some(0.5) };
const EXEC_GOAL: Goal = Goal { rate: 1.0, cpu: Some(0.6) };

const QUERY: &str = r#"{"execute":"query-status"}"#;
const START: &str = r#"{"execute":"guest-exec","arguments":{"path":"true","capture-output":true}}"#;

/// The agent's command that polls a process.
fn status(pid: u64) -> String {
    format!(r#"{{"execute":"guest-exec-status","arguments":{{"pid":{pid}}}}}"#)
}

/// The hosts, and the data that the contenders need about them.
struct Fleet {
    uris: Vec<String>,
    /// Each guest, with the URI of its host.
    guests: Vec<(String, String)>,
    atp: PathBuf,
    /// A settings file with the hosts and an engine, for atp.
    settings: HashMap<Engine, PathBuf>,
    /// A scenario of many queries.
    scenario: PathBuf,
}

impl Fleet {
    fn new(bed: &Testbed) -> Result<Self> {
        let uris: Vec<String> = bed.hosts().iter().map(|host| host.uri()).collect();
        let guests = bed.hosts().iter().flat_map(|host| {
            let uri = host.uri();
            host.guests().into_iter().map(move |guest| (uri.clone(), guest.name().to_owned()))
        });
        let hosts: String = bed
            .hosts()
            .iter()
            .map(|host| format!("[hosts.{}]\nuri = {:?}\n", host.id(), host.uri()))
            .collect();
        let scenario =
            format!("name: queries\ntargets: '*'\nsteps:\n{}", "  - qmp: query-status\n".repeat(QUERIES));
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = bed.folder().join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        Ok(Fleet {
            uris,
            guests: guests.collect(),
            atp: commands::binary()?,
            settings: [Engine::Native, Engine::Library]
                .into_iter()
                .map(|engine| {
                    let text = format!("[transport]\nengine = \"{engine}\"\n{hosts}");
                    Ok((engine, write(&format!("{engine}.toml"), text)?))
                })
                .collect::<Result<_>>()?,
            scenario: write("queries.yaml", scenario)?,
        })
    }

    /// Parallel calls over all hosts.
    fn at_once(&self) -> usize {
        AT_ONCE * self.uris.len()
    }

    /// The guests of a host; all hosts have the same.
    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.guests.iter().filter(|(uri, _)| self.uris.first() == Some(uri)).map(|(_, vm)| vm.as_str())
    }

    fn library(&self, engine: Engine, job: Job, calls: usize) -> Result<Round> {
        library::calls(&library::Work { job, engine, uris: self.uris.clone(), at_once: AT_ONCE, calls })
    }

    fn python(&self, job: &'static str, shared: bool, calls: usize) -> python::Work<'_> {
        python::Work { job, uris: &self.uris, threads: AT_ONCE, shared, calls }
    }

    /// So many identical virsh calls, to the hosts in turn.
    fn of_hosts(&self, calls: usize, words: &[&str]) -> Vec<virsh::Call> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        self.uris.iter().cycle().take(calls).map(|uri| (uri.clone(), words.clone())).collect()
    }

    /// A virsh call for each guest.
    fn queries(&self) -> Vec<virsh::Call> {
        let call = |(uri, vm): &(String, String)| {
            (uri.clone(), vec!["qemu-monitor-command".to_owned(), vm.clone(), QUERY.to_owned()])
        };
        self.guests.iter().map(call).collect()
    }
}

/// Measures, and prints tables.
pub(crate) fn report() -> Result<()> {
    python::check()?;
    let bed = Testbed::builder().hosts(HOSTS).guests(GUESTS).start()?;
    let fleet = Fleet::new(&bed)?;
    hostnames(&fleet)?;
    queries(&fleet)?;
    whole_fleet(&fleet)?;
    starts(&fleet)?;
    bed.down().context("the testbed was not removed")
}

fn hostnames(fleet: &Fleet) -> Result<()> {
    let mut table = table("call");
    let line = vec!["hostname".to_owned(); HOSTNAMES];
    let by_process = fleet.of_hosts(PROCESSES, &["hostname"]);
    compete(
        &mut table,
        CALL_ROUNDS,
        &[
            Contender::new("`execute_on_host`, native", None, || {
                fleet.library(Engine::Native, Job::Hostname, HOSTNAMES)
            }),
            Contender::new("`execute_on_host`, library", None, || {
                fleet.library(Engine::Library, Job::Hostname, HOSTNAMES)
            }),
            Contender::new("libvirt's C library, threads", None, || {
                fleet.library(Engine::Library, Job::BareHostname, HOSTNAMES)
            }),
            Contender::new("`atp-rpc` alone, a connection per host", None, || {
                fleet.library(Engine::Native, Job::RpcHostname, HOSTNAMES)
            }),
            Contender::new("`xargs -P 12 virsh`", Some(TWENTY_TIMES), || {
                virsh::by_xargs(fleet.at_once(), &by_process, PROCESSES)
            }),
            Contender::new("one `virsh` per host, by a pipe", Some(AHEAD), || {
                virsh::by_pipe(&fleet.uris, &line)
            }),
            Contender::new("libvirt-python, a connection per host", Some(HOSTNAME_GOAL), || {
                python::calls(&fleet.python("hostname", true, HOSTNAMES))
            }),
            Contender::new("libvirt-python, a connection per thread", Some(HOSTNAME_GOAL), || {
                python::calls(&fleet.python("hostname", false, HOSTNAMES))
            }),
        ],
    )?;
    table.print(&format!(
        "`hostname` of {HOSTS} hosts, {HOSTNAMES} times each ({PROCESSES} in total with a process for each call), {AT_ONCE} \
         at once on a host (one with one `virsh` per host); median of {CALL_ROUNDS} rounds, in turns:"
    ));
    Ok(())
}

fn queries(fleet: &Fleet) -> Result<()> {
    let mut table = table("call");
    let lines: Vec<String> = fleet.names().cycle().take(QUERIES * usize::from(GUESTS)).map(monitor).collect();
    let by_process = fleet.queries();
    compete(
        &mut table,
        CALL_ROUNDS,
        &[
            Contender::new("`execute_on_host`, native", None, || {
                fleet.library(Engine::Native, Job::Query, QUERIES)
            }),
            Contender::new("`execute_on_host`, library", None, || {
                fleet.library(Engine::Library, Job::Query, QUERIES)
            }),
            Contender::new("runs of the executor, native", None, || {
                fleet.library(Engine::Native, Job::QueryRuns, QUERIES)
            }),
            Contender::new("`atp run`, a scenario of 100 steps, native", None, || {
                let run = || atp(fleet, Engine::Native, &["run", &fleet.scenario.to_string_lossy()]);
                let round = Round::of_processes(run)?;
                Ok(Round { operations: QUERIES * fleet.guests.len(), latencies: Vec::new(), ..round })
            }),
            Contender::new("`xargs -P 12 virsh`", Some(TWENTY_TIMES), || {
                virsh::by_xargs(fleet.at_once(), &by_process, by_process.len())
            }),
            Contender::new("one `virsh` per host, by a pipe", Some(AHEAD), || {
                virsh::by_pipe(&fleet.uris, &lines)
            }),
            Contender::new("libvirt-python, a connection per host", Some(QUERY_GOAL), || {
                python::calls(&fleet.python("query-status", true, QUERIES))
            }),
            Contender::new("libvirt-python, a connection per thread", Some(QUERY_GOAL), || {
                python::calls(&fleet.python("query-status", false, QUERIES))
            }),
        ],
    )?;
    table.print(&format!(
        "`query-status` of {} VMs, {QUERIES} times each (once with a process for each call), {AT_ONCE} at once on a host (one \
         with one `virsh` per host); median of {CALL_ROUNDS} rounds, in turns:",
        fleet.guests.len()
    ));
    Ok(())
}

/// One command over the whole fleet, by processes started for it.
fn whole_fleet(fleet: &Fleet) -> Result<()> {
    let by_atp = |engine, arguments: &'static [&'static str]| {
        move || Round::of_processes(|| atp(fleet, engine, arguments))
    };
    let by_python = |job, shared| move || python::once(&fleet.python(job, shared, 1));
    let processes = |job: fn(&Fleet) -> Result<()>| move || Round::of_processes(|| job(fleet));
    let by_xargs = |calls: Vec<virsh::Call>| {
        move || {
            let round = virsh::by_xargs(fleet.at_once(), &calls, 0)?;
            Ok(Round { operations: 1, latencies: vec![round.wall], ..round })
        }
    };
    let sets = [
        (
            "A listing of all VMs of all hosts",
            vec![
                Contender::new("`atp vm list`, native", None, by_atp(Engine::Native, &["vm", "list"])),
                Contender::new("`atp vm list`, library", None, by_atp(Engine::Library, &["vm", "list"])),
                Contender::new(
                    "`xargs -P 12 virsh list --all`",
                    Some(AHEAD),
                    by_xargs(fleet.of_hosts(fleet.uris.len(), &["list", "--all"])),
                ),
                Contender::new(
                    "one `virsh` per host, by a pipe",
                    Some(AHEAD),
                    processes(commands::list_by_pipe),
                ),
                Contender::new("libvirt-python, a connection per host", Some(AHEAD), by_python("list", true)),
            ],
        ),
        (
            "`true` in every guest",
            vec![
                Contender::new(
                    "`atp exec`, native",
                    None,
                    by_atp(Engine::Native, &["exec", "*", "--", "true"]),
                ),
                Contender::new(
                    "`atp exec`, library",
                    None,
                    by_atp(Engine::Library, &["exec", "*", "--", "true"]),
                ),
                Contender::new(
                    "`xargs -P 12`, a script of `virsh`",
                    Some(AHEAD),
                    processes(commands::exec_by_xargs),
                ),
                Contender::new(
                    "one `virsh` per host, by a pipe",
                    Some(AHEAD),
                    processes(commands::exec_by_pipe),
                ),
                Contender::new(
                    "libvirt-python, a connection per host",
                    Some(EXEC_GOAL),
                    by_python("exec", true),
                ),
                Contender::new(
                    "libvirt-python, a connection per thread",
                    Some(EXEC_GOAL),
                    by_python("exec", false),
                ),
            ],
        ),
        (
            "`query-status` of every VM once",
            vec![
                Contender::new(
                    "`atp qmp`, native",
                    None,
                    by_atp(Engine::Native, &["qmp", "*", "--", "query-status"]),
                ),
                Contender::new(
                    "`atp qmp`, library",
                    None,
                    by_atp(Engine::Library, &["qmp", "*", "--", "query-status"]),
                ),
                Contender::new("`xargs -P 12 virsh`", Some(AHEAD), by_xargs(fleet.queries())),
                Contender::new(
                    "one `virsh` per host, by a pipe",
                    Some(AHEAD),
                    processes(commands::query_by_pipe),
                ),
                Contender::new(
                    "libvirt-python, a connection per host",
                    Some(AHEAD),
                    by_python("query-once", true),
                ),
            ],
        ),
    ];
    for (what, contenders) in sets {
        let mut table = table("command");
        compete(&mut table, COMMAND_ROUNDS, &contenders)?;
        table.print(&format!(
            "{what}, with a new process each time, at most {AT_ONCE} calls at once on a host; median of {COMMAND_ROUNDS} \
             rounds, in turns:"
        ));
    }
    Ok(())
}

/// The cost of starting alone.
fn starts(fleet: &Fleet) -> Result<()> {
    let mut table = table("start");
    let start =
        |program: PathBuf| move || Round::of_processes(|| wait_for(Command::new(&program).arg("--version")));
    compete(
        &mut table,
        START_ROUNDS,
        &[
            Contender::new("`atp --version`", None, start(fleet.atp.clone())),
            Contender::new("`virsh --version`", Some(AHEAD), start("virsh".into())),
        ],
    )?;
    table.print(&format!("The start of the program only; median of {START_ROUNDS} rounds, in turns:"));
    Ok(())
}
