//! The store by itself: what it refuses to open, what it refuses to write, and what it forgets. What does not depend on the
//! database is tested on both.

mod bed;
mod contention;
mod outcomes;
mod places;
mod reservations;
mod server;
mod shared;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;
use crate::time::{Clock, millis};
use bed::Bed;
use reservations::{
    a_reservation_ends_by_its_time_or_by_its_owner, of_many_at_once_none_gets_a_vm_of_another,
};

/// Each of these is tested on both databases.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() { super::$test(super::Bed::sqlite()).await })*
        }
        mod postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::Bed::postgres(stringify!($test))).await })*
        }
    };
}

on_both! {
    a_target_is_started_once_and_a_key_names_one_run,
    a_run_that_was_under_way_is_interrupted_when_the_store_is_opened_again,
    a_resume_takes_what_is_left_and_knows_a_vm_that_has_moved,
    the_oldest_runs_are_forgotten_but_none_under_way,
    what_a_page_or_a_stream_reads_is_in_order_and_bounded,
    a_name_with_nul_is_recorded_and_hurts_no_other_run,
    of_many_at_once_none_gets_a_vm_of_another,
    a_reservation_ends_by_its_time_or_by_its_owner,
}

async fn execute(path: &Path, sql: impl sqlx::SqlSafeStr) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A store whose writer has ended, so that it can be opened again.
async fn closed(path: &Path) {
    drop(Store::open(path, Clock::system()).await.unwrap());
    while matches!(lock::lock(path), Err(StoreError::InUse { .. })) {
        tokio::task::yield_now().await;
    }
}

/// Numbers by a seed, each below the one that is given: the order of a test's steps.
fn by_seed(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |most| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % most
    }
}

fn new(by: &str) -> Change {
    Change::New(NewRun {
        op: "exec".to_owned(),
        by: by.to_owned(),
        request: None,
        idempotency: None,
        planner: None,
    })
}

/// What a resume needs to know.
const HEAD: &str = r#"{"version":"0","op":"exec","operation":"x","separate":false,"unresolved":[]}"#;

fn begin(run: i64, vms: usize) -> Change {
    let target = |n| TargetRow {
        key: format!("h/{n}"),
        host: Some("h".to_owned()),
        vm: Some(format!("vm{n}")),
        uuid: None,
    };
    let targets = (0..vms).map(target).collect();
    let head = Some(HEAD.to_owned());
    Change::Begin(Box::new(Started {
        run,
        head,
        last_event: None,
        plan: "{}".to_owned(),
        targets,
        moved: Vec::new(),
        share: None,
    }))
}

fn started(run: i64, n: usize) -> Change {
    Change::TargetStarted { run, key: format!("h/{n}") }
}

async fn a_name_with_nul_is_recorded_and_hurts_no_other_run(bed: Bed) {
    let store = bed.open().await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    let Change::Begin(mut whole) = begin(run, 1) else { unreachable!() };
    whole.targets[0].vm = Some("a\0b".to_owned());
    let (other, begun) = tokio::join!(store.change(new("b")), store.change(Change::Begin(whole)));
    other.unwrap();
    begun.unwrap();
    store.change(started(run, 0)).await.unwrap();
    let targets = store.targets(run, 0, 10).await.unwrap();
    assert_eq!(targets[0].1.vm.as_deref(), Some("a\u{fffd}b"));
}

#[tokio::test]
async fn what_is_no_store_is_refused_by_name_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.sqlite");
    std::fs::write(&path, "notes, long enough to be read as a page of a database".repeat(100)).unwrap();
    let error = Store::open(&path, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("notes"));

    let other = folder.path().join("other.sqlite");
    execute(&other, "CREATE TABLE t (a)").await;
    let error = Store::open(&other, Clock::system()).await.unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");

    let newer = folder.path().join("newer.sqlite");
    closed(&newer).await;
    execute(&newer, "PRAGMA user_version = 99").await;
    let error = Store::open(&newer, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 3, .. }), "{error}");
}

#[tokio::test]
async fn one_service_has_it_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/runs.sqlite");
    let store = Store::open(&path, Clock::system()).await.unwrap();
    let error = Store::open(&path, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    store.change(new("a")).await.unwrap();
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let modes: Vec<_> =
        entries.map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777).collect();
    assert!(modes.len() >= 3 && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_nothing_is_lost_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.sqlite");
    closed(&path).await;
    let options = |pages: &'static str| {
        let options = SqliteConnectOptions::new().filename(&path).journal_mode(SqliteJournalMode::Wal);
        options.synchronous(SqliteSynchronous::Full).foreign_keys(true).pragma("max_page_count", pages)
    };
    let name: Arc<str> = "db".into();
    let db = sql::Db::Sqlite(options("40").connect().await.unwrap());
    let hold = writer::Hold::File(lock::lock(&path).unwrap());
    let writer = writer::Writer::start(db, hold, name.clone(), Clock::system());
    let run = writer.change(new("a")).await.unwrap();
    writer.change(begin(run, 2)).await.unwrap();
    let events = |seq, bytes: usize| Change::Events {
        run,
        events: vec![EventRow { seq, word: "begun", data: "x".repeat(bytes), outcome_of: None }],
        ending: None,
    };
    writer.change(events(1, 10)).await.unwrap();
    let error = writer.change(events(2, 1 << 20)).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("full") && !error.is_for_good(), "{cause}");
    // What fits is written, as before.
    writer.change(started(run, 0)).await.unwrap();
    drop(writer);
    while matches!(lock::lock(&path), Err(StoreError::InUse { .. })) {
        tokio::task::yield_now().await;
    }
    let store = Store::open(&path, Clock::system()).await.unwrap();
    let read = store.events(run, 0, 10).await.unwrap();
    let words: Vec<_> = read.iter().map(|(seq, word, _)| (*seq, word.as_str())).collect();
    // The target that was started has an unknown outcome.
    assert_eq!(words, [(1, "begun"), (2, "finished"), (3, "interrupted")]);
    assert!(read[1].2.contains("outcome-unknown"), "{}", read[1].2);
    let row = store.run(run).await.unwrap().unwrap();
    assert_eq!(row.summary.state, atp_api::serve::RunState::Interrupted);
    assert_eq!(row.summary.statistics.unwrap().unknown_effects, 1);
}

async fn a_target_is_started_once_and_a_key_names_one_run(bed: Bed) {
    let store = bed.open().await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    store.change(begin(run, 2)).await.unwrap();
    // All at once, in one batch: the others of the batch are not hurt by one that is refused.
    let asked = [started(run, 0), started(run, 0), started(run, 1)].map(|change| store.change(change));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert!(matches!(store.change(begin(run, 2)).await, Err(StoreError::Refused(_))));

    let keyed = |body: &str| {
        let idempotency = Some(("k".to_owned(), body.to_owned()));
        Change::New(NewRun {
            op: "exec".to_owned(),
            by: "a".to_owned(),
            request: None,
            idempotency,
            planner: None,
        })
    };
    let first = store.change(keyed("x")).await.unwrap();
    assert!(
        matches!(store.change(keyed("x")).await, Err(StoreError::Known { run, is_same: true }) if run == first)
    );
    assert!(matches!(store.change(keyed("y")).await, Err(StoreError::Known { is_same: false, .. })));
    store.change(Change::Discard { run: first }).await.unwrap();
    assert!(store.change(keyed("y")).await.unwrap() > first);
}

fn finished(run: i64, n: usize) -> Change {
    Change::TargetFinished { run, key: format!("h/{n}"), outcome: outcome(n) }
}

fn outcome(n: usize) -> String {
    format!(
        r#"{{"host":"h","vm":"vm{n}","uuid":null,"op":"exec","status":"ok","effect":"done","attempts":1,"duration_ms":5,"data":null,"error":null}}"#
    )
}

async fn a_run_that_was_under_way_is_interrupted_when_the_store_is_opened_again(bed: Bed) {
    let store = bed.open().await.unwrap();
    let planned = store.change(new("a")).await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    store.change(begin(run, 3)).await.unwrap();
    store.change(started(run, 0)).await.unwrap();
    store.change(started(run, 1)).await.unwrap();
    store.change(finished(run, 1)).await.unwrap();
    assert!(matches!(store.change(finished(run, 1)).await, Err(StoreError::Refused(_))));
    let store = bed.reopen(store).await;
    assert!(store.run(planned).await.unwrap().is_none(), "its planning had not ended");
    let row = store.run(run).await.unwrap().unwrap();
    assert_eq!(row.summary.state, atp_api::serve::RunState::Interrupted);
    let outcomes = store.outcomes(&row, 0, 10).await.unwrap().outcomes;
    let effects: Vec<_> = outcomes.iter().map(|(n, outcome)| (*n, outcome.effect.to_string())).collect();
    assert_eq!(effects, [(1, "unknown".to_owned()), (2, "done".to_owned())]);
    let words: Vec<_> =
        store.events(run, 0, 10).await.unwrap().into_iter().map(|(_, word, _)| word).collect();
    assert_eq!(words, ["finished", "finished", "interrupted"]);
}

async fn a_resume_takes_what_is_left_and_knows_a_vm_that_has_moved(bed: Bed) {
    let store = bed.open().await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    store.change(begin(run, 2)).await.unwrap();
    let ending = Ending { state: "interrupted", statistics: "{}".to_owned(), stop_reason: None };
    store.change(Change::Events { run, events: Vec::new(), ending: Some(ending) }).await.unwrap();
    let target = |key: &str| TargetRow {
        key: key.to_owned(),
        host: Some("g".to_owned()),
        vm: Some("vm".to_owned()),
        uuid: None,
    };
    let mut resumed = Started {
        run,
        head: None,
        last_event: Some(7),
        plan: "{}".to_owned(),
        targets: vec![target("g/0"), target("g/9")],
        // The second one is there already, and stays.
        moved: vec![
            ("h/0".to_owned(), "g/0".to_owned(), "g".to_owned()),
            ("h/1".to_owned(), "g/0".to_owned(), "g".to_owned()),
        ],
        share: None,
    };
    // Its history is one of before: the run has other events now.
    let refused = store.change(Change::Begin(Box::new(resumed.clone()))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    resumed.last_event = Some(0);
    store.change(Change::Begin(Box::new(resumed))).await.unwrap();
    let targets = store.targets(run, 0, 10).await.unwrap();
    let hosts: Vec<_> =
        targets.iter().map(|(n, target)| (*n, target.host.as_str(), target.is_from_begin)).collect();
    assert_eq!(hosts, [(1, "g", true), (2, "h", true), (3, "g", false)]);
    assert_eq!(store.run(run).await.unwrap().unwrap().summary.targets, Some(3));
}

async fn what_a_page_or_a_stream_reads_is_in_order_and_bounded(bed: Bed) {
    let store = bed.open().await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    store.change(begin(run, 4)).await.unwrap();
    let event = |seq, bytes: usize, outcome_of| EventRow {
        seq,
        word: "finished",
        data: "x".repeat(bytes),
        outcome_of,
    };
    let settled = TargetRow { key: "/=lost".to_owned(), host: None, vm: Some("lost".to_owned()), uuid: None };
    let mut events: Vec<_> = (1..=4).map(|seq| event(seq, 400_000, None)).collect();
    events.push(EventRow { data: outcome(7), ..event(5, 0, Some(settled)) });
    store.change(Change::Events { run, events: events.clone(), ending: None }).await.unwrap();
    // Told again, as after a connection that broke, they change nothing.
    store.change(Change::Events { run, events, ending: None }).await.unwrap();
    assert_eq!(store.last_event(run).await.unwrap(), 5);
    let numbers =
        |read: Vec<(i64, String, String)>| read.into_iter().map(|(seq, ..)| seq).collect::<Vec<_>>();
    assert_eq!(numbers(store.events(run, 0, 10).await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(store.events(run, 3, 1).await.unwrap()), [4]);
    let row = store.run(run).await.unwrap().unwrap();
    let outcomes = store.outcomes(&row, 0, 10).await.unwrap().outcomes;
    assert_eq!(outcomes.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [5]);
    assert_eq!(store.plan(run).await.unwrap().as_deref(), Some("{}"));
    assert_eq!(store.runs(i64::MAX, Some("b"), 10).await.unwrap().len(), 0);
    assert_eq!(store.runs(i64::MAX, Some("a"), 10).await.unwrap().len(), 1);
}

async fn the_oldest_runs_are_forgotten_but_none_under_way(bed: Bed) {
    let store = bed.open().await.unwrap();
    for n in 0..5 {
        let run = store.change(new("a")).await.unwrap();
        store.change(begin(run, 1)).await.unwrap();
        let ending = Ending { state: "ended", statistics: "{}".to_owned(), stop_reason: None };
        let ending = (n != 1).then_some(ending);
        store.change(Change::Events { run, events: Vec::new(), ending }).await.unwrap();
    }
    store.change(Change::Retain { since: 0, most: 2 }).await.unwrap();
    let left: Vec<_> = store.runs(i64::MAX, None, 10).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(left, [5, 4, 2]);
    store.change(Change::Retain { since: millis(Clock::system().now()) + 1000, most: 100 }).await.unwrap();
    let left: Vec<_> = store.runs(i64::MAX, None, 10).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(left, [2]);
    assert!(store.targets(5, 0, 10).await.unwrap().is_empty());
}
