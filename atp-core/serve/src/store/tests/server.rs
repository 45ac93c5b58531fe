//! What only a store in a database has: a server that goes away, another service, other schemas.

use super::*;
use crate::store::Database;

async fn open(address: &str) -> Result<Store, StoreError> {
    Store::open_database(Database::read(address, "").unwrap(), Clock::system()).await
}

#[tokio::test]
async fn after_a_restart_of_the_server_the_store_goes_on_and_nothing_is_lost() {
    let (mut server, address) = Bed::own_server("one");
    let store = open(&address).await.unwrap();
    let run = store.change(new("a")).await.unwrap();
    store.change(begin(run, 2)).await.unwrap();
    store.change(started(run, 0)).await.unwrap();
    server.stop().unwrap();
    for _ in 0..2 {
        let error = store.change(started(run, 1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    }
    assert!(store.run(run).await.is_err());
    server.restart().unwrap();
    store.change(finished(run, 0)).await.unwrap();
    store.change(started(run, 1)).await.unwrap();
    assert!(matches!(store.change(started(run, 0)).await, Err(StoreError::Refused(_))));
    assert!(store.run(run).await.unwrap().is_some());
}

#[tokio::test]
async fn one_service_has_it_and_one_that_was_replaced_changes_nothing() {
    let (server, address) = Bed::own_server("one");
    let first = open(&address).await.unwrap();
    let run = first.change(new("a")).await.unwrap();
    first.change(begin(run, 2)).await.unwrap();
    first.change(started(run, 0)).await.unwrap();
    let error = open(&address).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    // The first one's connection breaks, and another service is faster than it.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    server.execute("one", end).unwrap();
    let second = open(&address).await.unwrap();
    let mut refused = first.change(finished(run, 0)).await.unwrap_err();
    if matches!(refused, StoreError::Failed { .. }) {
        // That was the connection that broke.
        refused = first.change(finished(run, 0)).await.unwrap_err();
    }
    assert!(matches!(refused, StoreError::TakenOver { .. }), "{refused}");
    let row = second.run(run).await.unwrap().unwrap();
    assert_eq!(row.summary.statistics.unwrap().unknown_effects, 1);
    // Also when the second one has ended.
    drop(second);
    loop {
        match first.change(finished(run, 0)).await.unwrap_err() {
            StoreError::TakenOver { .. } if server_is_free(&server) => break,
            StoreError::TakenOver { .. } => tokio::task::yield_now().await,
            error => panic!("{error}"),
        }
    }
    let error = first.change(finished(run, 0)).await.unwrap_err();
    assert!(matches!(error, StoreError::TakenOver { .. }), "{error}");
}

fn server_is_free(server: &atp_postgres::Postgres) -> bool {
    let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    server.execute("one", count).unwrap() == "0"
}

#[tokio::test]
async fn other_schemas_and_databases_of_other_programs_are_refused_by_name() {
    let (server, address) = Bed::own_server("one");
    drop(open(&address).await.unwrap());
    server.execute("one", "UPDATE atp_store SET version = 99").unwrap();
    let error = open(&address).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 5, .. }), "{error}");
    assert!(error.to_string().contains("/one is of schema 99"), "{error}");

    let other = server.database("other").unwrap();
    server.execute("other", "CREATE TABLE t (a INT)").unwrap();
    let error = open(&other).await.unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    assert_eq!(
        server.execute("other", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").unwrap(),
        "1"
    );

    server.execute("postgres", "DROP DATABASE other WITH (FORCE)").unwrap();
    let error = open(&other).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
}

#[test]
fn a_password_in_the_settings_is_refused_and_not_repeated() {
    for address in
        ["postgres://a:secret@h/d", "postgres://a@h/d?sslmode=require&password=secret", "mysql://secret"]
    {
        let error = Database::read(address, "").unwrap_err().to_string();
        assert!(error.starts_with("serve.database: ") && !error.contains("secret"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let database = Database::read("postgres://a@h:5433/d?sslmode=require", file.to_str().unwrap()).unwrap();
    let shown = format!("{database:?}");
    assert!(shown.contains("postgres://a@h:5433/d") && !shown.contains("secret"), "{shown}");
    let error = Database::read("postgres://a@h/d", "/nowhere/password").unwrap_err().to_string();
    assert!(error.contains("/nowhere/password"), "{error}");
}
