//! The tables, and how older ones become them.

use std::path::Path;

use sqlx::{Connection as _, SqliteConnection};

use super::{StoreError, failed};

/// Marks a SQLite file as a store of runs: "ATPr".
const APPLICATION: i64 = 0x4154_5072;

/// Each makes the schema of its number, from 1, of the one before.
const STEPS: &[&str] = &["
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        op TEXT NOT NULL,
        by TEXT NOT NULL,
        state TEXT NOT NULL,
        created INTEGER NOT NULL,
        ended INTEGER,
        targets INTEGER,
        request TEXT,
        head TEXT,
        plan TEXT,
        statistics TEXT,
        stop_reason TEXT
    );
    CREATE INDEX runs_by_state ON runs (state);
    CREATE TABLE targets (
        run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        n INTEGER NOT NULL,
        host TEXT,
        vm TEXT,
        uuid TEXT,
        from_begin INTEGER NOT NULL,
        state TEXT NOT NULL,
        outcome TEXT,
        shown INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run, key)
    );
    CREATE INDEX targets_in_order ON targets (run, n);
    CREATE TABLE events (
        run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        word TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    );
    CREATE TABLE requests (
        by TEXT NOT NULL,
        key TEXT NOT NULL,
        body TEXT NOT NULL,
        run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        PRIMARY KEY (by, key)
    );
    CREATE INDEX requests_by_run ON requests (run);
"];

/// Brings a database to the present schema; a new file gets it.
///
/// # Errors
/// The file is something else, or of a later schema.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let name = path.display().to_string();
    let error = |source| failed(&name, source);
    let invalid = |reason: &str| StoreError::Invalid { path: path.to_owned(), reason: reason.to_owned() };
    let number = sqlx::query_scalar::<_, i64>("PRAGMA application_id").fetch_one(&mut *connection).await;
    let application = number.map_err(error)?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(error)?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(error)?;
    let is_new = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION && !is_new {
        return Err(invalid("it is a SQLite database of another program"));
    }
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    let check: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await.map_err(error)?;
    if check != "ok" {
        return Err(invalid(&format!("it is damaged: {check}")));
    }
    let done = usize::try_from(found).unwrap_or_default();
    for (step, number) in STEPS.iter().skip(done).zip(found + 1..) {
        let mut transaction = connection.begin().await.map_err(error)?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(error)?;
        let marks = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {number};");
        sqlx::raw_sql(sqlx::AssertSqlSafe(marks)).execute(&mut *transaction).await.map_err(error)?;
        transaction.commit().await.map_err(error)?;
    }
    Ok(())
}
