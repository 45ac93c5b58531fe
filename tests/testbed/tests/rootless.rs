//! Session daemons without root: the same guests, and the same faults except those of the network.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use atp_testbed::{Error, Mode, Testbed};

mod common;

use common::{testbed, traces};

const LONG: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
fn a_rootless_bed_has_sessions_and_leaves_nothing_behind() {
    let bed = Testbed::builder().hosts(2).guests(1).mode(Mode::Rootless).start().unwrap();
    for host in bed.hosts() {
        assert_eq!(host.uri(), format!("qemu+tcp://{}/session", host.address()));
        assert!(host.address().ip().is_loopback());
        let known = host.virsh(&["list", "--uuid"]).unwrap();
        assert_eq!(known.trim(), host.guest("vm1").unwrap().uuid());
    }
    let (host, other) = (bed.host("h1").unwrap(), bed.host("h2").unwrap());
    assert_ne!(host.address(), other.address());
    let guest = host.guest("vm1").unwrap();

    assert!(matches!(host.drop_packets(), Err(Error::NeedsRoot { operation: "drop_packets" })));
    assert!(matches!(host.link_down(), Err(Error::NeedsRoot { .. })));

    host.pause_daemon().unwrap();
    assert!(host.virsh_within(&["hostname"], std::time::Duration::from_secs(2)).unwrap_err().is_deadline());
    other.virsh(&["hostname"]).unwrap();
    host.resume_daemon().unwrap();

    let qemu = guest.qemu_pid().unwrap();
    host.kill_daemon().unwrap();
    host.start_daemon().unwrap();
    assert_eq!(guest.qemu_pid().unwrap(), qemu);
    guest.wait_agent(LONG).unwrap();

    guest.stop_agent().unwrap();
    other.guest("vm1").unwrap().pause_qemu().unwrap();
    bed.restore().unwrap();
    guest.ping_agent().unwrap();
    other.guest("vm1").unwrap().ping_agent().unwrap();

    let (number, folder) = (bed.number(), bed.folder());
    bed.down().unwrap();
    assert_eq!(traces(number, &folder), [""; 0]);
}

/// The whole testbed as an ordinary user: as `nobody`, if the tests run as root.
#[test]
fn an_ordinary_user_can_start_a_bed() {
    let place = std::env::temp_dir().join(format!("atp-testbed-user-{}", std::process::id()));
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    // The folder where cargo puts the binary may not be accessible to others.
    let binary = place.join("testbed");
    // The copy is made by another process: a child forked by another test at the same time would keep the copy open
    // for writing.
    let copied = Command::new("install").arg("--mode=755").arg(testbed().get_program()).arg(&binary).status();
    assert!(copied.unwrap().success());

    let mut command = Command::new(&binary);
    command.args(["run", "--hosts", "1", "--guests", "1", "--"]).arg(&binary).args(["status"]);
    command
        .env_remove("HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .env("XDG_CACHE_HOME", &place)
        .env("TMPDIR", &place);
    if fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0) {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    fs::remove_dir_all(&place).unwrap();
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("/session"), "{stdout}");
    assert!(stdout.contains("vm1  running, agent answers"), "{stdout}");
}
