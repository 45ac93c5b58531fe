//! A run's journal: on disk before anything is reported, complete after a kill at any moment, and resumable.
#![expect(clippy::unwrap_used, reason = "a test may")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod moved;
mod older;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_executor::{
    Completion, Data, ExecReport, History, Journal, JournalError, LifecycleSpec, Notice, Operation, Outcome,
    OutcomeError, Plan, Policy, PullSpec, RunControl, RunEvent, RunSpec, Scenario, ScenarioReport, Status,
    StepReport, Stream, Target, run_targets,
};
use atp_protocol::ExecSpec;
use atp_transport::domain::Lifecycle;
use atp_transport::{Effect, ErrorKind};

use crate::common::virtual_time;

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("journal-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("run.journal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn target(vm: usize) -> Target {
    common::target(vm % 3, vm)
}

fn exec() -> Operation {
    Operation::Exec(ExecSpec::new("true"))
}

fn plan(vms: impl IntoIterator<Item = usize>, operation: Operation) -> Plan {
    Plan {
        operation,
        policy: Policy { parallel: 3, timeout: Duration::from_secs(10), ..Policy::default() },
        targets: vms.into_iter().map(target).collect(),
        settled: Vec::new(),
        listed: Vec::new(),
        notices: Vec::new(),
        placements: Default::default(),
        done_before: 0,
        to_undo: Default::default(),
        planned_in: Duration::ZERO,
        allowance: Default::default(),
    }
}

fn spec(plan: Plan, journal: Journal) -> RunSpec {
    RunSpec {
        op: plan.operation.name(),
        targets: plan.targets,
        settled: plan.settled,
        done_before: plan.done_before,
        policy: plan.policy,
        journal: Some(Arc::new(journal)),
    }
}

/// The result of the work on a VM, derived from its number.
fn work(target: &Target) -> Completion {
    let number = target.uuid().unwrap().as_u128() % 1000 - 1;
    let error = |kind| OutcomeError::new(kind, "no");
    match number % 5 {
        0 => Completion::failed(Status::Failed, Effect::None, error(ErrorKind::AgentNotConnected)),
        1 => Completion::failed(Status::Failed, Effect::Done, error(ErrorKind::ExitNonzero)),
        2 => Completion::failed(Status::Timeout, Effect::Unknown, error(ErrorKind::CallTimeout)),
        _ => Completion::ok(Effect::Done, Data::Reply("fine".into())),
    }
}

/// Runs a plan of `vms` with a journal at `path`.
async fn run(path: &Path, vms: usize) {
    let plan = plan(0..vms, exec());
    let journal = Journal::create(path, &plan).await.unwrap();
    let run = run_targets(spec(plan, journal), &RunControl::default(), |target, _| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        work(&target)
    });
    assert_eq!(run.outcomes().await.len(), vms);
}

/// Resumes a journal whose writer may still be closing it.
async fn resume(history: &History, plan: &Plan) -> Journal {
    loop {
        match Journal::resume(history, plan).await {
            Err(JournalError::InUse { .. }) => tokio::task::yield_now().await,
            resumed => break resumed.unwrap(),
        }
    }
}

#[test]
fn everything_is_on_disk_before_it_is_reported() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let plan = plan(0..20, exec());
        let journal = Journal::create(&path, &plan).await.unwrap();
        let seen_by_work = path.clone();
        let mut run = run_targets(spec(plan, journal), &RunControl::default(), move |target, _| {
            let text = fs::read_to_string(&seen_by_work).unwrap();
            let line = format!(r#"{{"started":{{"host":"{}","vm":"{}""#, target.host, target.vm().unwrap());
            assert!(text.contains(&line), "no {line} in {text}");
            async move { work(&target) }
        });
        let mut finished = 0;
        while let Some(event) = run.next().await {
            let text = fs::read_to_string(&path).unwrap();
            if let RunEvent::Finished(outcome) = event {
                assert_ne!(outcome.error.as_ref().map(|error| error.kind.as_str()), Some("panicked"));
                let line = format!(
                    r#"{{"finished":{{"host":"{}","vm":"{}""#,
                    outcome.host.unwrap(),
                    outcome.vm.unwrap()
                );
                assert!(text.contains(&line), "no {line} in {text}");
                finished += 1;
            }
        }
        assert_eq!(finished, 20);
    });
}

#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    virtual_time(async {
        let folder = Folder::new();
        run(&folder.path(), 1).await;
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn nothing_that_is_in_the_operation_is_in_the_journal() {
    virtual_time(async {
        let folder = Folder::new();
        let mut spec = ExecSpec::new("login");
        spec.args.push("hunter2".to_owned());
        Journal::create(&folder.path(), &plan(0..1, Operation::Exec(spec))).await.unwrap();
        assert!(!fs::read_to_string(folder.path()).unwrap().contains("hunter2"));
    });
}

/// What became of each target in the lines of a journal: how often it was started, and its last status and effect.
fn read(lines: &str) -> BTreeMap<String, Option<(String, String)>> {
    let mut targets = BTreeMap::new();
    for line in lines.lines().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = |record: &serde_json::Value| record["vm"].as_str().unwrap().to_owned();
        if let Some(record) = line.get("started") {
            targets.insert(name(record), None);
        }
        if let Some(record) = line.get("finished") {
            let text = |key: &str| record[key].as_str().unwrap().to_owned();
            targets.insert(name(record), Some((text("status"), text("effect"))));
        }
    }
    targets
}

/// Up to where the text is good: the end of the last whole line that seals a batch.
fn sealed_up_to(text: &str) -> usize {
    let lines = text.split_inclusive('\n').scan(0, |end, line| {
        *end += line.len();
        Some((*end, line))
    });
    let seals = lines.filter(|(_, line)| line.starts_with("{\"sealed\"") && line.ends_with('\n'));
    seals.last().map_or(0, |(end, _)| end)
}

#[test]
fn killed_at_any_byte_it_repeats_nothing_and_forgets_nothing() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        run(&path, 10).await;
        let whole = fs::read_to_string(&path).unwrap();
        let head = whole.match_indices('\n').nth(1).unwrap().0 + 1;
        let cut_path = folder.0.join("cut");
        // Every place in the first lines, and then around the ends of lines and here and there between.
        let is_near_end =
            |at: usize| whole.as_bytes()[at.saturating_sub(2)..whole.len().min(at + 2)].contains(&b'\n');
        for end in (0..=whole.len()).filter(|&at| at < head + 400 || at % 29 == 0 || is_near_end(at)) {
            fs::write(&cut_path, &whole[..end]).unwrap();
            let read_back = History::read(&cut_path, &exec()).await;
            if end < head {
                // Nothing was started before the head was written.
                let refused =
                    matches!(read_back, Err(JournalError::Torn { .. } | JournalError::Empty { .. }));
                assert!(refused, "at {end}");
                continue;
            }
            let resumed = read_back.unwrap().apply(plan(0..10, exec()));
            let noted = read(&whole[..sealed_up_to(&whole[..end])]);
            let to_do: BTreeSet<_> =
                resumed.targets.iter().map(|target| target.vm().unwrap().to_owned()).collect();
            let settled: BTreeMap<_, _> = resumed
                .settled
                .iter()
                .map(|outcome| (outcome.vm.clone().unwrap(), (outcome.status, outcome.effect)))
                .collect();
            let mut done = 0;
            for vm in (0..10).map(|vm| format!("vm{vm}")) {
                match noted.get(&vm) {
                    None => assert!(to_do.contains(&vm), "{vm} was never started, at {end}"),
                    Some(None) => {
                        assert_eq!(settled[&vm], (Status::Failed, Effect::Unknown), "{vm} at {end}")
                    }
                    Some(Some((status, effect))) => match (status.as_str(), effect.as_str()) {
                        ("ok", _) => {
                            assert!(!to_do.contains(&vm) && !settled.contains_key(&vm));
                            done += 1;
                        }
                        (_, "none") => assert!(to_do.contains(&vm), "{vm} at {end}"),
                        (_, effect) => assert_eq!(settled[&vm].1.as_str(), effect, "{vm} at {end}"),
                    },
                }
            }
            assert_eq!(to_do.len() + settled.len() + done, 10, "at {end}");
            assert_eq!(resumed.done_before, done);
        }
    });
}

#[test]
fn a_journal_is_gone_on_from_again_and_again() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        run(&path, 10).await;
        // Torn in the middle of a line.
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = whole.split_inclusive('\n').collect();
        fs::write(&path, format!("{}{}", lines[..8].concat(), &lines[8][..20])).unwrap();

        let mut starts: BTreeMap<String, usize> = BTreeMap::new();
        for round in 0..3 {
            let history = History::read(&path, &exec()).await.unwrap();
            let resumed = history.apply(plan(0..10, exec()));
            let journal = Journal::resume(&history, &resumed).await.unwrap();
            let mut run =
                run_targets(spec(resumed, journal), &RunControl::default(), |target, _| async move {
                    work(&target)
                });
            let mut outcomes = 0;
            while let Some(event) = run.next().await {
                match event {
                    RunEvent::Started { vm, .. } => *starts.entry(vm.unwrap()).or_default() += 1,
                    RunEvent::Finished(_) => outcomes += 1,
                    RunEvent::Stopping(reason) => panic!("{reason}"),
                    _ => {}
                }
            }
            assert!(outcomes > 0, "round {round}");
        }
        // What fails without effect is tried each time; all others were started once at most, the first run included.
        for (vm, count) in starts {
            let number: usize = vm.trim_start_matches("vm").parse().unwrap();
            assert_eq!(count, if number.is_multiple_of(5) { 3 } else { 1 }, "{vm}");
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
    });
}

#[test]
fn a_query_is_repeated_and_unselected_targets_are_reported() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        Journal::create(&path, &plan(0..3, Operation::VmInfo)).await.unwrap();
        let started =
            r#"{"started":{"host":"h0","vm":"vm0","uuid":"00000000-0000-0000-0000-000000000001","at":"x"}}"#;
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{started}\n")).unwrap();
        let history = History::read(&path, &Operation::VmInfo).await.unwrap();
        // vm2 is not there any more, and vm7 is new.
        let resumed = history.apply(plan([0, 1, 7], Operation::VmInfo));
        let names: Vec<_> = resumed.targets.iter().map(Target::to_string).collect();
        assert_eq!(names, ["h0/vm0", "h1/vm1"]);
        let settled: Vec<_> = resumed
            .settled
            .iter()
            .map(|o| (o.vm.as_deref().unwrap(), o.status, o.error.as_ref().unwrap().kind.as_str()))
            .collect();
        assert_eq!(settled, [("vm2", Status::Skipped, "not-selected")]);
        assert_eq!(
            resumed.notices[0].to_string(),
            "of the journal's run 0 targets are done, 2 are to do, 1 was not found; \
             1 selected VM is not in it and is left out"
        );
    });
}

/// What planning says of a VM that it did not find, or of a host.
fn planned(host: Option<&str>, vm: Option<&str>, status: Status, kind: ErrorKind) -> Outcome {
    Outcome {
        host: host.map(|host| host.parse().unwrap()),
        vm: vm.map(str::to_owned),
        uuid: None,
        found_on: None,
        from_earlier_run: false,
        op: "exec".into(),
        status,
        effect: Effect::None,
        attempts: 0,
        duration_ms: 0,
        data: None,
        error: Some(OutcomeError::new(kind, "no")),
    }
}

#[test]
fn a_vm_that_is_named_and_not_found_has_one_outcome_and_none_if_it_was_done() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        // By number: 0 failed without effect, 1 with; of 2 it is not known; 3 is done. All are gone now.
        run(&path, 4).await;
        let history = History::read(&path, &exec()).await.unwrap();
        let gone = |host, vm| planned(host, Some(vm), Status::Failed, ErrorKind::VmNotFound);
        let dead = |host, vm| planned(Some(host), vm, Status::Unreachable, ErrorKind::ConnectionRefused);
        let outline = |settled: Vec<Outcome>| {
            let resumed = history.apply(Plan { settled, ..plan([], exec()) });
            let settled = resumed.settled.iter().map(|outcome| {
                let kind = outcome.error.as_ref().unwrap().kind.as_str();
                let uuid = if outcome.uuid.is_some() { "" } else { "?" };
                format!("{}{uuid} {} {kind}", outcome.vm.as_deref().unwrap_or("-"), outcome.status)
            });
            (settled.collect::<Vec<_>>().join(", "), resumed.done_before)
        };
        let expected = |vm0: &str| format!("{vm0}, vm1 failed exit-nonzero, vm2 timeout call-timeout");
        let by_name = vec![
            dead("h0", Some("vm0")),
            gone(Some("h1"), "vm1"),
            gone(None, "vm2"),
            dead("h0", Some("vm3")),
        ];
        assert_eq!(outline(by_name), (expected("vm0 unreachable connection-refused"), 1));
        let anywhere = ["vm0", "vm1", "vm2", "vm3"].map(|vm| gone(None, vm)).to_vec();
        assert_eq!(outline(anywhere), (expected("vm0 failed vm-not-found"), 1));
        // What is about another VM, or about a host, stays.
        let (settled, done) = outline(vec![gone(Some("h1"), "vm0"), dead("h2", None)]);
        assert!(settled.contains("vm0? failed vm-not-found"), "{settled}");
        assert!(settled.contains("-? unreachable"), "{settled}");
        assert!(settled.contains("vm0 skipped not-selected"), "{settled}");
        assert_eq!(done, 1);
    });
}

/// What is left of a journal: the targets, and `host/vm status kind` of each settled outcome.
fn left(history: &History, plan: Plan) -> (Vec<String>, Vec<String>, usize) {
    let resumed = history.apply(plan);
    let settled = resumed.settled.iter().map(|outcome| {
        let host = outcome.host.as_ref().map_or("-", |host| host.as_str());
        let kind = outcome.error.as_ref().map_or("-", |error| error.kind.as_str());
        format!("{host}/{} {} {kind}", outcome.vm.as_deref().unwrap_or("-"), outcome.status)
    });
    (resumed.targets.iter().map(Target::to_string).collect(), settled.collect(), resumed.done_before)
}

#[test]
fn what_could_not_be_listed_is_done_when_it_can_be() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let unlisted = |vm| planned(Some("h1"), vm, Status::Unreachable, ErrorKind::CallTimeout);
        let nowhere = || planned(None, Some("vm9"), Status::Failed, ErrorKind::VmNotFound);
        // h0 was listed and has vm0; h1 was not; vm9 was nowhere. h2 is not selected.
        let first = Plan { settled: vec![unlisted(None), nowhere()], ..plan([0], exec()) };
        let journal = Journal::create(&path, &first).await.unwrap();
        let run = run_targets(spec(first, journal), &RunControl::default(), |_, _| async {
            Completion::ok(Effect::Done, None)
        });
        assert_eq!(run.outcomes().await.len(), 3);
        let history = History::read(&path, &exec()).await.unwrap();

        // vm3 is new on h0.
        let listed = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect();
        let all = || Plan { listed: listed(&["h0", "h1"]), ..plan([0, 3, 1, 4, 9], exec()) };
        assert_eq!(
            left(&history, all()),
            (vec!["h1/vm1".into(), "h1/vm4".into(), "h0/vm9".into()], vec![], 1)
        );
        assert!(!history.apply(all()).matched_nothing());
        // Still missing: this is reported, and not that everything was done.
        let again =
            Plan { settled: vec![unlisted(None), nowhere()], listed: listed(&["h0"]), ..plan([0], exec()) };
        let told = vec!["h1/- unreachable call-timeout".into(), "-/vm9 failed vm-not-found".into()];
        assert_eq!(left(&history, again), (vec![], told, 1));
        // Listed, and nothing is there.
        let empty = Plan { settled: vec![nowhere()], listed: listed(&["h0", "h1"]), ..plan([0], exec()) };
        assert_eq!(left(&history, empty), (vec![], vec!["-/vm9 failed vm-not-found".into()], 1));
        // Not asked for any more.
        let fewer = Plan { listed: listed(&["h0"]), ..plan([0], exec()) };
        let told = vec!["h1/- skipped not-selected".into(), "-/vm9 skipped not-selected".into()];
        assert_eq!(left(&history, fewer), (vec![], told, 1));
    });
}

#[test]
fn a_literal_that_could_not_be_looked_for_is_done_when_it_can_be() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let settled = vec![planned(Some("h1"), Some("vm1"), Status::Unreachable, ErrorKind::CallTimeout)];
        drop(Journal::create(&path, &Plan { settled, ..plan([], exec()) }).await.unwrap());
        let history = History::read(&path, &exec()).await.unwrap();
        // vm4 is on the same host, and was not selected.
        assert_eq!(left(&history, plan([1, 4], exec())), (vec!["h1/vm1".to_owned()], vec![], 0));
    });
}

#[test]
fn a_host_with_two_ids_is_not_processed_twice() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        // h1 could not be listed; its VM was found by the id h2, and done.
        let settled = vec![planned(Some("h1"), None, Status::Unreachable, ErrorKind::CallTimeout)];
        let vm = common::target(1, 1);
        let by_alias = Target { host: "h2".parse().unwrap(), ..vm.clone() };
        let first = Plan { targets: vec![by_alias], settled, ..plan([], exec()) };
        let journal = Journal::create(&path, &first).await.unwrap();
        let run = run_targets(spec(first, journal), &RunControl::default(), |_, _| async {
            Completion::ok(Effect::Done, None)
        });
        run.outcomes().await;
        let history = History::read(&path, &exec()).await.unwrap();
        let (host, alias) = ("h1".parse().unwrap(), "h2".parse().unwrap());
        let notices = vec![Notice::SameDaemon { host, alias, vms: 1 }];
        assert_eq!(
            left(&history, Plan { targets: vec![vm], notices, ..plan([], exec()) }),
            (vec![], vec![], 1)
        );
    });
}

#[test]
fn a_notice_accounts_for_every_target() {
    virtual_time(async {
        let folder = Folder::new();
        run(&folder.path(), 4).await;
        let history = History::read(&folder.path(), &exec()).await.unwrap();
        let notice = |vms: &[usize]| history.apply(plan(vms.iter().copied(), exec())).notices[0].to_string();
        let not_repeated = "2 had or may have had an effect and are not repeated";
        assert_eq!(
            notice(&[0, 1, 2, 3]),
            format!("of the journal's run 1 target is done, 1 is to do, {not_repeated}")
        );
        assert_eq!(
            notice(&[1, 2, 3, 7]),
            format!(
                "of the journal's run 1 target is done, {not_repeated}, 1 was not found; \
                 1 selected VM is not in it and is left out"
            )
        );
    });
}

#[test]
fn a_reported_outcome_has_the_output_of_its_process() {
    virtual_time(async {
        let data = Data::Exec(ended());
        assert_eq!(reported_again(exec(), &data).await, Some(data));
    });
}

#[test]
fn a_reported_outcome_has_the_steps_of_its_scenario() {
    virtual_time(async {
        let step = |op: &'static str, data| StepReport {
            name: "a step".to_owned(),
            op: op.into(),
            status: Status::Failed,
            effect: Effect::Done,
            attempts: 1,
            duration_ms: 7,
            data,
            error: Some(OutcomeError::new(ErrorKind::ExitNonzero, "no")),
        };
        let reply = Data::Reply(serde_json::json!({"status": "running"}));
        let steps =
            vec![step("exec", Some(Data::Exec(ended()))), step("qmp", Some(reply)), step("assert", None)];
        let teardown = vec![step("vm-start", None)];
        let data = Data::Scenario(ScenarioReport {
            scenario: "s".to_owned(),
            steps,
            steps_total: 4,
            teardown,
            teardown_total: 1,
            console: None,
            evidence: None,
            isolated: None,
        });
        let text = "name: s\ntargets: '*'\nsteps:\n  - exec: uname\n";
        let scenario: Scenario = text.parse().unwrap();
        assert_eq!(reported_again(Operation::Scenario(scenario.into()), &data).await, Some(data));
    });
}

/// A failed process whose output is not text.
fn ended() -> ExecReport {
    let stdout = Stream { bytes: b"\xffout".to_vec(), ..Stream::default() };
    ExecReport { exit_code: Some(1), signal: None, stdout, stderr: Stream::default() }
}

/// What a target yielded that failed, as a journal tells it.
async fn reported_again(operation: Operation, data: &Data) -> Option<Data> {
    let folder = Folder::new();
    let path = folder.path();
    let plan = || plan([0], operation.clone());
    let journal = Journal::create(&path, &plan()).await.unwrap();
    let yields = data.clone();
    let run = run_targets(spec(plan(), journal), &RunControl::default(), move |_, _| {
        let error = OutcomeError::new(ErrorKind::ExitNonzero, "no");
        let failed = Completion::failed(Status::Failed, Effect::Done, error);
        std::future::ready(Completion { data: Some(yields.clone()), ..failed })
    });
    run.outcomes().await;
    let history = History::read(&path, &operation).await.unwrap();
    history.apply(plan()).settled[0].data.clone()
}

#[test]
fn an_empty_file_is_no_journal_yet() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        fs::write(&path, "").unwrap();
        let error = History::read(&path, &exec()).await.unwrap_err();
        assert!(matches!(error, JournalError::Empty { .. }), "{error}");
        run(&path, 1).await;
        assert!(History::read(&path, &exec()).await.is_ok());
        let not_a_file = Path::new("/dev/null");
        let error = Journal::create(not_a_file, &plan([0], exec())).await.unwrap_err();
        assert!(matches!(error, JournalError::Open { .. }), "{error}");
    });
}

#[test]
fn files_of_several_vms_go_to_the_same_places_on_a_resume() {
    let asked = |separate| {
        let (path, destination) = ("/etc/hostname".to_owned(), "there".into());
        Operation::Pull(PullSpec { path, destination, separate, recursive: false, packed: false })
    };
    virtual_time(async {
        let folder = Folder::new();
        for (vms, separate) in [(2, true), (1, false)] {
            let path = folder.0.join(format!("{vms}.journal"));
            Journal::create(&path, &plan(0..vms, asked(separate))).await.unwrap();
            let history = History::read(&path, &asked(false)).await.unwrap();
            // Other VMs are there now, and planning counts them.
            for planned in [true, false] {
                let resumed = history.apply(plan(0..3, asked(planned)));
                assert_eq!((resumed.targets.len(), resumed.operation), (vms, asked(separate)));
            }
        }
    });
}

#[test]
fn a_journal_of_something_else_is_refused() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        run(&path, 1).await;
        for other in [
            Operation::Exec(ExecSpec::new("false")),
            Operation::Lifecycle(LifecycleSpec::new(Lifecycle::Destroy)),
        ] {
            let error = History::read(&path, &other).await.unwrap_err();
            assert_eq!(error.kind(), "journal-of-another-operation", "{error}");
        }
        let plan = plan(0..1, exec());
        assert_eq!(Journal::create(&path, &plan).await.unwrap_err().kind(), "journal-unusable");
        for (text, line) in [("he", 1), ("hello\n", 1), ("{\"resumed\":{}}\n", 1)] {
            fs::write(&path, text).unwrap();
            match History::read(&path, &exec()).await.unwrap_err() {
                JournalError::Invalid { line: at, .. } => assert_eq!(at, line, "{text:?}"),
                other => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_journal_has_one_writer() {
    virtual_time(async {
        let folder = Folder::new();
        let plan = plan(0..1, exec());
        let first = Journal::create(&folder.path(), &plan).await.unwrap();
        let history = History::read(&folder.path(), &exec()).await.unwrap();
        assert_eq!(Journal::resume(&history, &plan).await.unwrap_err().kind(), "journal-in-use");
        drop(first);
        // Its writer ends when all senders are dropped.
        drop(resume(&history, &plan).await);
        // The file has grown since it was read.
        assert_eq!(Journal::resume(&history, &plan).await.unwrap_err().kind(), "journal-in-use");
    });
}
