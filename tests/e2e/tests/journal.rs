//! Journals: a run that is killed and resumed, and a full disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use atp_e2e::{Bed, Outcome, Running, bed};

type Wait = fn(&Running);

/// Appends a line to a file in the guest, which counts the executions, and takes a while.
const COUNTED: &str = "echo ran >> /tmp/ran; sleep 1";

#[test]
fn killed_at_any_moment_it_repeats_no_work_and_loses_no_shown_outcome() {
    let moments: [(&str, Wait); 3] = [
        ("when work was started", |run| run.wait_for_stderr("started")),
        ("when one was shown", |run| run.wait_for_lines(1)),
        ("when three were shown", |run| run.wait_for_lines(3)),
    ];
    let bed = bed();
    for (moment, wait) in moments {
        let journal = file(&format!("killed-{}", moment.len()));
        let path = journal.to_str().unwrap();
        bed.run(&["exec", "*", "--", "rm", "-f", "/tmp/ran"]).exits_with(0);
        let exec = ["exec", "*", "--", "sh", "-c", COUNTED];

        let args = [&["-v", "--parallel", "2", "--journal", path][..], &exec].concat();
        let running = bed.atp(&args).output("jsonl").start();
        wait(&running);
        let killed = running.kill();
        // The last line may be torn, as in any stream.
        let shown: Vec<Outcome> =
            killed.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let noted = fs::read_to_string(&journal).unwrap();
        for outcome in &shown {
            let line = format!(
                r#"{{"finished":{{"host":"{}","vm":"{}""#,
                outcome.host.as_ref().unwrap(),
                outcome.vm.as_ref().unwrap()
            );
            assert!(
                noted.contains(&line),
                "{moment}: {} was shown and is not in the journal:\n{noted}",
                outcome.name()
            );
        }

        // Work that the killed process had started continues in the guests. It counts only when it has ended.
        let resumed = bed.atp(&[&["--resume", path][..], &exec].concat()).output("json").run();
        let unknown: Vec<String> =
            resumed.outcomes().iter().filter(|o| o.effect == "unknown").map(Outcome::name).collect();
        resumed.exits_with(if unknown.is_empty() { 0 } else { 1 });
        let ran = ran(&bed);
        assert_eq!(ran.len(), 6);
        for (name, times) in ran {
            let allowed = if unknown.contains(&name) { 0..=1 } else { 1..=1 };
            assert!(allowed.contains(&times), "{moment}: {name} ran {times} times, unknown: {unknown:?}");
            let is_done = shown.iter().any(|outcome| outcome.name() == name && outcome.status == "ok");
            assert!(!is_done || !resumed.names().contains(&name), "{moment}: {name} was done before");
        }
    }
}

/// The number of executions of the counted command in each guest.
fn ran(bed: &Bed) -> BTreeMap<String, usize> {
    let run = bed.run(&["exec", "*", "--", "sh", "-c", "cat /tmp/ran 2>/dev/null || true"]);
    let outcomes = run.exits_with(0).outcomes();
    outcomes.iter().map(|outcome| (outcome.name(), outcome.stream("stdout").lines().count())).collect()
}

#[test]
fn on_a_full_disk_no_more_work_is_started_and_the_reason_is_reported() {
    let bed = bed();
    let disk = SmallDisk::mount("journal-disk");
    let journal = disk.0.join("run.journal");
    let path = journal.to_str().unwrap();
    bed.run(&["exec", "*", "--", "rm", "-f", "/tmp/ran"]).exits_with(0);
    let long = "echo ran >> /tmp/ran; head -c 3000 /dev/zero | tr '\\0' x";
    let exec = ["exec", "*", "--", "sh", "-c", long];
    let args = [&["--parallel", "1", "--journal", path][..], &exec].concat();
    let run = bed.atp(&args).output("json").run();
    run.exits_with(1);
    assert!(
        run.stderr.contains("cannot be written") && run.stderr.contains("No space left"),
        "{}",
        run.stderr
    );
    let outcomes = run.outcomes();
    assert_eq!(outcomes.len(), 6, "{outcomes:?}");
    let skipped: Vec<_> = outcomes.iter().filter(|outcome| outcome.status == "skipped").collect();
    assert!((1..6).contains(&skipped.len()), "{outcomes:#?}");
    for outcome in &outcomes {
        let kind = outcome.error.as_ref().map(|error| error.kind.as_str());
        assert!(outcome.status == "ok" || (outcome.status == "skipped" && kind == Some("journal-failed")));
    }
    // No target ran that was reported as not run.
    for (name, times) in ran(&bed) {
        assert_eq!(times, usize::from(!skipped.iter().any(|outcome| outcome.name() == name)), "{name}");
    }

    disk.grow();
    let resumed = bed.atp(&[&["--resume", path][..], &exec].concat()).output("json").run();
    assert!(ran(&bed).values().all(|&times| times == 1), "{:?}", resumed.brief());
}

#[test]
fn a_run_that_cannot_start_on_a_full_disk_leaves_nothing_behind() {
    let bed = bed();
    let disk = SmallDisk::mount("full-disk");
    let (filler, journal, pictures) =
        (disk.0.join("filler"), disk.0.join("run.journal"), disk.0.join("shots"));
    fs::create_dir_all(pictures.join("h1")).unwrap();
    // As much as there is space for.
    let _full = fs::write(&filler, vec![0; 1 << 20]);
    let (path, folder) = (journal.to_str().unwrap(), pictures.to_str().unwrap());
    let info = ["--journal", path, "vm", "info", "h1/vm1"];
    let run = bed.run(&info);
    run.exits_with(2);
    assert!(run.stderr.contains("No space left"), "{}", run.stderr);
    assert!(!journal.exists());
    bed.run(&["screenshot", "h1/vm1", "-d", folder]).exits_with(1);
    assert_eq!(fs::read_dir(pictures.join("h1")).unwrap().count(), 0);
    fs::remove_file(filler).unwrap();
    bed.run(&info).exits_with(0);
}

/// A file system of a few kilobytes, removed when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(name: &str) -> Self {
        let folder = file(name);
        fs::create_dir_all(&folder).unwrap();
        let disk = SmallDisk(folder);
        disk.tell("mount", &["-t", "tmpfs", "-o", "size=8k", "tmpfs"]);
        disk
    }

    fn grow(&self) {
        self.tell("mount", &["-o", "remount,size=1m"]);
    }

    fn tell(&self, program: &str, args: &[&str]) {
        assert!(
            Command::new(program).args(args).arg(&self.0).status().unwrap().success(),
            "{program} {args:?}"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A path for a file of this test that does not exist yet.
fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}
