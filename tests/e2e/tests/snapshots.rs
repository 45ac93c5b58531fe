//! Snapshots, saved memory and what goes with them, of guests whose disks keep snapshots.

use std::env;
use std::time::Duration;

use atp_e2e::{Bed, becomes, bed};
use atp_testbed::{DiskFormat, Guest};

/// The maximum time for a guest's boot on a busy machine.
const BOOT: Duration = Duration::from_secs(300);

/// Guests `snap1`, `snap2`, … with disks that keep snapshots, on the hosts in turn. `ATP_SNAPSHOT_VMS` says how many.
fn guests(bed: &Bed, count: usize) -> Vec<Guest> {
    let hosts = bed.hosts();
    let guests: Vec<Guest> = (1..=count)
        .map(|number| {
            let host = &hosts[number % hosts.len()];
            let guest = host.define_guest_with(&format!("snap{number}"), DiskFormat::Qcow2).unwrap();
            guest.start().unwrap();
            guest
        })
        .collect();
    for guest in &guests {
        guest.wait_agent(BOOT).unwrap();
    }
    guests
}

fn count() -> usize {
    env::var("ATP_SNAPSHOT_VMS").ok().and_then(|count| count.parse().ok()).unwrap_or(3)
}

/// Runs `atp` on all guests with snapshots, and asserts that each ends like this.
#[track_caller]
fn all(bed: &Bed, args: &[&str], guests: &[Guest], end: &str) {
    let run = bed.run(args);
    let mut expected: Vec<_> =
        guests.iter().map(|guest| format!("{}/{} {end}", guest.host().id(), guest.name())).collect();
    expected.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
    let mut found = run.brief();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{args:?}\n{run:#?}");
}

#[test]
fn what_was_written_after_a_snapshot_is_gone_after_a_revert() {
    let bed = bed();
    let guests = guests(&bed, count());
    let shell = |command: &'static str| ["exec", "snap*", "--timeout", "2m", "--shell", "--", command];
    all(&bed, &shell("mount-data && echo before > /data/file && sync"), &guests, "ok done");
    all(&bed, &["snapshot", "create", "snap*", "clean", "--timeout", "2m"], &guests, "ok done");
    all(&bed, &["snapshot", "create", "snap*", "clean"], &guests, "failed none snapshot-exists");
    all(&bed, &shell("echo after > /data/file && touch /tmp/new && sync"), &guests, "ok done");

    let list = bed.run(&["snapshot", "list", "snap1"]);
    let snapshots = list.exits_with(0).outcomes()[0].data["snapshots"].clone();
    assert_eq!(snapshots.as_array().map(Vec::len), Some(1), "{snapshots}");
    assert_eq!((&snapshots[0]["name"], &snapshots[0]["state"]), (&"clean".into(), &"running".into()));
    assert_eq!((&snapshots[0]["current"], &snapshots[0]["memory"]), (&true.into(), &true.into()));

    all(&bed, &["snapshot", "revert", "snap*", "clean", "--timeout", "2m", "--yes"], &guests, "ok done");
    // The guest goes on from the snapshot's memory: it has not rebooted, and knows nothing of what followed.
    let look = shell("cat /data/file && ls /tmp/new 2>/dev/null || true");
    let run = bed.run(&look);
    for outcome in run.exits_with(0).outcomes() {
        assert_eq!(outcome.stream("stdout"), "before\n", "{outcome:?}");
    }
    // The disk itself, past the memory of the guest's kernel.
    all(&bed, &shell("umount /data && mount-data && grep -qx before /data/file"), &guests, "ok done");

    all(&bed, &["snapshot", "delete", "snap*", "clean", "--yes"], &guests, "ok done");
    all(&bed, &["snapshot", "delete", "snap*", "clean", "--yes"], &guests, "unchanged none");
    let gone = bed.run(&["snapshot", "revert", "snap1", "clean"]);
    assert!(gone.exits_with(1).brief()[0].ends_with("failed none snapshot-not-found"), "{gone:#?}");
}

#[test]
fn a_vm_that_cannot_be_snapshotted_says_why_and_a_hung_one_hurts_no_other() {
    let bed = bed();
    let raw = bed.run(&["snapshot", "create", "h1/vm1", "clean"]);
    assert_eq!(raw.exits_with(1).brief(), ["h1/vm1 failed none snapshot-impossible"]);
    let message = raw.outcome("h1/vm1").failure().message.clone();
    assert!(message.contains("its disk vda has the format raw"), "{message}");

    let guests = guests(&bed, 2);
    let disks = bed.run(&["snapshot", "create", "snap1", "disks", "--disk-only"]);
    assert!(disks.exits_with(1).brief()[0].ends_with("failed none snapshot-impossible"), "{disks:#?}");
    let refused = bed.atp(&["snapshot", "create", "snap1", "x", "--quiesce"]).run();
    refused.exits_with(2);

    let h1 = bed.host("h1").unwrap();
    let hung = h1.guest("vm2").unwrap();
    hung.pause_qemu().unwrap();
    let names: Vec<_> =
        guests.iter().map(|guest| format!("{}/{}", guest.host().id(), guest.name())).collect();
    // The raw disk is said of one that hangs as well: nothing is asked of its QEMU.
    let run = bed.run(&["snapshot", "create", "h1/vm2", &names[0], &names[1], "clean", "--timeout", "2m"]);
    assert_eq!(run.outcome("h1/vm2").brief(), "h1/vm2 failed none snapshot-impossible");
    for name in &names {
        assert_eq!(run.outcome(name).brief(), format!("{name} ok done"));
    }
    hung.resume_qemu().unwrap();
}

#[test]
fn a_snapshot_or_a_revert_that_is_cut_off_is_unknown_and_hurts_no_other() {
    let bed = bed();
    let guests = guests(&bed, 2);
    let names: Vec<_> =
        guests.iter().map(|guest| format!("{}/{}", guest.host().id(), guest.name())).collect();
    bed.run(&["snapshot", "create", &names[0], &names[1], "clean", "--timeout", "2m"]).exits_with(0);

    // QEMU does not answer: the call was sent, and whether it is carried out is not known.
    guests[0].pause_qemu().unwrap();
    let hung = bed.run(&["snapshot", "create", &names[0], &names[1], "second", "--timeout", "15s"]);
    let outcome = hung.outcome(&names[0]);
    assert_eq!((outcome.status.as_str(), outcome.effect.as_str()), ("timeout", "unknown"), "{outcome:?}");
    assert_eq!(hung.outcome(&names[1]).brief(), format!("{} ok done", names[1]));
    guests[0].resume_qemu().unwrap();
    // What was cut off is carried out when QEMU answers again.
    becomes("the snapshots", BOOT, true, || {
        let list = bed.run(&["snapshot", "list", &names[0]]);
        list.outcome(&names[0]).data["snapshots"].as_array().is_some_and(|snapshots| snapshots.len() == 2)
    });
    becomes("the guest", BOOT, Some(0), || bed.run(&["exec", &names[0], "--", "true"]).code());

    // libvirt ends the QEMU of a VM that is reverted, for which it gives one that does not answer ten seconds.
    guests[0].pause_qemu().unwrap();
    let revert = |name: &str, time| {
        bed.atp(&["snapshot", "revert", name, "clean", "--timeout", time, "--yes"]).output("json").start()
    };
    let (hung, well) = (revert(&names[0], "5s"), revert(&names[1], "2m"));
    let hung = hung.finish();
    let outcome = hung.outcome(&names[0]);
    assert_eq!((outcome.status.as_str(), outcome.effect.as_str()), ("timeout", "unknown"), "{outcome:?}");
    assert_eq!(well.finish().exits_with(0).brief(), [format!("{} ok done", names[1])]);
    guests[0].resume_qemu().unwrap();
}

#[test]
fn memory_is_saved_and_restored_and_a_vm_is_started_with_its_host_or_not() {
    let bed = bed();
    bed.run(&["exec", "h1/vm1", "--", "touch", "/tmp/kept-in-memory"]).exits_with(0);
    assert_eq!(bed.run(&["vm", "restore", "h1/vm1"]).exits_with(0).brief(), ["h1/vm1 unchanged none"]);
    let save = ["vm", "save", "h1/vm1", "--timeout", "2m"];
    assert_eq!(bed.run(&save).exits_with(0).brief(), ["h1/vm1 ok done"]);
    assert_eq!(bed.run(&save).exits_with(0).brief(), ["h1/vm1 unchanged none"]);
    let dry = bed.run(&["vm", "save", "h1/vm1", "--dry-run"]);
    assert_eq!(dry.exits_with(0).brief(), ["h1/vm1 unchanged none"]);
    let restore = ["vm", "restore", "h1/vm1", "--wait", "--timeout", "2m"];
    assert_eq!(bed.run(&restore).exits_with(0).brief(), ["h1/vm1 ok done"]);
    // A guest that boots has an empty /tmp.
    bed.run(&["exec", "h1/vm1", "--", "rm", "/tmp/kept-in-memory"]).exits_with(0);

    let guest = bed.host("h1").unwrap().define_guest("plain").unwrap();
    let restore = bed.run(&["vm", "restore", "h1/plain"]);
    assert_eq!(restore.exits_with(1).brief(), ["h1/plain failed none operation-invalid"]);
    let hint = restore.outcome("h1/plain").failure().hint.clone();
    assert!(hint.is_some_and(|hint| hint.contains("atp vm start")));
    for (switch, expected) in
        [("on", "ok done"), ("on", "unchanged none"), ("off", "ok done"), ("off", "unchanged none")]
    {
        let run = bed.run(&["vm", "autostart", switch, "h1/plain"]);
        assert_eq!(run.exits_with(0).brief(), [format!("h1/plain {expected}")]);
    }
    let nmi = bed.run(&["vm", "nmi", "h1/plain"]);
    assert_eq!(nmi.exits_with(1).brief(), ["h1/plain failed none vm-not-running"]);
    assert_eq!(bed.run(&["vm", "nmi", "h1/vm2"]).exits_with(0).brief(), ["h1/vm2 ok done"]);
    let xml = bed.atp(&["vm", "xml", "h1/plain"]).run();
    let text = xml.exits_with(0).stdout();
    assert!(
        text.starts_with("<domain") && text.contains(guest.uuid()) && text.ends_with("</domain>\n"),
        "{text}"
    );
}
