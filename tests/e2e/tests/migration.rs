//! VMs that are migrated from host to host.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use atp_e2e::{Bed, Run, becomes, bed, eventually, within};
use atp_executor::{
    Data, ExecSpec, Executor, LifecycleSpec, Operation, OperationSpec, Outcome, Policy, PullSpec, PushSpec,
    RunControl, RunEvent, ScenarioSpec, Selection, Status,
};
use atp_testbed::Guest;
use atp_transport::domain::Lifecycle;
use atp_transport::{Effect, ErrorKind, HostId, HostInfo};

use crate::support::{manager, quick};

/// Time limit for a guest to boot, emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(120);

/// A guest `mvm` on `h1` whose agent answers. No other host has it.
fn mvm(bed: &Bed) -> Guest {
    let guest = bed.host("h1").unwrap().boot_guest("mvm").unwrap();
    guest.wait_agent(BOOT).unwrap();
    guest
}

/// Migrates it to `h2`. Its definition stays on `h1`.
fn leave(bed: &Bed, guest: &Guest) {
    guest.migrate(&bed.host("h2").unwrap(), &[]).unwrap();
}

fn state(bed: &Bed, host: &str, guest: &Guest) -> String {
    bed.host(host).unwrap().virsh(&["domstate", guest.uuid()]).unwrap().trim().to_owned()
}

/// Checks the outcome of a VM that was found on `h2`.
#[track_caller]
fn is_found_on_h2(run: &Run, name: &str) {
    assert_eq!(run.outcome(name).found_on.as_deref(), Some("h2"), "{}", run.stdout());
}

#[test]
fn the_old_place_of_a_vm_that_was_migrated_is_marked_and_its_vm_is_not_started_there() {
    let bed = bed();
    let guest = mvm(&bed);
    leave(&bed, &guest);

    let list = bed.run(&["vm", "list", "mvm"]);
    assert_eq!(list.exits_with(0).brief(), ["h1/mvm ok none", "h2/mvm ok none"]);
    is_found_on_h2(&list, "h1/mvm");
    assert_eq!(list.outcome("h2/mvm").found_on, None);
    let table = bed.atp(&["vm", "list", "mvm"]).run().stdout();
    assert!(table.contains("shut off (migrated), runs on h2"), "{table}");

    // Where only the old place is listed libvirt's reason is enough; where both are, the other place is named.
    for selector in ["h1/mvm", "mvm"] {
        let start = bed.run(&["vm", "start", selector]);
        let outcome = start.exits_with(1).outcome("h1/mvm");
        assert_eq!(outcome.brief(), "h1/mvm failed none vm-moved");
        assert_eq!(state(&bed, "h1", &guest), "shut off");
    }
    let dry_run = bed.run(&["vm", "start", "h1/mvm", "--dry-run"]);
    assert_eq!(dry_run.outcome("h1/mvm").failure().kind, "vm-moved");
    // Hints say nothing that would start it.
    for args in [
        &["vm", "start", "h1/mvm"][..],
        &["exec", "h1/mvm", "--", "true"],
        &["vm", "resume", "h1/mvm"],
        &["vm", "reboot", "h1/mvm"],
        &["screenshot", "h1/mvm", "-d", "/nonexistent"],
        &["key", "h1/mvm", "--", "enter"],
        &["qmp", "h1/mvm", "--", "query-status"],
        &["cp", "/etc/hostname", "h1/mvm:/tmp/x"],
    ] {
        let run = bed.run(args);
        let outcome = run.exits_with(1).outcome("h1/mvm");
        let failure = outcome.failure();
        assert_eq!(failure.kind, "vm-moved", "{args:?}: {failure:?}");
        let hint = failure.hint.clone().unwrap_or_default();
        assert!(!hint.contains("start it first") && !hint.contains("vm start"), "{args:?}: {hint}");
    }
    assert_eq!(state(&bed, "h1", &guest), "shut off");
    assert_eq!(state(&bed, "h2", &guest), "running");
}

#[test]
fn already_off_is_no_answer_at_the_old_place_of_a_vm_that_runs_elsewhere() {
    let bed = bed();
    let guest = mvm(&bed);
    leave(&bed, &guest);
    for verb in ["destroy", "shutdown"] {
        let run = bed.run(&["vm", verb, "h1/mvm"]);
        assert_eq!(run.exits_with(1).brief(), ["h1/mvm failed none vm-moved"], "{verb}");
        is_found_on_h2(&run, "h1/mvm");
        assert_eq!(state(&bed, "h2", &guest), "running", "{verb}");
    }
    // A host that is excluded is not worked on.
    let run = bed.run(&["vm", "destroy", "mvm", "--exclude", "h2/mvm"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/mvm failed none vm-moved"]);
    assert_eq!(state(&bed, "h2", &guest), "running");
    // Where it runs is a target as well, and has an outcome of its own.
    let run = bed.run(&["vm", "destroy", "mvm", "--yes"]);
    assert_eq!(run.exits_with(0).brief(), ["h1/mvm unchanged none", "h2/mvm ok done"]);
    // It is off everywhere now.
    let run = bed.run(&["vm", "destroy", "h1/mvm"]);
    assert_eq!(run.exits_with(0).brief(), ["h1/mvm unchanged none"]);
    assert_eq!(run.outcome("h1/mvm").found_on, None);
}

#[test]
fn a_vm_that_moves_between_the_plan_and_the_run_is_not_reported_as_off() {
    let bed = bed();
    let guest = mvm(&bed);
    within(BOOT * 2, async {
        let executor = Executor::new(manager(&bed, quick()).await);
        let selection = Selection::of(["h1/mvm".parse().unwrap()]);
        let operation = Operation::Lifecycle(LifecycleSpec::new(Lifecycle::Destroy));
        let plan = executor.plan(&selection, operation, Policy::default()).await.unwrap();
        leave(&bed, &guest);
        let outcomes = executor.run(plan, &RunControl::default()).outcomes().await;
        let [outcome] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(outcome.status, Status::Failed, "{outcome:?}");
        assert_eq!(outcome.error.as_ref().unwrap().kind, ErrorKind::VmMoved);
        assert_eq!(outcome.found_on.as_ref().unwrap().as_str(), "h2");
    });
    assert_eq!(state(&bed, "h2", &guest), "running");
}

#[test]
fn a_vm_that_leaves_is_not_shut_off_until_it_is_where_it_runs() {
    let bed = bed();
    let guest = mvm(&bed);
    let wait =
        bed.atp(&["wait", "h1/mvm", "--for", "state=shut-off", "--timeout", "100s"]).output("json").start();
    // It looks: its connection is one more.
    leave(&bed, &guest);
    let late = bed.run(&["wait", "h1/mvm", "--for", "state=shut-off", "--timeout", "10s"]);
    assert_eq!(late.exits_with(1).brief(), ["h1/mvm timeout none condition-not-met"]);
    is_found_on_h2(&late, "h1/mvm");
    assert!(late.outcome("h1/mvm").failure().message.contains("h2"), "{}", late.stdout());

    bed.host("h2").unwrap().virsh(&["destroy", guest.uuid()]).unwrap();
    let wait = wait.finish();
    assert_eq!(wait.exits_with(0).brief(), ["h1/mvm ok none"]);
}

#[test]
fn a_start_asks_the_hosts_of_its_own_listing_and_others_only_if_it_is_told_to() {
    let bed = bed();
    let guest = mvm(&bed);
    guest.destroy().unwrap();
    bed.host("h3").unwrap().drop_packets().unwrap();
    let run = bed.run(&["vm", "start", "h1/mvm", "--ask-all-hosts"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/mvm failed none vm-moved"]);
    assert!(run.outcome("h1/mvm").failure().message.contains("h3"), "{}", run.stdout());
    // A second for the host that does not answer, and not the whole time of the target.
    assert!(run.outcome("h1/mvm").duration_ms < 20_000, "{}", run.stdout());
    let run = bed.run(&["vm", "start", "h1/mvm"]);
    assert_eq!(run.exits_with(0).brief(), ["h1/mvm ok done"]);
    bed.host("h3").unwrap().heal().unwrap();

    // With all hosts there it is started.
    guest.destroy().unwrap();
    let run = bed.run(&["vm", "start", "h1/mvm", "--ask-all-hosts"]);
    assert_eq!(run.exits_with(0).brief(), ["h1/mvm ok done"]);
}

/// The outcome of an operation on `HOST/mvm`, during which the VM is migrated to `h2`: when its console says so, or when
/// a copy has made progress.
fn moved_during(bed: &Bed, guest: &Guest, host: HostInfo, operation: OperationSpec) -> Outcome {
    let (guest, h2) = (guest.clone(), bed.host("h2").unwrap());
    within(BOOT * 2, async {
        let manager = manager(bed, quick()).await;
        let selection = Selection::of([format!("{}/mvm", host.id).parse().unwrap()]);
        if !manager.hosts().iter().any(|known| known.id == host.id) {
            manager.add_host(host).await.unwrap();
        }
        let waits_for_console = !matches!(operation, OperationSpec::Push(_) | OperationSpec::Pull(_));
        let operation = Operation::prepare(operation).await.unwrap();
        let policy = Policy { timeout: BOOT, ..Policy::default() };
        let executor = Executor::new(manager);
        let plan = executor.plan(&selection, operation, policy).await.unwrap();
        let mut run = executor.run(plan, &RunControl::default());
        let mut leaves = waits_for_console.then(|| {
            let (guest, h2) = (guest.clone(), h2.clone());
            tokio::task::spawn_blocking(move || {
                let begun = || match fs::read_to_string(guest.console()).unwrap_or_default() {
                    text if text.contains("test: begun") => Ok(()),
                    text => Err(text),
                };
                eventually("the guest begins", BOOT, begun);
                guest.migrate(&h2, &[]).unwrap();
            })
        });
        let mut outcome = None;
        while let Some(event) = run.next().await {
            match event {
                RunEvent::Progress { done: 1.., .. } if leaves.is_none() => {
                    let (guest, h2) = (guest.clone(), h2.clone());
                    leaves = Some(tokio::task::spawn_blocking(move || guest.migrate(&h2, &[]).unwrap()));
                }
                RunEvent::Finished(finished) => {
                    assert!(outcome.is_none(), "two outcomes: {outcome:?}, {finished:?}");
                    outcome = Some(*finished);
                }
                _ => {}
            }
        }
        assert!(leaves.is_some(), "it ended before it moved: {outcome:?}");
        leaves.unwrap().await.unwrap();
        outcome.unwrap()
    })
}

fn h1(bed: &Bed) -> HostInfo {
    HostInfo::from_uri("h1", bed.host("h1").unwrap().uri())
}

/// Prints a line on the console, runs for some seconds, and prints the number of times that it was run.
fn counted(seconds: u32) -> ExecSpec {
    let line =
        format!("echo run >>/tmp/runs; echo test: begun >/dev/console; sleep {seconds}; wc -l </tmp/runs");
    ExecSpec::new("sh").args(["-c", &line])
}

#[track_caller]
fn followed(outcome: &Outcome) {
    assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
    assert_eq!(outcome.found_on.as_ref().map(HostId::as_str), Some("h2"), "{outcome:?}");
}

#[test]
fn a_process_is_waited_for_where_its_vm_has_moved_to_and_is_run_once() {
    let bed = bed();
    let guest = mvm(&bed);
    let outcome = moved_during(&bed, &guest, h1(&bed), OperationSpec::Exec(counted(20)));
    followed(&outcome);
    assert_eq!((outcome.effect, outcome.attempts), (Effect::Done, 1));
    let Some(Data::Exec(report)) = &outcome.data else { panic!("{outcome:?}") };
    assert_eq!(report.stdout.bytes, b"1\n");
}

#[test]
fn a_process_is_followed_without_a_definition_left_behind_and_with_its_output_in_files() {
    let bed = bed();
    let guest = mvm(&bed);
    let words = "echo test: begun >/dev/console; sleep 20; seq 1 5";
    let run = bed
        .atp(&["exec", "h1/mvm", "--timeout", "100s", "--spool", "--", "sh", "-c", words])
        .output("json")
        .start();
    let begun = || fs::read_to_string(guest.console()).unwrap_or_default().contains("test: begun");
    becomes("begun", BOOT, true, begun);
    guest.migrate(&bed.host("h2").unwrap(), &["--undefinesource"]).unwrap();
    let run = run.finish();
    assert_eq!(run.exits_with(0).brief(), ["h1/mvm ok done"]);
    is_found_on_h2(&run, "h1/mvm");
    assert_eq!(run.outcome("h1/mvm").stream("stdout"), "1\n2\n3\n4\n5\n");
}

#[test]
fn a_process_is_not_followed_to_a_host_that_the_selection_excludes() {
    let bed = bed();
    let guest = mvm(&bed);
    let words = "echo test: begun >/dev/console; sleep 20";
    let args = ["exec", "mvm", "--exclude", "h2/mvm", "--timeout", "100s", "--", "sh", "-c", words];
    let run = bed.atp(&args).output("json").start();
    let begun = || fs::read_to_string(guest.console()).unwrap_or_default().contains("test: begun");
    becomes("begun", BOOT, true, begun);
    leave(&bed, &guest);
    let run = run.finish();
    assert_eq!(run.exits_with(1).brief(), ["h1/mvm failed unknown vm-moved"]);
    is_found_on_h2(&run, "h1/mvm");
}

#[test]
fn copies_in_both_directions_go_on_where_the_vm_has_moved_to() {
    const BYTES: usize = 6 << 20;
    let bed = bed();
    let guest = mvm(&bed);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("moved");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    let content: Vec<u8> = (0..BYTES).map(|n| (n * 7 + n / 251) as u8).collect();
    fs::write(&original, &content).unwrap();

    // A slow way, so that there is time to move.
    let slow = bed.host("h1").unwrap().proxy().unwrap();
    slow.trickle(500_000);
    let slow = HostInfo::from_uri("slow", slow.uri());
    let push = PushSpec {
        source: original,
        destination: "/tmp/pushed".into(),
        sha256: None,
        recursive: false,
        packed: false,
    };
    let pushed = moved_during(&bed, &guest, slow.clone(), OperationSpec::Push(push));
    followed(&pushed);
    assert_eq!(pushed.effect, Effect::Done);
    let Some(Data::File(report)) = &pushed.data else { panic!("{pushed:?}") };
    assert!(report.resumed_at > 0, "it went on from what it had: {report:?}");

    // Back, and from there again.
    bed.host("h2").unwrap().virsh(&["destroy", guest.uuid()]).unwrap();
    guest.start().unwrap();
    guest.wait_agent(BOOT).unwrap();
    let run = bed.run(&[
        "exec",
        "h1/mvm",
        "--",
        "sh",
        "-c",
        "head -c 6291456 /dev/urandom >/tmp/it; sha256sum /tmp/it",
    ]);
    let run = run.exits_with(0).outcome("h1/mvm").stream("stdout").to_owned();
    let pull = PullSpec {
        path: "/tmp/it".into(),
        destination: copy,
        separate: false,
        recursive: false,
        packed: false,
    };
    let pulled = moved_during(&bed, &guest, slow, OperationSpec::Pull(pull));
    followed(&pulled);
    let Some(Data::File(report)) = &pulled.data else { panic!("{pulled:?}") };
    assert!(run.starts_with(&report.sha256), "{run}: {report:?}");
    assert!(report.resumed_at > 0, "{report:?}");
}

#[test]
fn the_next_step_of_a_scenario_is_where_the_vm_has_moved_to() {
    let bed = bed();
    let guest = mvm(&bed);
    let text = "name: moves\ntargets: h1/mvm\nsteps:\n  \
                - exec: \"echo 'test: begun' >/dev/console; sleep 20\"\n  \
                - assert: {state: running}\n  \
                - {exec: echo here, capture: word}\n  \
                - vm: info\n  \
                - exec: echo run >>/tmp/steps\n\
                teardown:\n  - exec: test $(wc -l </tmp/steps) = 1\n";
    let scenario = ScenarioSpec { text: text.to_owned(), ..ScenarioSpec::default() };
    let outcome = moved_during(&bed, &guest, h1(&bed), OperationSpec::Scenario(scenario));
    followed(&outcome);
    let Some(Data::Scenario(report)) = &outcome.data else { panic!("{outcome:?}") };
    assert_eq!((report.steps.len(), report.teardown.len()), (5, 1));
    assert!(report.teardown.iter().all(|step| step.status == Status::Ok), "{report:?}");
}

#[test]
fn a_vm_that_its_migration_renames_is_excluded_by_its_new_name() {
    let bed = bed();
    let guest = mvm(&bed);
    let words = "mkfifo /tmp/gate && cat /tmp/gate";
    let args = ["exec", "mvm", "--exclude", "h2/newname", "--timeout", "100s", "--", "sh", "-c", words];
    let running = bed.atp(&args).output("json").start();
    bed.run(&["exec", "mvm", "--", "sh", "-c", "until [ -p /tmp/gate ]; do sleep 0.1; done"]).exits_with(0);
    guest.migrate(&bed.host("h2").unwrap(), &["--dname", "newname"]).unwrap();
    let run = running.finish();
    assert_eq!(run.exits_with(1).brief(), ["h1/mvm failed unknown vm-moved"]);
    is_found_on_h2(&run, "h1/mvm");
}
