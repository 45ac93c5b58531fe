//! The history of a run whose records are in the rows of a store goes the same way as that of a journal.

use atp_executor::{History, Operation, Outcome, RecordedTarget, RunHead, Status};
use atp_protocol::ExecSpec;
use atp_transport::Effect;

use crate::common::virtual_time;
use crate::{Folder, exec, left, plan, run, target};

/// The rows of `vms` targets, of which the last two are still to start, and the others ended as in the journal.
fn rows(vms: usize, outcomes: &[Outcome]) -> Vec<RecordedTarget> {
    let row = |vm: usize| {
        let target = target(vm);
        let outcome = outcomes.iter().find(|outcome| outcome.uuid == target.uuid());
        RecordedTarget {
            host: target.host.clone(),
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            is_from_begin: true,
            was_started: outcome.is_some(),
            outcome: outcome.cloned().map(Box::new),
        }
    };
    (0..vms).map(row).collect()
}

/// The outcomes of a journal's lines.
fn outcomes(text: &str) -> Vec<Outcome> {
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let finished = lines.filter_map(|line| line.get("finished").cloned());
    finished.map(|outcome| serde_json::from_value(outcome).unwrap()).collect()
}

#[test]
fn rows_leave_what_the_journal_leaves() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        run(&path, 10).await;
        let outcomes = outcomes(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(outcomes.len(), 10);
        let of_file = History::read(&path, &exec()).await.unwrap();
        let head = RunHead::of(&plan(0..10, exec()));
        let of_rows = History::of_rows("of run 1", head, rows(10, &outcomes), &exec()).unwrap();
        assert_eq!(left(&of_rows, plan(0..10, exec())), left(&of_file, plan(0..10, exec())));
    });
}

#[test]
fn a_start_without_outcome_is_unknown_and_not_repeated() {
    let head = RunHead::of(&plan(0..3, exec()));
    let mut rows = rows(3, &[]);
    rows[1].was_started = true;
    let unknown = rows[1].unknown("exec").unwrap();
    assert_eq!((unknown.status, unknown.effect), (Status::Failed, Effect::Unknown));
    assert_eq!(unknown.error.unwrap().kind, "outcome-unknown");
    assert!(rows[0].unknown("exec").is_none());
    let history = History::of_rows("of run 1", head, rows, &exec()).unwrap();
    let (targets, settled, done) = left(&history, plan(0..3, exec()));
    assert_eq!(targets, ["h0/vm0", "h2/vm2"]);
    assert_eq!(settled, ["h1/vm1 failed outcome-unknown"]);
    assert_eq!(done, 0);
}

#[test]
fn another_operation_is_refused_and_secrets_are_not_in_the_head() {
    let secret = || Operation::Exec(ExecSpec::new("login").arg("--password=hunter2"));
    let head = RunHead::of(&plan(0..1, secret()));
    let text = serde_json::to_string(&head).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let read: RunHead = serde_json::from_str(&text).unwrap();
    assert!(History::of_rows("of run 1", read.clone(), [], &secret()).is_ok());
    let refused = History::of_rows("of run 1", read, [], &exec()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the journal of run 1 is of another operation: exec with other arguments, not this exec"
    );
}
