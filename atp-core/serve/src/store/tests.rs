//! The store by itself: what it refuses to open, what it refuses to write, and what it forgets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;
use crate::time::{Clock, millis};

async fn execute(path: &Path, sql: &'static str) {
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

fn new(by: &str) -> Change {
    Change::New(NewRun { op: "exec".to_owned(), by: by.to_owned(), request: None, idempotency: None })
}

fn begin(run: i64, vms: usize) -> Change {
    let target = |n| TargetRow {
        key: format!("h/{n}"),
        host: Some("h".to_owned()),
        vm: Some(format!("vm{n}")),
        uuid: None,
    };
    let targets = (0..vms).map(target).collect();
    let head =
        Some(r#"{"version":"0","op":"exec","operation":"x","separate":false,"unresolved":[]}"#.to_owned());
    Change::Begin(Box::new(Started { run, head, plan: "{}".to_owned(), targets, moved: Vec::new() }))
}

fn started(run: i64, n: usize) -> Change {
    Change::TargetStarted { run, key: format!("h/{n}") }
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
    assert!(matches!(error, StoreError::Newer { found: 99, known: 1, .. }), "{error}");
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
async fn a_target_is_started_once_and_a_key_names_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("runs.sqlite"), Clock::system()).await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    store.change(begin(run, 2)).await.unwrap();
    // All at once, in one batch: the others of the batch are not hurt by one that is refused.
    let asked = [started(run, 0), started(run, 0), started(run, 1)].map(|change| store.change(change));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert!(matches!(store.change(begin(run, 2)).await, Err(StoreError::Refused(_))));

    let keyed = |body: &str| {
        let idempotency = Some(("k".to_owned(), body.to_owned()));
        Change::New(NewRun { op: "exec".to_owned(), by: "a".to_owned(), request: None, idempotency })
    };
    let first = store.change(keyed("x")).await.unwrap();
    assert!(
        matches!(store.change(keyed("x")).await, Err(StoreError::Known { run, is_same: true }) if run == first)
    );
    assert!(matches!(store.change(keyed("y")).await, Err(StoreError::Known { is_same: false, .. })));
    store.change(Change::Discard { run: first }).await.unwrap();
    assert!(store.change(keyed("y")).await.unwrap() > first);
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
    let connection = options("40").connect().await.unwrap();
    let writer = writer::Writer::start(connection, lock::lock(&path).unwrap(), name.clone(), Clock::system());
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
    assert!(cause.contains("full"), "{cause}");
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

#[tokio::test]
async fn the_oldest_runs_are_forgotten_but_none_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("runs.sqlite"), Clock::system()).await.unwrap();
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
