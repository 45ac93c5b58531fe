//! Controllers in each other's way, a database that is slow or breaks at a bad moment, and clocks that differ.

use std::time::SystemTime;

use atp_api::{Policy, Status};

use super::bed::Cut;
use super::shared::{HOSTS, begin_again, begun, begun_with, open, target};
use super::*;
use crate::store::StoreError;

pub(super) fn look<'a>(controller: &'a str, number: i64, startable: &'a str) -> Look<'a> {
    Look { controller, number, startable, slack_ms: 0, settles_unknown: false, refused: None }
}

/// Locks a run, as another controller that hangs, until it is aborted.
async fn locked(
    server: &atp_postgres::Postgres,
    database: &'static str,
    run: i64,
) -> tokio::task::JoinHandle<()> {
    let socket = server.socket().parent().unwrap().display().to_string();
    let other = Database::read(&format!("postgres://atp@localhost/{database}?host={socket}"), "").unwrap();
    let mut db = other.connect().await.unwrap();
    db.begin().await.unwrap();
    let statement = "SELECT id FROM runs WHERE id = $1 FOR UPDATE";
    db.rows(statement, crate::store::sql::values![run]).await.unwrap();
    tokio::spawn(async move {
        loop {
            db.raw("SELECT 1").await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    })
}

#[tokio::test]
async fn a_run_that_another_has_locked_holds_up_no_change_of_others() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let run = begun(&store).await;
    let mut link = shared.link();
    let granted = link.renew("one", &HOSTS.map(str::to_owned), 100_000).await.unwrap();
    let held = startable(granted.leases.iter().map(|(host, epoch)| (host.as_str(), *epoch)));
    let locked = locked(&server, "one", run).await;
    let halt = || Change::Halt { run, reason: "\"requested\"".to_owned(), is_abort: false };
    let (first, halted, other) =
        tokio::join!(store.change(new("a")), store.change(halt()), store.change(new("b")));
    let error = halted.unwrap_err();
    assert!(error.is_of_statement() && error.is_busy() && !error.is_for_good(), "{error:?}");
    assert!(first.unwrap() < other.unwrap());
    // A controller's own work gives it up in time, and has its connection still.
    let error = link.look(run, &look("one", 1, &held)).await.unwrap_err();
    assert!(error.is_busy(), "{error:?}");
    locked.abort();
    while link.look(run, &look("one", 2, &held)).await.is_err() {}
    store.change(halt()).await.unwrap();
}

#[tokio::test]
async fn a_change_that_the_database_refuses_takes_no_other_of_its_batch_with_it() {
    let (server, address) = Bed::own_server("one");
    let store = Store::open_database(Database::read(&address, "").unwrap(), Clock::system()).await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    server.execute("one", "ALTER TABLE runs ADD CHECK (by <> 'bad')").unwrap();
    let changes = ["b", "bad", "c"].map(|by| store.change(new(by)));
    let answers = futures_util::future::join_all(changes).await;
    let made: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().ok().is_some_and(|id| *id > run)).collect();
    assert_eq!(made, [true, false, true], "{answers:?}");
    assert_eq!(server.execute("one", "SELECT string_agg(by, ' ' ORDER BY id) FROM runs").unwrap(), "a b c");
}

#[tokio::test]
async fn a_commit_that_was_not_answered_is_read_back() {
    let (server, _) = Bed::own_server("one");
    let cut = Cut::start(&server).await;
    let address = format!("postgres://atp@localhost/one?host={}", cut.folder());
    for is_shared in [false, true] {
        let database = Database::read(&address, "").unwrap();
        let store = match is_shared {
            false => Store::open_database(database, Clock::system()).await.unwrap(),
            true => loop {
                match Store::open_shared(database.clone(), Clock::system()).await {
                    Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                    opened => break opened.unwrap().0,
                }
            },
        };
        store.change(new("before")).await.unwrap();
        cut.at_commit(true);
        let run = store.change(new("made")).await.unwrap();
        assert_eq!(store.run(run).await.unwrap().unwrap().by, "made");
        cut.at_commit(false);
        let error = store.change(new("lost")).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        store.change(new("after")).await.unwrap();
        assert_eq!(server.execute("one", "SELECT count(*) FROM runs WHERE by = 'lost'").unwrap(), "0");
    }
}

#[tokio::test]
async fn the_clock_of_a_database_decides_and_not_that_of_a_service() {
    let (server, address) = Bed::own_server("one");
    let far = Clock::of(|| SystemTime::UNIX_EPOCH);
    let (store, _) = Store::open_shared(Database::read(&address, "").unwrap(), far).await.unwrap();
    let time = |text: String| text.parse::<i64>().unwrap();
    let theirs = || time(server.execute("one", "SELECT atp_now()").unwrap());
    let before = theirs();
    let now = store.now(0).await.unwrap();
    store.change(new("a")).await.unwrap();
    let after = theirs();
    assert!((before..=after).contains(&now));
    let created = time(server.execute("one", "SELECT created FROM runs").unwrap());
    assert!((now..=after).contains(&created));
    let sqlite = Bed::sqlite().open().await.unwrap();
    assert_eq!(sqlite.now(7).await.unwrap(), 7);
}

#[tokio::test]
async fn a_controller_takes_the_places_of_its_hosts_and_leaves_those_of_others() {
    let (_server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let hosts = HOSTS.map(|host| [host.to_owned()]);
    let mut held = Vec::new();
    for (controller, hosts) in ["one", "two"].into_iter().zip(&hosts) {
        let granted = link.renew(controller, hosts, 100_000).await.unwrap();
        held.push(startable(granted.leases.iter().map(|(host, epoch)| (host.as_str(), *epoch))));
    }
    let policy = Policy { parallel: 2, ..Policy::default() };
    let run = begun_with(&store, policy).await;
    let mut started = Vec::new();
    for (number, of) in [0, 0, 1, 1].into_iter().enumerate() {
        let number = i64::try_from(number).unwrap();
        let looked = link.look(run, &look(["one", "two"][of], number, &held[of])).await.unwrap();
        started.push(looked.started);
    }
    assert_eq!(started.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1, 0]);
    // What the other cannot use is not kept for it.
    for started in started.drain(..).flatten().filter(|started| started.claim.controller == "two") {
        link.finish(run, &[finished(&started)]).await.unwrap();
    }
    let looked = link.look(run, &look("two", 5, &held[1])).await.unwrap();
    for started in &looked.started {
        link.finish(run, &[finished(started)]).await.unwrap();
    }
    let looked = link.look(run, &look("one", 6, &held[0])).await.unwrap();
    assert_eq!(looked.started.len(), 1, "with the one before it has both places");
}

pub(super) fn finished(started: &StartedTarget) -> Finished {
    Finished {
        run: started.run,
        key: started.key.clone(),
        controller: started.claim.controller.clone(),
        epoch: started.claim.epoch,
        number: started.claim.number,
        outcome: serde_json::from_str(&outcome(0)).unwrap(),
    }
}

#[tokio::test]
async fn failures_of_before_a_resume_do_not_stop_it() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let granted = link.renew("one", &HOSTS.map(str::to_owned), 100_000).await.unwrap();
    let held = startable(granted.leases.iter().map(|(host, epoch)| (host.as_str(), *epoch)));
    let policy = Policy { max_failures: Some("1".parse().unwrap()), parallel: 1, ..Policy::default() };
    let run = begun_with(&store, policy.clone()).await;
    let looked = link.look(run, &look("one", 1, &held)).await.unwrap();
    let mut failed = finished(&looked.started[0]);
    failed.outcome.status = Status::Failed;
    link.finish(run, std::slice::from_ref(&failed)).await.unwrap();
    let looked = link.look(run, &look("one", 2, &held)).await.unwrap();
    assert_eq!(looked.started.len(), 0, "it has had as many failures as it may");
    assert_eq!(server.execute("one", "SELECT state FROM runs").unwrap(), "ended");
    // What failed with an effect is not done again.
    let left = HOSTS.iter().flat_map(|host| [0, 1].map(|n| target(host, n)));
    let left = left.filter(|target| target.key != failed.key).collect();
    begin_again(&store, run, left, policy, false).await;
    let looked = link.look(run, &look("one", 3, &held)).await.unwrap();
    assert_eq!(looked.started.len(), 1);
}

#[tokio::test]
async fn what_a_controller_that_is_gone_was_planning_is_forgotten_by_another() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let by = |planner: &str| {
        let Change::New(new) = new("a") else { unreachable!() };
        Change::New(NewRun { planner: Some(planner.to_owned()), ..new })
    };
    let runs = || server.execute("one", "SELECT string_agg(planner, ' ' ORDER BY id) FROM runs").unwrap();
    let hosts = HOSTS.map(str::to_owned);
    for controller in ["one", "two"] {
        link.renew(controller, &hosts, 100_000).await.unwrap();
        store.change(by(controller)).await.unwrap();
    }
    link.renew("one", &hosts, 100_000).await.unwrap();
    assert_eq!(runs(), "one two");
    // It has a lease's time after its own, as it may only not have been able to renew.
    server.execute("one", "UPDATE controllers SET expires = atp_now() - 50000 WHERE id = 'two'").unwrap();
    link.renew("one", &hosts, 100_000).await.unwrap();
    assert_eq!(runs(), "one two");
    server.execute("one", "UPDATE controllers SET expires = atp_now() - 150000 WHERE id = 'two'").unwrap();
    link.renew("one", &hosts, 100_000).await.unwrap();
    assert_eq!(runs(), "one");
    let planned = link.planned_by("one").await.unwrap();
    assert_eq!((planned.len(), link.planned_by("two").await.unwrap().len()), (1, 0));
    link.forget_planned("two", planned[0]).await.unwrap();
    assert_eq!(runs(), "one");
    link.forget_planned("one", planned[0]).await.unwrap();
    assert_eq!(runs(), "");
}
