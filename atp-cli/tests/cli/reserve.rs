//! `reserve` and `release`, by many processes at once on a simulated fleet.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use atp_fleet::{Fleet, FleetOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::atp::{Home, Run, simulated};

/// A host with so many VMs.
struct Bed {
    home: Home,
    settings: String,
    file: String,
    _fleet: Fleet,
    _runtime: Runtime,
}

impl Bed {
    fn new(vms: u32) -> Bed {
        let options = FleetOptions { hosts: 1, vms, ..FleetOptions::default() };
        let (fleet, home, settings, runtime) = simulated(options, "");
        let file = home.path("reserved").display().to_string();
        Bed { home, settings, file, _fleet: fleet, _runtime: runtime }
    }

    fn args<'a>(&'a self, owner: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [&["--config", &self.settings, "-o", "json"], args, &["--owner", owner, "--file", &self.file]]
            .concat()
    }

    fn run(&self, owner: &str, args: &[&str]) -> Run {
        self.home.run(self.args(owner, args))
    }
}

#[test]
fn a_vm_is_one_jobs_until_it_is_released() {
    let bed = Bed::new(3);
    bed.run("a", &["release"]).exits(0).says(&["nothing was released: there is no file", &bed.file]);
    let first = bed.run("a", &["reserve", "*", "--count", "2", "--for", "1h"]).exits(0).outcomes();
    assert_eq!((first.len(), &first[0]["owner"]), (2, &"a".into()));
    bed.run("b", &["reserve", "*", "--count", "2", "--for", "1h"])
        .exits(1)
        .says(&["too few VMs are free: 1 of the 3 selected, and --count is 2", "--wait waits"]);
    bed.run("b", &["reserve", "*", "--count", "2", "--for", "1h", "--wait=100ms"])
        .exits(1)
        .says(&["allow more time with --wait"]);
    bed.run("b", &["reserve", "*", "--count", "4", "--for", "1h"])
        .exits(1)
        .says(&["selected: 3, and --count is 4"]);
    bed.run("b", &["release"]).exits(0).says(&["nothing was released"]);
    let name = first[0]["vm"].as_str().unwrap();
    let released = bed.run("a", &["release", name]).exits(0).outcomes();
    assert_eq!((released.len(), &released[0]["vm"]), (1, &first[0]["vm"]));
    let second =
        bed.run("b", &["reserve", "*", "--count", "2", "--for", "1h", "--wait=1m"]).exits(0).outcomes();
    assert!(second.iter().all(|one| one["vm"] != first[1]["vm"]), "{second:?}");
}

#[test]
fn an_interrupt_while_another_process_has_the_lock_ends_it_and_reserves_nothing() {
    let bed = Bed::new(1);
    let lock = std::fs::File::create(format!("{}.lock", bed.file)).unwrap();
    lock.lock().unwrap();
    // Without a lock to wait for it would have reserved.
    let mut command = bed.home.atp(bed.args("a", &["reserve", "*", "--for", "1h"]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let opened = format!("/proc/{}/fd", child.id());
    let is_waiting = || {
        let links = std::fs::read_dir(&opened).into_iter().flatten().flatten();
        let mut links = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        links.any(|link| link.to_string_lossy().ends_with(".lock"))
    };
    let until = Instant::now() + Duration::from_secs(100);
    while !is_waiting() {
        assert!(Instant::now() < until, "it does not wait for the lock");
        thread::sleep(Duration::from_millis(5));
    }
    crate::interrupts::signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    lock.unlock().unwrap();
    bed.run("a", &["release"]).exits(0).says(&["nothing was released"]);
}

#[test]
fn the_settings_may_name_the_file_and_the_list_shows_it() {
    let bed = Bed::new(2);
    let fleet = std::fs::read_to_string(&bed.settings).unwrap();
    let settings = format!("reservations_file = {:?}\n{fleet}", bed.file);
    let settings = bed.home.write("named.toml", &settings).display().to_string();
    let atp = |args: &[&str]| bed.home.run(["--config", &settings].iter().chain(args));
    let without = ["--config", &bed.settings, "reserve", "*", "--for", "1h", "--owner", "a"];
    bed.home.run(without).exits(2).says(&["it is not said where the reservations are"]);
    atp(&["reserve", "vm2", "--for", "1h", "--owner", "a"]).exits(0);
    let listed = atp(&["vm", "list"]).exits(0).stdout;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].last(), Some(&"UNTIL"), "{listed}");
    assert_eq!(
        (lines[1].iter().rev().nth(1), lines[2].iter().rev().nth(1)),
        (Some(&"-"), Some(&"a")),
        "{listed}"
    );
    std::fs::write(&bed.file, "nothing").unwrap();
    atp(&["vm", "list"]).exits(0).says(&["it is not known which VMs are reserved"]);
}

#[test]
fn sixteen_processes_that_are_stopped_at_any_moment_never_share_a_vm() {
    const ROUNDS: usize = 6;
    let bed = &Bed::new(6);
    let held: &Mutex<HashMap<String, usize>> = &Mutex::default();
    thread::scope(|scope| {
        for job in 0..16 {
            scope.spawn(move || {
                let owner = format!("job-{job}");
                for round in 0..ROUNDS {
                    let args = bed.args(&owner, &["reserve", "*", "--for", "1h", "--wait=5m"]);
                    let mut command = bed.home.atp(args);
                    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
                    // Moments between the start and the end, spread over all jobs and rounds.
                    let moment = u64::try_from((job * 7 + round * 31) % 60).unwrap();
                    thread::sleep(Duration::from_millis(moment));
                    // It may have ended, and is waited for below.
                    kill_process(pid, Signal::STOP).unwrap();
                    thread::sleep(Duration::from_millis(20));
                    kill_process(pid, Signal::CONT).unwrap();
                    let output = child.wait_with_output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success(), "{said}");
                    let got: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
                    let vm = got[0]["vm"].as_str().unwrap().to_owned();
                    assert_eq!(held.lock().unwrap().insert(vm.clone(), job), None, "{vm} is another job's");
                    // Until it is released no other job may get it.
                    assert_eq!(held.lock().unwrap().remove(&vm), Some(job), "{vm}");
                    assert_eq!(bed.run(&owner, &["release"]).exits(0).outcomes().len(), 1);
                }
            });
        }
    });
}
