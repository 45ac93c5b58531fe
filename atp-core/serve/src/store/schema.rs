//! The tables, and how older ones become them.

use std::path::Path;

use super::sql::{Db, values};
use super::{StoreError, failed};

/// Marks a SQLite file as a store of runs: "ATPr".
pub(super) const APPLICATION: i64 = 0x4154_5072;

/// Each makes the schema of its number, from 1, of the one before.
pub(super) const STEPS: &[&str] = &[
    "
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
",
    "
    CREATE TABLE reservations (
        uuid TEXT NOT NULL PRIMARY KEY,
        host TEXT NOT NULL,
        vm TEXT NOT NULL,
        owner TEXT NOT NULL,
        until INTEGER NOT NULL,
        by TEXT NOT NULL,
        request TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX reservations_by_request ON reservations (by, request);
",
    "
    -- A copy has its host in the key: VMs of other hosts with its UUID are other VMs.
    CREATE TABLE keyed (
        uuid TEXT NOT NULL,
        host TEXT NOT NULL,
        vm TEXT NOT NULL,
        owner TEXT NOT NULL,
        until INTEGER NOT NULL,
        by TEXT NOT NULL,
        request TEXT NOT NULL,
        body TEXT NOT NULL,
        copy_on TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (uuid, copy_on)
    );
    INSERT INTO keyed (uuid, host, vm, owner, until, by, request, body)
        SELECT uuid, host, vm, owner, until, by, request, body FROM reservations;
    DROP TABLE reservations;
    ALTER TABLE keyed RENAME TO reservations;
    CREATE INDEX reservations_by_request ON reservations (by, request);
",
];

/// The same for PostgreSQL.
pub(super) const DATABASE_STEPS: &[&str] = &[
    "
    CREATE TABLE atp_store (version BIGINT NOT NULL, generation BIGINT NOT NULL);
    INSERT INTO atp_store (version, generation) VALUES (0, 0);
    CREATE TABLE runs (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        op TEXT NOT NULL,
        by TEXT NOT NULL,
        state TEXT NOT NULL,
        created BIGINT NOT NULL,
        ended BIGINT,
        targets BIGINT,
        request TEXT,
        head TEXT,
        plan TEXT,
        statistics TEXT,
        stop_reason TEXT
    );
    CREATE INDEX runs_by_state ON runs (state);
    CREATE TABLE targets (
        run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        n BIGINT NOT NULL,
        host TEXT,
        vm TEXT,
        uuid TEXT,
        from_begin BOOLEAN NOT NULL,
        state TEXT NOT NULL,
        outcome TEXT,
        shown BOOLEAN NOT NULL DEFAULT FALSE,
        PRIMARY KEY (run, key)
    );
    CREATE INDEX targets_in_order ON targets (run, n);
    CREATE TABLE events (
        run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        seq BIGINT NOT NULL,
        word TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    );
    CREATE TABLE requests (
        by TEXT NOT NULL,
        key TEXT NOT NULL,
        body TEXT NOT NULL,
        run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        PRIMARY KEY (by, key)
    );
    CREATE INDEX requests_by_run ON requests (run);
",
    "
    -- Milliseconds since 1970, of the one clock that decides about ends.
    CREATE FUNCTION atp_now() RETURNS BIGINT LANGUAGE sql VOLATILE
        AS 'SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)';
    ALTER TABLE atp_store ADD is_shared BOOLEAN NOT NULL DEFAULT FALSE;
    -- The version of the controllers that share it.
    ALTER TABLE atp_store ADD program TEXT;
    CREATE TABLE controllers (
        id TEXT PRIMARY KEY,
        hosts TEXT NOT NULL,
        expires BIGINT NOT NULL
    );
    CREATE TABLE host_lease (
        daemon TEXT PRIMARY KEY,
        controller TEXT,
        epoch BIGINT NOT NULL,
        expires BIGINT NOT NULL
    );
    CREATE INDEX host_lease_by_controller ON host_lease (controller);
    ALTER TABLE runs
        ADD planner TEXT,
        ADD shared TEXT,
        ADD halt TEXT,
        ADD begun BIGINT,
        ADD deadline BIGINT;
    ALTER TABLE targets
        ADD domain TEXT,
        ADD batch BIGINT NOT NULL DEFAULT 0,
        ADD failed BOOLEAN NOT NULL DEFAULT FALSE,
        ADD owner TEXT,
        ADD epoch BIGINT,
        ADD claim BIGINT,
        ADD due BIGINT;
    CREATE INDEX targets_left ON targets (run, n) WHERE state IN ('waiting', 'started');
    CREATE INDEX targets_by_owner ON targets (owner) WHERE state = 'started';
",
    "
    CREATE TABLE reservations (
        uuid TEXT NOT NULL PRIMARY KEY,
        host TEXT NOT NULL,
        vm TEXT NOT NULL,
        owner TEXT NOT NULL,
        until BIGINT NOT NULL,
        by TEXT NOT NULL,
        request TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX reservations_by_request ON reservations (by, request);
",
    "
    -- Each look at a run counts its failures, and what is under way.
    CREATE INDEX targets_failed ON targets (run) WHERE failed;
    DROP INDEX targets_by_owner;
    CREATE INDEX targets_started ON targets (run, owner) WHERE state = 'started';
",
    "
    ALTER TABLE reservations
        ADD copy_on TEXT NOT NULL DEFAULT '',
        DROP CONSTRAINT reservations_pkey,
        ADD PRIMARY KEY (uuid, copy_on);
",
];

/// Whether a database has the tables.
const COUNT: &str =
    "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'atp_store'";

/// Brings a file to the present schema; a new one gets it.
///
/// # Errors
/// The file is something else, or of a later schema.
pub(super) async fn migrate(db: &mut Db, path: &Path) -> Result<(), StoreError> {
    let name = path.display().to_string();
    let error = |source| failed(&name, source);
    let invalid = |reason: &str| StoreError::Invalid { path: path.to_owned(), reason: reason.to_owned() };
    let application = db.number("PRAGMA application_id", values![]).await;
    let application = application.map_err(error)?;
    let found = db.number("PRAGMA user_version", values![]).await;
    let found = found.map_err(error)?;
    let tables = db.number("SELECT count(*) FROM sqlite_schema", values![]).await.map_err(error)?;
    let is_new = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION && !is_new {
        return Err(invalid("it is a SQLite database of another program"));
    }
    let steps = steps_after(found, STEPS, path)?;
    let check = db.row("PRAGMA quick_check(1)", values![]).await;
    let check = check.and_then(|row| row.map_or(Ok("ok".to_owned()), |row| row.text("quick_check")));
    match check.map_err(error)?.as_str() {
        "ok" => {}
        found => return Err(invalid(&format!("it is damaged: {found}"))),
    }
    for (step, number) in steps {
        let marks = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {number};");
        db.begin().await.map_err(error)?;
        db.raw(step).await.map_err(error)?;
        db.raw_text(marks).await.map_err(error)?;
        db.raw("COMMIT").await.map_err(error)?;
    }
    Ok(())
}

/// Whether a database has the present schema, so that nothing has to be changed.
///
/// # Errors
/// It is of a later schema.
pub(super) async fn is_present(db: &mut Db, name: &str) -> Result<bool, StoreError> {
    let error = |source| failed(name, source);
    if db.number(COUNT, values![]).await.map_err(error)? == 0 {
        return Ok(false);
    }
    let found = db.number("SELECT version FROM atp_store", values![]).await.map_err(error)?;
    Ok(steps_after(found, DATABASE_STEPS, Path::new(name))?.next().is_none())
}

/// The same for a database, which the caller has locked.
///
/// # Errors
/// The database has tables of another program, or is of a later schema.
pub(super) async fn migrate_database(db: &mut Db, name: &str) -> Result<(), StoreError> {
    let error = |source| failed(name, source);
    let path = Path::new(name);
    let count =
        "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'atp_store'";
    let found = match db.number(count, values![]).await.map_err(error)? {
        0 => {
            let others = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
            if db.number(others, values![]).await.map_err(error)? > 0 {
                let reason = "it is a database of another program".to_owned();
                return Err(StoreError::Invalid { path: path.to_owned(), reason });
            }
            0
        }
        _ => db.number("SELECT version FROM atp_store", values![]).await.map_err(error)?,
    };
    for (step, number) in steps_after(found, DATABASE_STEPS, path)? {
        db.begin().await.map_err(error)?;
        db.raw(step).await.map_err(error)?;
        db.execute("UPDATE atp_store SET version = $1", values![number]).await.map_err(error)?;
        db.raw("COMMIT").await.map_err(error)?;
    }
    Ok(())
}

/// The steps from a schema to the present one, each with its number.
fn steps_after(
    found: i64,
    all: &[&'static str],
    path: &Path,
) -> Result<impl Iterator<Item = (&'static str, i64)>, StoreError> {
    let known = i64::try_from(all.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    let done = usize::try_from(found).unwrap_or_default();
    Ok(all.iter().copied().skip(done).zip(found + 1..).collect::<Vec<_>>().into_iter())
}
