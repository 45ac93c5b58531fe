//! Processes as `/proc` shows them: which are alive, which belong to a bed, and signals to exactly those.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

use crate::error::{Error, LogTail, Result};

/// The maximum time until killed processes are gone, on a busy machine.
const KILL_DEADLINE: Duration = Duration::from_secs(60);

/// A process identified by its id and start time, so that it is not confused with a later process with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    started: u64,
}

/// A signal the testbed sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    Continue,
    Kill,
}

impl Process {
    /// The process with this id, if it exists and is not a zombie.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    /// This process.
    pub(crate) fn current() -> Result<Self> {
        Self::find(std::process::id()).ok_or_else(|| Error::State("/proc does not show this process".into()))
    }

    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Whether it is gone, with what it had open. Its first thread may be a zombie before the others, which still have all
    /// of that.
    fn has_ended(self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        !self.is_alive()
            && (threads <= 1 || stat(self.pid).is_none_or(|(_, started)| started != self.started))
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| state == 'T' && started == self.started)
    }

    /// Sends a signal and waits until it has taken effect. It is no error if the process has ended.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        send(self.pid, signal)?;
        let done = || match signal {
            Signal::Stop => self.is_stopped() || !self.is_alive(),
            Signal::Continue => !self.is_stopped(),
            Signal::Kill => self.has_ended(),
        };
        let start = Instant::now();
        while !done() {
            if start.elapsed() > KILL_DEADLINE {
                return Err(Error::Deadline {
                    what: format!("{signal:?} of process {}", self.pid),
                    after: KILL_DEADLINE,
                    log: LogTail::none(),
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The processes that belong to a bed or to one of its hosts.
#[derive(Debug, Clone)]
pub(crate) struct Members {
    /// Network namespaces. All processes in one of these are members.
    pub(crate) namespaces: Vec<PathBuf>,
    /// Without namespaces: processes with this folder, or one below it, as `HOME` are members. The daemon is started
    /// with this `HOME`, and libvirt passes it to the QEMUs of a session.
    pub(crate) home: PathBuf,
}

impl Members {
    /// All living members.
    pub(crate) fn find(&self) -> Vec<Process> {
        let inodes = self.inodes();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&pid| in_namespace(pid, &inodes) || has_home(pid, &self.home))
            .filter_map(Process::find)
            .collect()
    }

    /// The member that a pid file names, if it is alive. The file may be outdated and the id reused by another
    /// process.
    pub(crate) fn of_pid_file(&self, path: &Path) -> Option<Process> {
        let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
        (in_namespace(pid, &self.inodes()) || has_home(pid, &self.home)).then(|| Process::find(pid)).flatten()
    }

    fn inodes(&self) -> Vec<u64> {
        self.namespaces.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.ino()).collect()
    }

    /// Kills all members, including those that start in the meantime, and waits until none is left.
    pub(crate) fn kill(&self) -> Result<()> {
        let start = Instant::now();
        // A process that is just being started has no readable environment for a moment, so one pass is not enough.
        let mut empty_looks = 0;
        loop {
            let members = self.find();
            empty_looks = if members.is_empty() { empty_looks + 1 } else { 0 };
            if empty_looks == 3 {
                return Ok(());
            }
            if start.elapsed() > KILL_DEADLINE {
                let pids: Vec<u32> = members.iter().map(|process| process.pid()).collect();
                return Err(Error::Deadline {
                    what: format!("killing the processes {pids:?}"),
                    after: KILL_DEADLINE,
                    log: LogTail::none(),
                });
            }
            for process in &members {
                send(process.pid(), Signal::Kill)?;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn in_namespace(pid: u32, inodes: &[u64]) -> bool {
    !inodes.is_empty()
        && fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| inodes.contains(&meta.ino()))
}

fn has_home(pid: u32, home: &Path) -> bool {
    // The environment of other users' processes is not readable; they are not members.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|&byte| byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("HOME="))
            .any(|value| Path::new(value).starts_with(home))
    })
}

/// The state letter and start time of a process.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may itself contain spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let number = match signal {
        Signal::Stop => rustix::process::Signal::STOP,
        Signal::Continue => rustix::process::Signal::CONT,
        Signal::Kill => rustix::process::Signal::KILL,
    };
    let pid_of_one = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid_of_one.map_or(Err(Errno::INVAL), |pid| kill_process(pid, number)) {
        // It ended by itself.
        Err(Errno::SRCH) => Ok(()),
        result => {
            result.map_err(|errno| Error::io(format!("sending {signal:?} to process {pid}"))(errno.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn signals_work_before_the_call_returns() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.is_alive() && !process.is_stopped());
        process.signal(Signal::Stop).unwrap();
        assert!(process.is_stopped());
        process.signal(Signal::Continue).unwrap();
        assert!(!process.is_stopped());
        process.signal(Signal::Kill).unwrap();
        // It is a zombie now, and then gone.
        assert!(!process.is_alive());
        child.wait().unwrap();
        process.signal(Signal::Kill).unwrap();
    }

    #[test]
    fn another_process_with_the_same_number_is_another_process() {
        let own = Process::current().unwrap();
        assert!(own.is_alive());
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn members_and_no_others_are_found_by_their_home() {
        let home = std::env::temp_dir().join(format!("atp-testbed-home-{}", std::process::id()));
        let spawn = |home: &Path| Command::new("sleep").arg("1000").env("HOME", home).spawn().unwrap();
        let mut beside = spawn(&home.with_extension("more"));
        let mut inside = spawn(&home.join("h1"));
        let members = Members { namespaces: Vec::new(), home };
        let start = Instant::now();
        let mut found = members.find();
        while found.is_empty() && start.elapsed() < KILL_DEADLINE {
            found = members.find();
        }
        members.kill().unwrap();
        let survives = Process::find(beside.id()).is_some();
        beside.kill().unwrap();
        inside.wait().unwrap();
        beside.wait().unwrap();
        assert_eq!(found.iter().map(|process| process.pid()).collect::<Vec<_>>(), [inside.id()]);
        assert!(survives);
    }
}
