//! Processes that are stopped between the look for free VMs and their reservation.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};
use uuid::Uuid;

use super::{Candidate, Reservations, Reserved};

const PROCESSES: u32 = 16;

/// Fewer than processes, so that they wait for each other's.
const VMS: u32 = 4;

/// In a process of the test: the folder of the reservations.
const FOLDER: &str = "ATP_RESERVE_FOLDER";

/// How often each process reserves a VM.
const ROUNDS: &str = "ATP_RESERVE_ROUNDS";

fn rounds() -> u32 {
    env::var(ROUNDS).map_or(10, |rounds| rounds.parse().unwrap())
}

/// Stops this process if it is one of the test, until the test lets it go on.
pub(super) fn between_check_and_set() {
    if env::var_os(FOLDER).is_some() {
        kill_process(getpid(), Signal::STOP).unwrap();
        // Another thread may have got the signal, and this one stops a little later: the test says when it was stopped.
        io::stdin().read_exact(&mut [0]).unwrap();
    }
}

/// What each process does: it reserves a VM and releases it. Who has one makes the VM's file, which must not be there.
fn reserve_and_release(folder: &Path) {
    let file = Reservations::at(folder.join("reserved"));
    let one = |n: u32| Candidate {
        host: "h1".parse().unwrap(),
        vm: format!("vm{n}"),
        uuid: Uuid::from_u128(n.into()),
        is_copy: false,
    };
    let all: Vec<Candidate> = (1..=VMS).map(one).collect();
    let owner = getpid().as_raw_nonzero().to_string();
    let (hour, soon) = (Duration::from_secs(3600), || Instant::now() + Duration::from_secs(600));
    let mut left = rounds();
    while left > 0 {
        let Reserved::Granted(granted) = file.reserve(&all, 1, &owner, hour, soon()).unwrap() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let mark = folder.join(&granted[0].vm);
        File::create_new(&mark).expect("no other process has the VM");
        fs::remove_file(&mark).unwrap();
        assert_eq!(file.release(&owner, |_| true, soon()).unwrap(), granted);
        left -= 1;
    }
}

/// A process, which is ended with the test.
struct Process(Child);

impl Process {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Whether it has stopped since this was last asked.
    fn has_stopped(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(self.pid()), options).is_ok_and(|status| status.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn of_processes_that_are_stopped_between_check_and_set_none_gets_a_vm_of_another() {
    if let Some(folder) = env::var_os(FOLDER) {
        return reserve_and_release(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    // This test, as the test program names it: without the name of the crate.
    let (_, module) = module_path!().split_once("::").unwrap();
    let name =
        format!("{module}::of_processes_that_are_stopped_between_check_and_set_none_gets_a_vm_of_another");
    let start = |_| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([&name, "--exact", "--nocapture"]).env(FOLDER, folder.path());
        Process(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    };
    let mut running: Vec<Process> = (0..PROCESSES).map(start).collect();
    let mut stops = 0;
    while !running.is_empty() {
        let stopped: Vec<&mut Process> = running.iter_mut().filter(|one| one.has_stopped()).collect();
        // Meanwhile the others try to get the same VM.
        thread::sleep(Duration::from_millis(1));
        for process in stopped {
            kill_process(process.pid(), Signal::CONT).unwrap();
            process.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            stops += 1;
        }
        running.retain_mut(|process| match process.0.try_wait().unwrap() {
            None => true,
            Some(status) => {
                assert!(status.success(), "{status}");
                false
            }
        });
    }
    assert_eq!(stops, PROCESSES * rounds());
}
