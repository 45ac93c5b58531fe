//! Snapshots, saved memory and what goes with them, of guests whose disks keep snapshots.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use atp_e2e::{Bed, becomes, bed, within};
use atp_executor::{
    Executor, LifecycleSpec, Operation, OperationSpec, Policy, RunControl, RunEvent, Selection,
};
use atp_testbed::{DiskFormat, Guest, Host};
use atp_transport::domain::Lifecycle;

use crate::serve::{free_port, get};
use crate::support::{Terminal, manager, quick};

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

/// After a revert libvirt knows a moment later that the agents are there.
const AGENTS: [&str; 6] = ["wait", "snap*", "--for", "agent", "--timeout", "2m"];

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
    bed.run(&AGENTS).exits_with(0);
    // The guest goes on from the snapshot's memory: it has not rebooted, and knows nothing of what followed.
    let look = shell("cat /data/file && ls /tmp/new 2>/dev/null || true");
    let run = bed.run(&look);
    for outcome in run.exits_with(0).outcomes() {
        assert_eq!(outcome.stream("stdout"), "before\n", "{outcome:?}");
    }
    // The disk itself, past the memory of the guest's kernel.
    all(&bed, &shell("umount /data && mount-data && grep -qx before /data/file"), &guests, "ok done");

    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/scenarios/isolated-change.yaml");
    let isolated = ["run", example, "--set", "targets=snap*", "--timeout", "2m", "--yes"];
    all(&bed, &isolated, &guests, "ok done");
    bed.run(&AGENTS).exits_with(0);
    all(&bed, &shell("! test -e /etc/atp-message"), &guests, "ok done");

    all(&bed, &["snapshot", "delete", "snap*", "clean", "--yes"], &guests, "ok done");
    all(&bed, &["snapshot", "delete", "snap*", "clean", "--yes"], &guests, "unchanged none");
    let gone = bed.run(&["snapshot", "revert", "snap1", "clean"]);
    assert!(gone.exits_with(1).brief()[0].ends_with("failed none snapshot-not-found"), "{gone:#?}");
}

/// Whether what is on a guest's disk is what was there at its snapshot `clean`, to the byte. The guest must not write meanwhile.
fn is_as_in_the_snapshot(guest: &Guest) -> bool {
    let was = tempfile::NamedTempFile::new().unwrap();
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-U", "-l", "snapshot.name=clean", "-f", "qcow2", "-O", "raw"]);
    assert!(convert.arg(guest.disk()).arg(was.path()).status().unwrap().success(), "{guest:?}");
    let mut compare = Command::new("qemu-img");
    compare.args(["compare", "-q", "-U", "-f", "qcow2", "-F", "raw"]).arg(guest.disk()).arg(was.path());
    match compare.status().unwrap().code() {
        Some(0) => true,
        Some(1) => false,
        code => panic!("qemu-img ends with {code:?} for {guest:?}"),
    }
}

#[test]
fn a_run_that_is_killed_at_any_step_leaves_disks_that_its_resume_takes_back_to_the_snapshot() {
    const CHANGE: &str = "{exec: 'mount-data && date >> /data/file && umount /data && sync'}";
    const BLOCK: &str = "{wait: {exec: 'touch /tmp/waits; test -e /tmp/never'}, timeout: 10m}";
    let bed = bed();
    let guests = guests(&bed, count());
    let shell = |command: &'static str| ["exec", "snap*", "--timeout", "2m", "--shell", "--", command];
    all(&bed, &shell("mount-data && echo before > /data/file && umount /data && sync"), &guests, "ok done");
    all(&bed, &["snapshot", "create", "snap*", "clean", "--timeout", "2m"], &guests, "ok done");
    assert!(guests.iter().all(is_as_in_the_snapshot));

    let folder = tempfile::tempdir().unwrap();
    // Before the first step, between steps, after the last one, and in the teardown: how many changes were made.
    for (boundary, steps, teardown, changes) in [
        (1, format!("{BLOCK}, {CHANGE}"), CHANGE.to_owned(), 0),
        (2, format!("{CHANGE}, {BLOCK}, {CHANGE}"), CHANGE.to_owned(), 1),
        (3, format!("{CHANGE}, {CHANGE}, {BLOCK}"), CHANGE.to_owned(), 2),
        (4, CHANGE.to_owned(), format!("{CHANGE}, {BLOCK}"), 2),
    ] {
        let [scenario, journal] =
            ["yaml", "journal"].map(|kind| folder.path().join(format!("{boundary}.{kind}")));
        let text = format!(
            "name: isolated\ntargets: 'snap*'\nisolate: {{snapshot: clean}}\nsteps: [{{wait: agent}}, {steps}]\nteardown: [{teardown}]\n"
        );
        fs::write(&scenario, text).unwrap();
        let run = ["run", scenario.to_str().unwrap(), "--yes", "--timeout", "2m"];
        let journal = journal.to_str().unwrap();
        let running = bed.atp(&[&run[..], &["--journal", journal]].concat()).output("json").start();
        // A program that runs in the guest when it is taken back is lost: each look is short.
        let look = ["exec", "snap*", "--timeout", "10s", "--", "test", "-e", "/tmp/waits"];
        becomes("all guests in the step", BOOT, guests.len(), || {
            bed.run(&look).outcomes().iter().filter(|outcome| outcome.status == "ok").count()
        });
        running.kill();
        let same = guests.iter().filter(|guest| is_as_in_the_snapshot(guest)).count();
        assert_eq!(same, if changes == 0 { guests.len() } else { 0 }, "boundary {boundary}");

        let resumed = bed.run(&[&run[..], &["--resume", journal]].concat());
        let outcomes = resumed.exits_with(1).outcomes();
        assert_eq!(outcomes.len(), guests.len(), "boundary {boundary}");
        for outcome in outcomes {
            assert_eq!(outcome.failure().kind, "outcome-unknown", "boundary {boundary}: {outcome:?}");
            assert_eq!(outcome.data["isolated"]["restored"], true, "boundary {boundary}: {outcome:?}");
        }
        let same = guests.iter().filter(|guest| is_as_in_the_snapshot(guest)).count();
        assert_eq!(same, guests.len(), "boundary {boundary}");
        println!("boundary {boundary}: {same} of {} disks are as in the snapshot", guests.len());
    }
    bed.run(&AGENTS).exits_with(0);
    all(&bed, &shell("mount-data && grep -qx before /data/file && umount /data"), &guests, "ok done");
}

#[test]
fn a_vm_that_cannot_be_snapshotted_says_why_and_a_hung_one_hurts_no_other() {
    let bed = bed();
    let raw = bed.run(&["snapshot", "create", "h1/vm1", "clean"]);
    assert_eq!(raw.exits_with(1).brief(), ["h1/vm1 failed none snapshot-impossible"]);
    let message = raw.outcome("h1/vm1").failure().message.clone();
    assert!(message.contains("its disk vda has the format raw"), "{message}");
    assert!(message.contains("(convert its image with `qemu-img convert -O qcow2`"), "{message}");

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
fn what_is_in_the_way_of_a_snapshot_is_what_libvirt_refuses() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let guest = host.define_guest_with("drives", DiskFormat::Qcow2).unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1440 << 10).unwrap();
    let source = format!("<source file='{}'/>", image.path().display());
    let without = host.virsh(&["dumpxml", guest.uuid()]).unwrap();
    let drive = |attributes: &str, source: &str, more: &str| {
        format!(
            "<disk type='file' {attributes}><driver name='qemu' type='raw'/>{source}<target {more}</disk></devices>"
        )
    };
    for (drive, obstacle) in [
        (
            drive("device='floppy'", &source, "dev='fda' bus='fdc'/>"),
            Some("its floppy fda has the format raw"),
        ),
        (drive("device='floppy'", &source, "dev='fda' bus='fdc'/><readonly/>"), None),
        (drive("device='floppy'", "", "dev='fda' bus='fdc'/>"), None),
        (drive("device='cdrom'", &source, "dev='hda' bus='ide'/><readonly/>"), None),
        (drive("device='cdrom'", "", "dev='hda' bus='ide'/>"), None),
        (drive("", &source, "dev='vdb' bus='virtio'/>"), Some("its disk vdb has the format raw")),
        (drive("", &source, "dev='vdb' bus='virtio'/><shareable/>"), Some("its disk vdb has the format raw")),
        (drive("", &source, "dev='vdb' bus='virtio'/><readonly/><shareable/>"), None),
        (
            drive("snapshot='no'", &source, "dev='vdb' bus='virtio'/>"),
            Some("its disk vdb is not to be in such"),
        ),
        (
            drive("snapshot='external'", &source, "dev='vdb' bus='virtio'/>"),
            Some("its disk vdb is not to be in"),
        ),
    ] {
        let definition = tempfile::NamedTempFile::new().unwrap();
        fs::write(definition.path(), without.replace("</devices>", &drive)).unwrap();
        host.virsh(&["define", definition.path().to_str().unwrap()]).unwrap();
        let create = bed.run(&["snapshot", "create", "h1/drives", "x"]);
        let Some(obstacle) = obstacle else {
            assert_eq!(create.exits_with(0).brief(), ["h1/drives ok done"], "{drive}");
            bed.run(&["snapshot", "delete", "h1/drives", "x"]).exits_with(0);
            continue;
        };
        assert_eq!(create.brief(), ["h1/drives failed none snapshot-impossible"], "{drive}");
        let message = create.outcome("h1/drives").failure().message.clone();
        assert!(message.contains(obstacle) && message.ends_with(')'), "{message}");
        let refused = host.virsh(&["snapshot-create-as", guest.uuid(), "x"]);
        assert!(refused.is_err(), "libvirt makes a snapshot of it: {drive}");
    }
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
    let hung = bed.run(&["snapshot", "create", &names[0], &names[1], "second", "--timeout", "60s"]);
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
    let (hung, well) = (revert(&names[0], "9s"), revert(&names[1], "2m"));
    let hung = hung.finish();
    let outcome = hung.outcome(&names[0]);
    assert_eq!((outcome.status.as_str(), outcome.effect.as_str()), ("timeout", "unknown"), "{outcome:?}");
    assert_eq!(well.finish().exits_with(0).brief(), [format!("{} ok done", names[1])]);
    // libvirt may have ended it by now.
    let _ended = guests[0].resume_qemu();
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
    // The bed waits for the boot of guests that run.
    bed.host("h1").unwrap().guest("vm1").unwrap().destroy().unwrap();

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

/// The file that the memory of a VM is saved to, as a pipe: it takes no more than its reader, who takes one MiB until the save goes on.
struct SlowFile {
    goes_on: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    end: fs::File,
    reader: thread::JoinHandle<()>,
}

impl SlowFile {
    fn of(host: &Host, vm: &str) -> Self {
        let file = host.folder().join(format!("lib/qemu/save/{vm}.save"));
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        // One that writes too waits for no other.
        let mut pipe = fs::File::options().read(true).write(true).open(&file).unwrap();
        let end = pipe.try_clone().unwrap();
        let [goes_on, is_over] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let reader = thread::spawn({
            let (goes_on, is_over) = (Arc::clone(&goes_on), Arc::clone(&is_over));
            move || {
                let (mut buffer, mut read) = (vec![0; 64 << 10], 0);
                while !is_over.load(Ordering::Relaxed) {
                    if read < 1 << 20 || goes_on.load(Ordering::Relaxed) {
                        read += pipe.read(&mut buffer).unwrap();
                    } else {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        });
        SlowFile { goes_on, is_over, end, reader }
    }

    /// Ends the reader, after the save.
    fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.end.write_all(b"end").unwrap();
        self.reader.join().unwrap();
    }
}

#[test]
fn the_progress_of_a_save_is_reported_and_a_question_that_hangs_does_not_hurt_it() {
    let bed = bed();
    let h1 = bed.host("h1").unwrap();
    let guest = h1.define_guest("slow").unwrap();
    guest.start().unwrap();
    guest.wait_agent(BOOT).unwrap();
    let file = SlowFile::of(&h1, "slow");

    // The answer to a question comes first; then QEMU hangs, and does not answer the next one.
    let hang = {
        let (h1, guest, goes_on) = (h1.clone(), guest.clone(), Arc::clone(&file.goes_on));
        move || {
            guest.pause_qemu().unwrap();
            // Beside a save libvirt calls a monitor that is asked a part of its job.
            let asked = || h1.virsh(&["domcontrol", guest.uuid()]).unwrap().contains("job");
            becomes("a question that hangs", BOOT, true, asked);
            guest.resume_qemu().unwrap();
            goes_on.store(true, Ordering::Relaxed);
        }
    };
    let outcome = within(BOOT * 2, async {
        let save = Operation::prepare(OperationSpec::Lifecycle(LifecycleSpec::new(Lifecycle::Save))).await;
        let executor = Executor::new(manager(&bed, quick()).await);
        let policy = Policy { timeout: BOOT, ..Policy::default() };
        let selection = Selection::of(["h1/slow".parse().unwrap()]);
        let plan = executor.plan(&selection, save.unwrap(), policy).await.unwrap();
        let mut run = executor.run(plan, &RunControl::default());
        let (mut hang, mut hung, mut outcome) = (Some(hang), None, None);
        while let Some(event) = run.next().await {
            match event {
                RunEvent::Progress { done, total, vm, .. } => {
                    assert_eq!(vm.as_deref(), Some("slow"));
                    // It has 96 MiB, and devices with memory of their own.
                    assert!(done <= total && (96 << 20..1 << 30).contains(&total), "{done} of {total}");
                    hung = hung.or_else(|| hang.take().map(tokio::task::spawn_blocking));
                }
                RunEvent::Finished(finished) => outcome = Some(*finished),
                _ => {}
            }
        }
        hung.expect("there was progress").await.unwrap();
        outcome.unwrap()
    });
    file.end();
    assert!(outcome.status.is_success(), "{outcome:?}");
    assert_eq!(guest.state().unwrap(), "shut off");
}

#[test]
fn a_service_tells_the_progress_of_a_save() {
    let bed = bed();
    let h1 = bed.host("h1").unwrap();
    let guest = h1.define_guest("told").unwrap();
    guest.start().unwrap();
    guest.wait_agent(BOOT).unwrap();
    let file = SlowFile::of(&h1, "told");
    let folder = tempfile::tempdir().unwrap();
    let (state, token_file) = (folder.path().join("state"), folder.path().join("token"));
    let port = free_port();
    let atp = |args: &[&str]| {
        let atp = bed.atp(args).env("ATP_SERVE__FOLDER", state.to_str().unwrap());
        atp.env("ATP_SERVE__LISTEN", &format!("127.0.0.1:{port}"))
    };
    let added = atp(&["serve", "token", "add", "ann", "--role", "operator"]).run();
    let token = added.exits_with(0).stdout().trim().to_owned();
    fs::write(&token_file, &token).unwrap();
    let serving = atp(&["serve"]).start();
    serving.wait_for_stderr("serving 3 hosts");

    let terminal = Terminal::open();
    let address = format!("http://127.0.0.1:{port}");
    let save = atp(&["--server", &address, "vm", "save", "h1/told", "--timeout", "5m", "--yes"]);
    let save = save.env("ATP_SERVER_TOKEN_FILE", token_file.to_str().unwrap()).env("TERM", "xterm");
    let mut save = terminal.start(save);
    terminal.shows("B of ");
    file.goes_on.store(true, Ordering::Relaxed);
    assert!(save.wait().unwrap().success(), "{}", terminal.text());
    file.end();
    assert_eq!(guest.state().unwrap(), "shut off");

    // It is not kept.
    let (status, events) = get(port, "/api/v1/runs/1/events", &token).unwrap();
    let events = String::from_utf8(events).unwrap();
    assert!(status == 200 && events.contains("event: finished"), "{status}: {events}");
    assert!(!events.contains("event: progress"), "{events}");
    serving.interrupt();
    serving.finish().exits_with(0);
}
