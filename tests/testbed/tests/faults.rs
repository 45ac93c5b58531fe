//! Each fault has its documented effect and can be undone, checked from outside by `virsh` and by plain TCP.
//!
//! All tests share one bed of three hosts with two guests each, and run one at a time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use atp_testbed::{Error, Host, Mode, Testbed};

/// A deadline for operations that succeed.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to detect a hang: an operation that works takes some 20 ms.
const HANGS: Duration = Duration::from_secs(2);

/// The interval between checks of a state that will be reached soon. Each check starts a process, which slows the bed
/// down.
const POLL: Duration = Duration::from_millis(50);

/// The shared bed, as it was when it started.
fn bed() -> MutexGuard<'static, Testbed> {
    static BED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    let bed = BED.get_or_init(|| {
        let start = Instant::now();
        let bed = Testbed::builder().hosts(3).guests(2).mode(Mode::Root).start().unwrap();
        println!("3 hosts with 2 guests each: {:.1} s", start.elapsed().as_secs_f64());
        Mutex::new(bed)
    });
    // A failed test does not make the others fail: the bed is restored for each test.
    let bed = bed.lock().unwrap_or_else(PoisonError::into_inner);
    bed.restore().unwrap();
    bed
}

fn connect(host: &Host) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&host.address(), HANGS)
}

fn hostname_hangs(host: &Host) -> bool {
    host.virsh_within(&["hostname"], HANGS).is_err_and(|error| error.is_deadline())
}

#[test]
fn a_bed_has_the_requested_hosts_and_guests() {
    let bed = bed();
    let ids: Vec<&str> = bed.hosts().iter().map(Host::id).collect();
    assert_eq!(ids, ["h1", "h2", "h3"]);
    for host in bed.hosts() {
        assert_eq!(host.uri(), format!("qemu+tcp://{}/system", host.address().ip()));
        assert_eq!(host.virsh(&["hostname"]).unwrap().trim(), format!("{}.atp.test", host.id()));
        let guests = host.guests();
        let names: Vec<&str> = guests.iter().map(|guest| guest.name()).collect();
        assert_eq!(names, ["vm1", "vm2"]);
        let known = host.virsh(&["list", "--all", "--uuid"]).unwrap();
        assert!(guests.iter().all(|guest| known.contains(guest.uuid())), "{known}");
        assert!(guests.iter().all(|guest| guest.state().unwrap() == "running"));
        assert!(guests.iter().all(|guest| guest.ping_agent().is_ok()));
    }
    let addresses: std::collections::HashSet<_> = bed.hosts().iter().map(Host::address).collect();
    assert_eq!(addresses.len(), 3);
    assert!(matches!(bed.host("h4"), Err(Error::NoSuchHost(id)) if id == "h4"));
    assert!(matches!(bed.host("h1").unwrap().guest("vm3"), Err(Error::NoSuchGuest { .. })));
}

#[test]
fn a_paused_daemon_takes_connections_and_answers_nothing() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    host.pause_daemon().unwrap();
    connect(&host).unwrap();
    assert!(hostname_hangs(&host));
    bed.host("h2").unwrap().virsh(&["hostname"]).unwrap();
    host.resume_daemon().unwrap();
    host.virsh(&["hostname"]).unwrap();
}

#[test]
fn guests_survive_a_crash_of_their_daemon() {
    let bed = bed();
    let host = bed.host("h2").unwrap();
    let guest = host.guest("vm1").unwrap();
    let qemu = guest.qemu_pid().unwrap();
    host.kill_daemon().unwrap();
    assert_eq!(host.daemon_pid(), None);
    assert_eq!(connect(&host).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(matches!(host.pause_daemon(), Err(Error::Daemon { .. })));
    assert_eq!(guest.qemu_pid().unwrap(), qemu);

    host.start_daemon().unwrap();
    assert_eq!(guest.state().unwrap(), "running");
    assert_eq!(guest.qemu_pid().unwrap(), qemu);
    guest.wait_agent(LONG).unwrap();
}

#[test]
fn a_paused_qemu_does_not_affect_other_guests() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let (hung, well) = (host.guest("vm1").unwrap(), host.guest("vm2").unwrap());
    let query = ["qemu-monitor-command", hung.uuid(), r#"{"execute":"query-status"}"#];
    hung.pause_qemu().unwrap();
    assert!(host.virsh_within(&query, HANGS).unwrap_err().is_deadline());
    assert_eq!(hung.state().unwrap(), "running", "libvirt does not know better");
    well.ping_agent().unwrap();
    hung.resume_qemu().unwrap();
    host.virsh(&query).unwrap();
    hung.wait_agent(LONG).unwrap();
}

#[test]
fn a_killed_qemu_is_a_crash() {
    let bed = bed();
    let guest = bed.host("h3").unwrap().guest("vm2").unwrap();
    guest.kill_qemu().unwrap();
    assert!(matches!(guest.qemu_pid(), Err(Error::NotRunning { .. })));
    assert!(matches!(guest.pause_qemu(), Err(Error::NotRunning { .. })));
    bed.restore().unwrap();
    guest.ping_agent().unwrap();
}

#[test]
fn a_destroyed_guest_can_be_started_again() {
    let bed = bed();
    let guest = bed.host("h2").unwrap().guest("vm2").unwrap();
    guest.destroy().unwrap();
    assert_eq!(guest.state().unwrap(), "shut off");
    assert!(matches!(guest.qemu_pid(), Err(Error::NotRunning { .. })));
    guest.start().unwrap();
    println!("from power-on to the agent's answer: {:?}", guest.wait_agent(LONG).unwrap());
}

#[test]
fn an_agent_can_be_stopped_and_started() {
    let bed = bed();
    let guest = bed.host("h3").unwrap().guest("vm1").unwrap();
    guest.stop_agent().unwrap();
    let error = guest.ping_agent().unwrap_err().to_string();
    assert!(error.contains("agent"), "{error}");
    assert_eq!(guest.state().unwrap(), "running");
    let error = guest.wait_agent(HANGS).unwrap_err();
    assert!(error.is_deadline());
    assert!(error.to_string().contains("starting the agent"), "the console tells how far it came: {error}");
    // A second start has no effect.
    guest.stop_agent().unwrap();
    guest.start_agent().unwrap();
    guest.start_agent().unwrap();
    guest.wait_agent(LONG).unwrap();
}

#[test]
fn guests_obey_shutdown_by_agent_and_by_power_button_and_reboot() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    for (guest, mode) in [("vm1", "agent"), ("vm2", "acpi")] {
        let guest = host.guest(guest).unwrap();
        host.virsh(&["shutdown", guest.uuid(), "--mode", mode]).unwrap();
        let start = Instant::now();
        while guest.state().unwrap() != "shut off" {
            assert!(start.elapsed() < LONG, "still {} after {mode}", guest.state().unwrap());
            thread::sleep(POLL);
        }
    }
    let guest = bed.host("h2").unwrap().guest("vm1").unwrap();
    let qemu = guest.qemu_pid().unwrap();
    guest.stop_agent().unwrap();
    guest.host().virsh(&["reboot", guest.uuid(), "--mode", "acpi"]).unwrap();
    // In this guest the power button means power off. libvirt turns it into the requested reboot.
    guest.wait_agent(LONG).unwrap();
    assert_eq!(guest.qemu_pid().unwrap(), qemu);
}

#[test]
fn dropped_packets_and_a_link_that_is_down_give_no_notice() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    for (inject, undo) in [
        (Host::drop_packets as fn(&Host) -> _, Host::heal as fn(&Host) -> _),
        (Host::link_down, Host::link_up),
    ] {
        let mut open = connect(&host).unwrap();
        open.set_read_timeout(Some(HANGS)).unwrap();
        inject(&host).unwrap();
        assert!(connect(&host).is_err_and(|error| {
            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable)
        }));
        // The peer gets no notice that the connection is gone.
        assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        bed.host("h2").unwrap().virsh(&["hostname"]).unwrap();
        undo(&host).unwrap();
        host.virsh(&["hostname"]).unwrap();
    }
}

#[test]
fn rejected_packets_are_refused_connections() {
    let bed = bed();
    let host = bed.host("h3").unwrap();
    host.reject_packets().unwrap();
    assert_eq!(connect(&host).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    bed.host("h1").unwrap().virsh(&["hostname"]).unwrap();
    host.heal().unwrap();
    host.virsh(&["hostname"]).unwrap();
}

#[test]
fn virsh_works_through_a_proxy_and_sees_its_faults() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let proxy = host.proxy().unwrap();
    let hostname = |deadline| {
        let start = Instant::now();
        host.virsh_within(&["-c", proxy.uri(), "hostname"], deadline).map(|_| start.elapsed())
    };
    hostname(LONG).unwrap();
    proxy.set_delay(Duration::from_millis(100));
    assert!(hostname(LONG).unwrap() >= Duration::from_millis(400), "several round trips at 200 ms each");
    proxy.hold();
    assert!(hostname(HANGS).unwrap_err().is_deadline());
    proxy.cut();
    assert!(matches!(hostname(LONG), Err(Error::Command { .. })));
    proxy.pass();
    hostname(LONG).unwrap();

    proxy.cut();
    bed.restore().unwrap();
    hostname(LONG).unwrap();
}

#[test]
fn guests_can_be_added_and_removed() {
    let bed = bed();
    let host = bed.host("h2").unwrap();
    let odd = host.define_guest("odd <name> & 'more'").unwrap();
    assert_eq!(odd.state().unwrap(), "shut off");
    assert!(matches!(host.define_guest("vm1"), Err(Error::GuestExists { .. })));
    let booted = host.boot_guest("vm9").unwrap();
    booted.wait_agent(LONG).unwrap();
    assert_eq!(host.guests().len(), 4);
    assert!(host.virsh(&["list", "--all", "--name"]).unwrap().contains("odd <name> & 'more'"));
    booted.remove().unwrap();
    assert!(host.guest("vm9").is_err());
    assert!(!host.virsh(&["list", "--all", "--name"]).unwrap().contains("vm9"));

    // One runs, the other does not.
    host.boot_guest("vm10").unwrap();
    bed.restore().unwrap();
    assert_eq!(host.guests().len(), 2, "a guest that was not made with the bed is removed");
    assert_eq!(host.virsh(&["list", "--all", "--uuid"]).unwrap().split_whitespace().count(), 2);
}

#[test]
fn restore_undoes_everything_at_once() {
    let bed = bed();
    let [h1, h2, h3] = ["h1", "h2", "h3"].map(|id| bed.host(id).unwrap());
    h1.guest("vm1").unwrap().stop_agent().unwrap();
    h1.guest("vm2").unwrap().pause_qemu().unwrap();
    h1.pause_daemon().unwrap();
    h1.drop_packets().unwrap();
    let suspended = h2.guest("vm1").unwrap();
    h2.virsh(&["suspend", suspended.uuid()]).unwrap();
    h2.guest("vm2").unwrap().destroy().unwrap();
    h2.kill_daemon().unwrap();
    let forgotten = h3.guest("vm1").unwrap();
    forgotten.destroy().unwrap();
    h3.virsh(&["undefine", forgotten.uuid()]).unwrap();
    h3.link_down().unwrap();

    bed.restore().unwrap();
    for guest in bed.guests() {
        assert_eq!(guest.state().unwrap(), "running");
        guest.ping_agent().unwrap();
    }
}

#[test]
fn a_renewed_bed_discards_changes_inside_guests() {
    let bed = bed();
    let host = bed.host("h2").unwrap();
    let guest = host.guest("vm1").unwrap();
    let qemu = guest.qemu_pid().unwrap();
    let disk = bed.folder().join("h2/guests").join(format!("{}.disk", guest.uuid()));
    let small = host.small_folder().unwrap().outside.join("left");
    for left in [&disk, &small] {
        let mut file = std::fs::File::options().create(true).append(true).open(left).unwrap();
        file.write_all(b"left").unwrap();
    }
    host.guest("vm2").unwrap().kill_qemu().unwrap();

    bed.renew().unwrap();
    assert_ne!(guest.qemu_pid().unwrap(), qemu);
    assert_eq!(std::fs::metadata(&disk).unwrap().blocks(), 0, "the disk is empty");
    assert!(!small.exists());
    assert!(bed.guests().iter().all(|guest| guest.ping_agent().is_ok()));
}
