//! Journals of version 0.1.0, as its program wrote them: each operation's fingerprint was a hash of its `Debug` output.

use std::fs;
use std::path::Path;

use atp_executor::{
    Condition, Data, ExecSpec, History, JournalError, KeySpec, LifecycleSpec, MouseSpec, Operation,
    PreparedPush, PullSpec, PushSpec, RawCommand, Scenario, ScreenshotLimits, ScreenshotSpec, Status,
    TypeSpec,
};
use atp_protocol::files::Source;
use atp_transport::ErrorKind;
use atp_transport::domain::Lifecycle;

use crate::plan;

/// Each file, the operation it was written for, and whether it can be compared with.
fn files() -> Vec<(&'static str, Operation, bool)> {
    let exec = ExecSpec::shell("systemctl restart web").with_env("TOKEN", "hunter2").with_stdin(*b"x\xff");
    let password = ["guest-set-user-password", "username=root", "password=aHVudGVyMg=="];
    let pushed = PushSpec {
        source: "n".into(),
        destination: "/tmp/".into(),
        sha256: None,
        recursive: false,
        packed: false,
    };
    let (path, destination) = ("/etc/hostname".into(), "there".into());
    let pulled = PullSpec { path, destination, separate: true, recursive: false, packed: false };
    let shots = ScreenshotSpec { folder: "shots".into(), screen: 0, limits: ScreenshotLimits::default() };
    let scenario =
        "name: s\ntargets: '*'\nvariables: {a: b}\nsteps:\n  - exec: uname ${a}\n  - assert: {stdout: x}\n";
    let scenario: Scenario = scenario.parse().unwrap();
    vec![
        ("exec", Operation::Exec(exec.in_directory("/srv")), true),
        ("vm-destroy", Operation::Lifecycle(LifecycleSpec::awaited(Lifecycle::Destroy)), true),
        ("vm-info", Operation::VmInfo, true),
        ("qga", Operation::Qga(RawCommand::from_words(password).unwrap()), true),
        ("wait", Operation::Wait(Condition::Exec(ExecSpec::new("true").arg("a\"b"))), true),
        ("pull", Operation::Pull(pulled), true),
        ("key", Operation::Key(KeySpec::new(["ctrl-alt-del"])), true),
        ("type", Operation::Type(TypeSpec::new("hi")), true),
        ("mouse", Operation::Mouse(MouseSpec::new("click 50% 50%")), true),
        ("screenshot", Operation::Screenshot(shots), true),
        (
            "push",
            Operation::Push(PreparedPush::of(pushed, Source::from_bytes("n", *b"hello", 0o644)).unwrap()),
            true,
        ),
        ("run", Operation::Scenario(scenario.into()), false),
    ]
}

fn parse(name: &str, operation: &Operation) -> Result<History, JournalError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journals-0.1.0");
    let path = folder.join(format!("{name}.jsonl"));
    History::parse(&path, &fs::read(&path).unwrap(), operation)
}

#[test]
fn a_journal_of_version_0_1_0_is_resumed() {
    for (name, operation, _) in files().into_iter().filter(|(.., is_comparable)| *is_comparable) {
        let history = parse(name, &operation).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Of five, vm0 failed without effect, vm1 may have been done, vm2 was, and the others were not started.
        let resumed = history.apply(plan(0..5, operation));
        let vms: Vec<_> = resumed.targets.iter().filter_map(|target| target.vm()).collect();
        assert_eq!((vms, resumed.done_before), (vec!["vm0", "vm3", "vm4"], 1), "{name}");
        let [outcome] = &resumed.settled[..] else { panic!("{name}: {:?}", resumed.settled) };
        assert_eq!((outcome.vm.as_deref(), outcome.status), (Some("vm1"), Status::Timeout), "{name}");
    }
}

#[test]
fn another_operation_is_told_from_that_of_version_0_1_0() {
    for (name, _, _) in files() {
        for (other_name, other, _) in files().iter().filter(|(other, ..)| *other != name) {
            let error = parse(name, other).unwrap_err();
            let is_told = matches!(error, JournalError::OtherOperation { .. });
            assert!(is_told, "{name} is not {other_name}: {error}");
        }
    }
    let error = parse("exec", &Operation::Exec(ExecSpec::shell("systemctl restart web"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::JournalOfAnotherOperation);
    assert!(error.to_string().contains("exec with other arguments"), "{error}");
}

#[test]
fn a_journal_that_cannot_be_compared_with_is_refused_with_the_reason() {
    for (name, operation, _) in files().into_iter().filter(|(.., is_comparable)| !is_comparable) {
        let error = parse(name, &operation).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::JournalUnusable, "{error}");
        let text = error.to_string();
        assert!(text.contains("another version (0.1.0)") && text.contains(&format!("({name})")), "{text}");
        assert!(error.hint().contains("resume it with the version that wrote it"), "{}", error.hint());
    }
}

#[test]
fn what_a_journal_of_version_0_1_0_says_of_a_process_is_read() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journals-0.1.0/exec.jsonl"),
    );
    let text = text.unwrap();
    assert!(!text.contains("hunter2"), "a secret is in the journal");
    let mut finished = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value::<atp_executor::Outcome>(line.get("finished")?.clone()).ok()
    });
    let outcome = finished.next_back().unwrap();
    let Some(Data::Exec(report)) = outcome.data else { panic!("{outcome:?}") };
    assert_eq!((report.exit_code, report.stdout.bytes.as_slice()), (Some(0), &b"ok\n"[..]));
}
