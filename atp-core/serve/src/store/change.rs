//! Changes to the store, each of which is made as a whole or not at all.

use sqlx::{Error, SqliteConnection};
use uuid::Uuid;

use super::StoreError;

/// A change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A run that is planned from now on. Its id is the answer.
    New(NewRun),
    /// Nothing came of the planning of a run.
    Discard { run: i64 },
    /// A run begins, or is resumed.
    Begin(Box<Started>),
    /// The work on a target is about to start.
    TargetStarted { run: i64, key: String },
    /// A target has its outcome.
    TargetFinished { run: i64, key: String, outcome: String },
    /// Events of a run, and its end.
    Events { run: i64, events: Vec<EventRow>, ending: Option<Ending> },
    /// Forgets the oldest runs: those created before that time, and those beyond that number.
    Retain { since: i64, most: i64 },
}

/// A run that is planned.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    pub(crate) op: String,
    pub(crate) by: String,
    /// The request, if it can hold no secret.
    pub(crate) request: Option<String>,
    /// The client's key for the request, and the hash of its body.
    pub(crate) idempotency: Option<(String, String)>,
}

/// What a run begins or resumes with.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) run: i64,
    /// What a resume needs to know; none if it is one.
    pub(crate) head: Option<String>,
    pub(crate) plan: String,
    pub(crate) targets: Vec<TargetRow>,
    /// VMs that are on another host than before: the key before, the key and the host now.
    pub(crate) moved: Vec<(String, String, String)>,
}

/// A target of a run.
#[derive(Debug, Clone)]
pub(crate) struct TargetRow {
    pub(crate) key: String,
    pub(crate) host: Option<String>,
    pub(crate) vm: Option<String>,
    pub(crate) uuid: Option<Uuid>,
}

/// An event of a run.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) seq: i64,
    pub(crate) word: &'static str,
    pub(crate) data: String,
    /// The target whose outcome it is.
    pub(crate) outcome_of: Option<TargetRow>,
}

/// The end of a run.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) state: &'static str,
    pub(crate) statistics: String,
    pub(crate) stop_reason: Option<String>,
}

/// Why a change is not made: the database failed, and with it all changes of the batch; or this one does not fit.
pub(super) enum Unmade {
    Failed(Error),
    Refused(StoreError),
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Unmade::Failed(error)
    }
}

/// Makes a change, within the transaction of its batch. One that is refused has changed nothing. `now` is its time, in
/// milliseconds since 1970.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    change: &Change,
    now: i64,
) -> Result<i64, Unmade> {
    match change {
        Change::New(new) => new_run(connection, new, now).await,
        Change::Discard { run } => {
            let done = sqlx::query("DELETE FROM runs WHERE id = ?").bind(run).execute(connection).await?;
            Ok(rows(done.rows_affected()))
        }
        Change::Begin(started) => begin(connection, started).await,
        Change::TargetStarted { run, key } => {
            let statement =
                "UPDATE targets SET state = 'started' WHERE run = ? AND key = ? AND state = 'waiting'";
            let done = sqlx::query(statement).bind(run).bind(key).execute(connection).await?;
            match done.rows_affected() {
                0 => Err(Unmade::Refused(StoreError::Refused("the target was started before"))),
                count => Ok(rows(count)),
            }
        }
        Change::TargetFinished { run, key, outcome } => {
            let statement = "UPDATE targets SET state = 'finished', outcome = ?, shown = 0
                WHERE run = ? AND key = ? AND state = 'started'";
            let done = sqlx::query(statement).bind(outcome).bind(run).bind(key).execute(connection).await?;
            match done.rows_affected() {
                0 => Err(Unmade::Refused(StoreError::Refused("the target was not started"))),
                count => Ok(rows(count)),
            }
        }
        Change::Events { run, events, ending } => {
            Ok(write_events(connection, *run, events, ending.as_ref(), now).await?)
        }
        Change::Retain { since, most } => {
            // A few at a time: runs under way wait meanwhile.
            let statement = "DELETE FROM runs WHERE id IN (
                SELECT id FROM runs WHERE state IN ('ended', 'interrupted') AND (
                    created < ? OR id <= (SELECT id FROM runs ORDER BY id DESC LIMIT 1 OFFSET ?)
                ) ORDER BY id LIMIT 4)";
            let done = sqlx::query(statement).bind(since).bind(most).execute(connection).await?;
            Ok(rows(done.rows_affected()))
        }
    }
}

async fn new_run(connection: &mut SqliteConnection, new: &NewRun, now: i64) -> Result<i64, Unmade> {
    let NewRun { op, by, request, idempotency } = new;
    if let Some((key, body)) = idempotency {
        let statement = "SELECT run, body FROM requests WHERE by = ? AND key = ?";
        let known = sqlx::query_as::<_, (i64, String)>(statement).bind(by).bind(key);
        if let Some((run, theirs)) = known.fetch_optional(&mut *connection).await? {
            return Err(Unmade::Refused(StoreError::Known { run, is_same: theirs == *body }));
        }
    }
    let statement = "INSERT INTO runs (op, by, state, created, request) VALUES (?, ?, 'planning', ?, ?)";
    let done =
        sqlx::query(statement).bind(op).bind(by).bind(now).bind(request).execute(&mut *connection).await?;
    let run = done.last_insert_rowid();
    if let Some((key, body)) = idempotency {
        let statement = "INSERT INTO requests (by, key, body, run) VALUES (?, ?, ?, ?)";
        sqlx::query(statement).bind(by).bind(key).bind(body).bind(run).execute(connection).await?;
    }
    Ok(run)
}

async fn begin(connection: &mut SqliteConnection, started: &Started) -> Result<i64, Unmade> {
    let Started { run, head, plan, targets, moved } = started;
    let count = rows(targets.len() as u64);
    let statement = "UPDATE runs SET state = 'running', head = coalesce(head, ?), plan = ?, ended = NULL,
        statistics = NULL, stop_reason = NULL, targets = coalesce(targets, ?)
        WHERE id = ? AND state <> 'running'";
    let done =
        sqlx::query(statement).bind(head).bind(plan).bind(count).bind(run).execute(&mut *connection).await?;
    if done.rows_affected() == 0 {
        return Err(Unmade::Refused(StoreError::Refused("the run is under way, or was forgotten")));
    }
    // What was settled before is settled again, or is a target now.
    let statement = "DELETE FROM targets WHERE run = ? AND state = 'settled'";
    sqlx::query(statement).bind(run).execute(&mut *connection).await?;
    for (before, key, host) in moved {
        let statement = "UPDATE OR IGNORE targets SET key = ?, host = ? WHERE run = ? AND key = ?";
        sqlx::query(statement).bind(key).bind(host).bind(run).bind(before).execute(&mut *connection).await?;
    }
    let is_begin = head.is_some();
    for target in targets {
        insert(connection, *run, target, "waiting", None, is_begin).await?;
    }
    if !is_begin {
        let statement =
            "UPDATE runs SET targets = (SELECT count(*) FROM targets WHERE run = ?1) WHERE id = ?1";
        sqlx::query(statement).bind(run).execute(connection).await?;
    }
    Ok(1)
}

/// Adds a target, or brings the one that is there to this state.
async fn insert(
    connection: &mut SqliteConnection,
    run: i64,
    target: &TargetRow,
    state: &str,
    outcome: Option<&str>,
    is_from_begin: bool,
) -> Result<(), Error> {
    let TargetRow { key, host, vm, uuid } = target;
    let statement = "INSERT INTO targets (run, key, n, host, vm, uuid, from_begin, state, outcome, shown)
        VALUES (?1, ?2, (SELECT coalesce(max(n), 0) + 1 FROM targets WHERE run = ?1), ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (run, key) DO UPDATE SET state = ?7, outcome = ?8, shown = ?9, vm = ?4";
    sqlx::query(statement)
        .bind(run)
        .bind(key)
        .bind(host)
        .bind(vm)
        .bind(uuid.map(|uuid| uuid.to_string()))
        .bind(is_from_begin)
        .bind(state)
        .bind(outcome)
        .bind(outcome.is_some())
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_events(
    connection: &mut SqliteConnection,
    run: i64,
    events: &[EventRow],
    ending: Option<&Ending>,
    now: i64,
) -> Result<i64, Error> {
    for EventRow { seq, word, data, outcome_of } in events {
        let statement = "INSERT OR IGNORE INTO events (run, seq, word, data) VALUES (?, ?, ?, ?)";
        sqlx::query(statement).bind(run).bind(seq).bind(word).bind(data).execute(&mut *connection).await?;
        let Some(target) = outcome_of else { continue };
        // A target of the run has its outcome, or gets it here: it was never started, or the disk was full. Others were
        // settled when the run was planned.
        let statement =
            "UPDATE targets SET state = 'finished', outcome = ?, shown = 1 WHERE run = ? AND key = ?
            AND state <> 'settled'";
        let done =
            sqlx::query(statement).bind(data).bind(run).bind(&target.key).execute(&mut *connection).await?;
        if done.rows_affected() == 0 {
            insert(connection, run, target, "settled", Some(data), false).await?;
        }
    }
    if let Some(Ending { state, statistics, stop_reason }) = ending {
        let statement = "UPDATE runs SET state = ?, ended = ?, statistics = ?, stop_reason = ? WHERE id = ?";
        sqlx::query(statement)
            .bind(state)
            .bind(now)
            .bind(statistics)
            .bind(stop_reason)
            .bind(run)
            .execute(connection)
            .await?;
    }
    Ok(rows(events.len() as u64))
}

fn rows(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
