//! Processes as `/proc` shows them: who is alive, who belongs to a bed, and signals to exactly those.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, LogTail, Result};
use crate::sys;

/// How long killed processes may take to be gone, on a busy machine.
const KILL_DEADLINE: Duration = Duration::from_secs(60);

/// A process that cannot be mistaken for another one that got the same number later.
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
    /// The process of that number, if there is one that is not a zombie.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    /// The process that runs this code.
    pub(crate) fn current() -> Result<Self> {
        Self::find(std::process::id()).ok_or_else(|| Error::State("/proc does not show this process".into()))
    }

    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Whether it was stopped by a signal.
    pub(crate) fn is_stopped(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| state == 'T' && started == self.started)
    }

    /// Sends a signal and waits until it has worked. A process that is gone already is no error.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        send(self.pid, signal)?;
        let done = || match signal {
            Signal::Stop => self.is_stopped() || !self.is_alive(),
            Signal::Continue => !self.is_stopped(),
            Signal::Kill => !self.is_alive(),
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
    /// Network namespaces: whoever is in one of these is a member.
    pub(crate) namespaces: Vec<PathBuf>,
    /// Without namespaces: whoever has this folder, or one below it, as `HOME` is a member. The daemon is
    /// started so, and libvirt hands `HOME` on to the QEMUs of a session.
    pub(crate) home: PathBuf,
}

impl Members {
    /// All members alive now.
    pub(crate) fn find(&self) -> Vec<Process> {
        let inodes = self.inodes();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&pid| in_namespace(pid, &inodes) || has_home(pid, &self.home))
            .filter_map(Process::find)
            .collect()
    }

    /// The member that a pid file names, if it is alive. The file may be a left-over and the number somebody else's.
    pub(crate) fn of_pid_file(&self, path: &Path) -> Option<Process> {
        let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
        (in_namespace(pid, &self.inodes()) || has_home(pid, &self.home)).then(|| Process::find(pid)).flatten()
    }

    fn inodes(&self) -> Vec<u64> {
        self.namespaces.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.ino()).collect()
    }

    /// Kills all members, those that appear meanwhile too, and waits until none is left.
    pub(crate) fn kill(&self) -> Result<()> {
        let start = Instant::now();
        // A process just being started has no environment to be found by for a moment, so one look is not enough.
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
    // Unreadable for processes of other users, which are not ours then.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|&byte| byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("HOME="))
            .any(|value| Path::new(value).starts_with(home))
    })
}

/// State letter and start time of a process.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces and parentheses itself.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let number = match signal {
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
        Signal::Kill => libc::SIGKILL,
    };
    match sys::kill(pid, number) {
        // It ended by itself.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map_err(Error::io(format!("sending {signal:?} to process {pid}"))),
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
        // It is a zombie now, and then nothing.
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
    fn members_are_found_by_their_home_and_nobody_else_is() {
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
