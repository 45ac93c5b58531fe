//! Beds leave nothing behind, independently of how they end, and do not disturb each other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use atp_testbed::{Mode, Testbed};

mod common;

use common::{testbed, traces};

/// Shared by tests that start a bed, and exclusive for tests that another start would disturb: each start first
/// removes what dead processes left.
static STARTS: RwLock<()> = RwLock::new(());

/// While this is held, other starts may be under way.
fn starting() -> RwLockReadGuard<'static, ()> {
    STARTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// While this is held, no other start is under way.
fn no_bed_starts() -> RwLockWriteGuard<'static, ()> {
    STARTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A bed of one host and one guest.
fn start() -> Testbed {
    let _starting = starting();
    Testbed::builder().mode(Mode::Root).start().unwrap()
}

#[test]
fn two_beds_do_not_collide_and_are_removed_separately() {
    let other = thread::spawn(start);
    let first = start();
    let second = other.join().unwrap();

    assert_ne!(first.number(), second.number());
    let hosts = [&first, &second].map(|bed| bed.host("h1").unwrap());
    assert_ne!(hosts[0].address(), hosts[1].address());
    for host in &hosts {
        let known = host.virsh(&["list", "--uuid"]).unwrap();
        assert_eq!(known.trim(), host.guest("vm1").unwrap().uuid(), "its own guest and no other");
    }

    let (number, folder) = (first.number(), first.folder());
    let present = traces(number, &folder);
    assert!(present.len() > 4, "the search finds a bed that is there: {present:?}");
    first.down().unwrap();
    assert_eq!(traces(number, &folder), [""; 0]);
    hosts[1].guest("vm1").unwrap().ping_agent().unwrap();

    let (number, folder) = (second.number(), second.folder());
    drop(second);
    assert_eq!(traces(number, &folder), [""; 0]);
}

#[test]
fn a_bed_is_removed_with_its_hung_processes() {
    let bed = start();
    let host = bed.host("h1").unwrap();
    let _proxy = host.proxy().unwrap();
    host.guest("vm1").unwrap().pause_qemu().unwrap();
    host.pause_daemon().unwrap();
    host.drop_packets().unwrap();
    host.link_down().unwrap();
    let (number, folder) = (bed.number(), bed.folder());
    bed.down().unwrap();
    assert_eq!(traces(number, &folder), [""; 0]);
}

/// A running `testbed run` with a bed that is up.
struct Run {
    process: Child,
    number: u8,
    folder: PathBuf,
}

impl Run {
    fn start() -> Self {
        let _starting = starting();
        // The command inside ends when this process closes its stdin, at the latest when this process ends.
        let mut process = testbed()
            .args(["run", "--hosts", "1", "--guests", "1", "--", "sh", "-c", "echo $ATP_TESTBED; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let number = line.trim().parse().unwrap();
        let folder = Testbed::attach(number).unwrap().folder();
        assert!(traces(number, &folder).len() > 4);
        Self { process, number, folder }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.process.id())).status();
        assert!(kill.unwrap().success());
    }
}

#[test]
fn the_bed_of_a_killed_process_is_removed() {
    let mut run = Run::start();
    let no_bed_starts = no_bed_starts();
    run.signal("KILL");
    run.process.wait().unwrap();
    assert!(traces(run.number, &run.folder).len() > 4, "it was not removed");
    drop(no_bed_starts);

    Testbed::remove_stale().unwrap();
    assert_eq!(traces(run.number, &run.folder), [""; 0]);
    assert!(!Testbed::remove_stale().unwrap().contains(&run.number), "there is nothing to remove any more");
}

#[test]
fn an_interrupted_run_removes_its_bed() {
    let mut run = Run::start();
    run.signal("INT");
    // A terminal would have sent the signal to the command as well.
    drop(run.process.stdin.take());
    assert_eq!(run.process.wait().unwrap().code(), Some(130));
    assert_eq!(traces(run.number, &run.folder), [""; 0]);
}

#[test]
fn a_run_ends_with_the_exit_code_of_its_command() {
    let _starting = starting();
    let status =
        testbed().args(["run", "--guests", "0", "--hosts", "1", "--", "sh", "-c", "exit 7"]).status();
    assert_eq!(status.unwrap().code(), Some(7));
}

#[test]
fn a_detached_bed_stays_until_down() {
    let starting = starting();
    let up = testbed().args(["up", "--hosts", "1", "--guests", "1"]).output().unwrap();
    drop(starting);
    let text = String::from_utf8(up.stdout).unwrap();
    assert!(up.status.success(), "{text}{}", String::from_utf8_lossy(&up.stderr));
    let number = text.split_whitespace().nth(1).unwrap().to_owned();
    let command = |arguments: &[&str]| testbed().args(arguments).args(["--bed", &number]).output().unwrap();

    // Its process has ended, but it does not count as abandoned.
    Testbed::remove_stale().unwrap();
    let bed = Testbed::attach(number.parse().unwrap()).unwrap();
    let host = bed.host("h1").unwrap();
    host.guest("vm1").unwrap().ping_agent().unwrap();
    assert!(text.contains(&format!("--host h1={}", host.uri())), "{text}");
    assert_eq!(String::from_utf8(command(&["hosts"]).stdout).unwrap(), format!("h1={}\n", host.uri()));

    let settings = String::from_utf8(command(&["config"]).stdout).unwrap();
    assert_eq!(settings, format!("[hosts.h1]\nuri = {:?}\n", host.uri()));
    let shown = String::from_utf8(command(&["status"]).stdout).unwrap();
    assert_eq!(shown.matches("testbed ").count(), 1, "{shown}");

    // Another process than the one that started it can inject faults and undo them.
    assert!(command(&["fault", "h1/vm1", "stop-agent"]).status.success());
    assert!(host.guest("vm1").unwrap().ping_agent().is_err());
    assert!(command(&["fault", "h1", "kill-daemon"]).status.success());
    assert_eq!(host.daemon_pid(), None);
    assert!(command(&["restore"]).status.success());
    host.guest("vm1").unwrap().ping_agent().unwrap();

    assert_eq!(command(&["fault", "h1", "no-such-fault"]).status.code(), Some(2));
    let folder = bed.folder();
    assert!(command(&["down"]).status.success());
    assert_eq!(traces(bed.number(), &folder), [""; 0]);
    for gone in ["down", "status"] {
        assert_eq!(command(&[gone]).status.code(), Some(2), "{gone}");
    }
}
