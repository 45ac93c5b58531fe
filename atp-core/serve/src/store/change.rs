//! Changes to the store, each of which is made as a whole or not at all.

use atp_transport::HostId;
use sqlx::Error;
use uuid::Uuid;

use super::reservations::{NewReservations, release, reserve};
use super::sql::{Db, storable, values};
use super::{StoreError, Unmade};

/// The most rows of a statement.
const ROWS: usize = 1000;

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
    /// A run that controllers share is to end early, for this reason, JSON.
    Halt { run: i64, reason: String, is_abort: bool },
    /// Forgets the oldest runs: those created before that time, and those beyond that number.
    Retain { since: i64, most: i64 },
    /// Reserves VMs. How many is the answer.
    Reserve(Box<NewReservations>),
    /// Ends reservations of VMs, by their UUIDs and the hosts on which they were reserved, of an owner; those that a token of
    /// this name made, if one is given.
    Release { vms: Vec<(Uuid, HostId)>, owner: String, by: Option<String> },
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
    /// The controller that plans it, where several share the store.
    pub(crate) planner: Option<String>,
}

/// What a run begins or resumes with.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) run: i64,
    /// What a resume needs to know; none if it is one.
    pub(crate) head: Option<String>,
    /// The run's last event when its history was read, if this is a resume: of what was done since then it knows nothing.
    pub(crate) last_event: Option<i64>,
    pub(crate) plan: String,
    pub(crate) targets: Vec<TargetRow>,
    /// VMs that are on another host than before: the key before, the key and the host now.
    pub(crate) moved: Vec<(String, String, String)>,
    /// What other controllers need, where several share the store.
    pub(crate) share: Option<Share>,
}

/// What controllers need to work on a run together.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    /// The run, as JSON.
    pub(crate) run: String,
    /// The time that is left for the whole run, milliseconds.
    pub(crate) left_ms: Option<i64>,
    /// The VM of each target as it was listed, JSON, in the order of the targets.
    pub(crate) domains: Vec<Option<String>>,
    /// The size of its batches.
    pub(crate) batch: usize,
    /// Its first events, and the numbers of the outcomes that they have.
    pub(crate) events: Vec<EventRow>,
    pub(crate) statistics: String,
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

/// Makes a change, within the transaction of its batch. One that is refused has changed nothing. `now` is its time, in
/// milliseconds since 1970: of a server its own.
pub(super) async fn apply(db: &mut Db, change: &Change, now: i64) -> Result<i64, Unmade> {
    match change {
        Change::New(new) => new_run(db, new, now).await,
        Change::Discard { run } => {
            // It may have begun, if the answer to that was lost; then other controllers may work on it.
            let statement = match db {
                Db::Postgres(_) => {
                    "DELETE FROM runs WHERE id = $1 AND (state = 'planning' OR shared IS NULL)"
                }
                Db::Sqlite(_) => "DELETE FROM runs WHERE id = $1",
            };
            Ok(db.execute(statement, values![*run]).await?)
        }
        Change::Begin(started) => begin(db, started, now).await,
        Change::TargetStarted { run, key } => {
            let statement =
                "UPDATE targets SET state = 'started' WHERE run = $1 AND key = $2 AND state = 'waiting'";
            match db.execute(statement, values![*run, key]).await? {
                0 => Err(Unmade::Refused(StoreError::Refused("the target was started before"))),
                count => Ok(count),
            }
        }
        Change::TargetFinished { run, key, outcome } => {
            let statement = "UPDATE targets SET state = 'finished', outcome = $3, shown = FALSE
                WHERE run = $1 AND key = $2 AND state = 'started'";
            match db.execute(statement, values![*run, key, outcome]).await? {
                0 => Err(Unmade::Refused(StoreError::Refused("the target was not started"))),
                count => Ok(count),
            }
        }
        Change::Events { run, events, ending } => {
            Ok(write_events(db, *run, events, ending.as_ref(), now).await?)
        }
        Change::Halt { run, reason, is_abort } => {
            let statement = "UPDATE runs SET halt = $2
                WHERE id = $1 AND state = 'running' AND shared IS NOT NULL AND (halt IS NULL OR $3)";
            let changed = db.execute(statement, values![*run, reason, *is_abort]).await?;
            db.execute("SELECT pg_notify('atp', 'run')", values![]).await?;
            Ok(changed)
        }
        Change::Retain { since, most } => {
            // A few at a time: runs under way wait meanwhile.
            let statement = "DELETE FROM runs WHERE id IN (
                SELECT id FROM runs WHERE state IN ('ended', 'interrupted') AND (
                    created < $1 OR id <= (SELECT id FROM runs ORDER BY id DESC LIMIT 1 OFFSET $2)
                ) ORDER BY id LIMIT 4)";
            Ok(db.execute(statement, values![*since, *most]).await?)
        }
        Change::Reserve(new) => reserve(db, new).await,
        Change::Release { vms, owner, by } => Ok(release(db, vms, owner, by.as_deref()).await?),
    }
}

async fn new_run(db: &mut Db, new: &NewRun, now: i64) -> Result<i64, Unmade> {
    let NewRun { op, by, request, idempotency, planner } = new;
    if let Some((key, body)) = idempotency {
        let statement = "SELECT run, body FROM requests WHERE by = $1 AND key = $2";
        if let Some(row) = db.row(statement, values![by, key]).await? {
            let (run, theirs) = (row.int("run")?, row.text("body")?);
            return Err(Unmade::Refused(StoreError::Known { run, is_same: theirs == *body }));
        }
    }
    let statement = "INSERT INTO runs (op, by, state, created, request) VALUES ($1, $2, 'planning', $3, $4)
        RETURNING id";
    let run = db.number(statement, values![op, by, now, request.as_deref()]).await?;
    if let Some(planner) = planner {
        db.execute("UPDATE runs SET planner = $2 WHERE id = $1", values![run, planner]).await?;
    }
    if let Some((key, body)) = idempotency {
        let statement = "INSERT INTO requests (by, key, body, run) VALUES ($1, $2, $3, $4)
            ON CONFLICT (by, key) DO NOTHING";
        if db.execute(statement, values![by, key, body, run]).await? == 0 {
            // Another controller was asked at the same time.
            db.execute("DELETE FROM runs WHERE id = $1", values![run]).await?;
            let statement = "SELECT run, body FROM requests WHERE by = $1 AND key = $2";
            let row = db.row(statement, values![by, key]).await?.ok_or(Error::RowNotFound)?;
            let (run, theirs) = (row.int("run")?, row.text("body")?);
            return Err(Unmade::Refused(StoreError::Known { run, is_same: theirs == *body }));
        }
    }
    Ok(run)
}

async fn begin(db: &mut Db, started: &Started, now: i64) -> Result<i64, Unmade> {
    let Started { run, head, last_event, plan, targets, moved, share } = started;
    let count = i64::try_from(targets.len()).unwrap_or(i64::MAX);
    if let Some(last_event) = last_event {
        // Locks the run's row: from here on others add no events to it.
        db.execute("UPDATE runs SET state = state WHERE id = $1", values![*run]).await?;
        let statement = "SELECT coalesce(max(seq), 0) FROM events WHERE run = $1";
        if db.number(statement, values![*run]).await? != *last_event {
            return Err(Unmade::Refused(StoreError::Refused("the run has gone on meanwhile")));
        }
    }
    let statement = "UPDATE runs SET state = 'running', head = coalesce(head, $2), plan = $3, ended = NULL,
        statistics = NULL, stop_reason = NULL, targets = coalesce(targets, $4)
        WHERE id = $1 AND state <> 'running'";
    if db.execute(statement, values![*run, head.as_deref(), plan, count]).await? == 0 {
        return Err(Unmade::Refused(StoreError::Refused("the run is under way, or was forgotten")));
    }
    // What was settled before is settled again, or is a target now.
    db.execute("DELETE FROM targets WHERE run = $1 AND state = 'settled'", values![*run]).await?;
    for (before, key, host) in moved {
        let statement = "UPDATE targets SET key = $3, host = $4 WHERE run = $1 AND key = $2
            AND NOT EXISTS (SELECT 1 FROM targets WHERE run = $1 AND key = $3)";
        db.execute(statement, values![*run, before, key, host]).await?;
    }
    let is_begin = head.is_some();
    for target in targets {
        insert(db, *run, target, "waiting", None, is_begin).await?;
    }
    if !is_begin {
        let statement =
            "UPDATE runs SET targets = (SELECT count(*) FROM targets WHERE run = $1) WHERE id = $1";
        db.execute(statement, values![*run]).await?;
    }
    if let Some(share) = share {
        begin_shared(db, *run, targets, share, now).await?;
    }
    Ok(1)
}

async fn begin_shared(
    db: &mut Db,
    run: i64,
    targets: &[TargetRow],
    share: &Share,
    now: i64,
) -> Result<(), Error> {
    let Share { run: shared, left_ms, domains, batch, events, statistics } = share;
    // Failures of before a resume were counted then.
    db.execute("UPDATE targets SET failed = FALSE WHERE run = $1 AND failed", values![run]).await?;
    let row = |(n, (target, domain)): (usize, (&TargetRow, &Option<String>))| {
        serde_json::json!({
            "key": storable(&target.key),
            "domain": domain.as_deref().map(storable),
            "batch": n / (*batch).max(1),
        })
    };
    let rows: Vec<_> = targets.iter().zip(domains).enumerate().map(row).collect();
    for some in rows.chunks(ROWS) {
        let statement = "UPDATE targets SET domain = t.domain, batch = t.batch, failed = FALSE, owner = NULL,
                epoch = NULL, claim = NULL, due = NULL
            FROM json_to_recordset(CAST($2 AS JSON)) AS t (key TEXT, domain TEXT, batch BIGINT)
            WHERE targets.run = $1 AND targets.key = t.key";
        db.execute(statement, values![run, &text(some)?]).await?;
    }
    write_events(db, run, events, None, now).await?;
    let statement =
        "UPDATE runs SET shared = $2, statistics = $3, halt = NULL, begun = atp_now(), planner = NULL,
        deadline = CASE WHEN $4 < 0 THEN NULL ELSE atp_now() + $4 END WHERE id = $1";
    db.execute(statement, values![run, shared, statistics, left_ms.unwrap_or(-1)]).await?;
    db.execute("SELECT pg_notify('atp', 'run')", values![]).await?;
    Ok(())
}

fn text(rows: &[serde_json::Value]) -> Result<String, Error> {
    serde_json::to_string(rows).map_err(|error| Error::Encode(Box::new(error)))
}

/// Adds a target, or brings the one that is there to this state.
async fn insert(
    db: &mut Db,
    run: i64,
    target: &TargetRow,
    state: &str,
    outcome: Option<&str>,
    is_from_begin: bool,
) -> Result<(), Error> {
    let TargetRow { key, host, vm, uuid } = target;
    let uuid = uuid.map(|uuid| uuid.to_string());
    let statement = "INSERT INTO targets (run, key, n, host, vm, uuid, from_begin, state, outcome, shown)
        VALUES ($1, $2, (SELECT coalesce(max(n), 0) + 1 FROM targets WHERE run = $1), $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (run, key) DO UPDATE
        SET state = excluded.state, outcome = excluded.outcome, shown = excluded.shown, vm = excluded.vm";
    let (host, vm, uuid) = (host.as_deref(), vm.as_deref(), uuid.as_deref());
    let is_shown = outcome.is_some();
    db.execute(statement, values![run, key, host, vm, uuid, is_from_begin, state, outcome, is_shown]).await?;
    Ok(())
}

async fn write_events(
    db: &mut Db,
    run: i64,
    events: &[EventRow],
    ending: Option<&Ending>,
    now: i64,
) -> Result<i64, Error> {
    for EventRow { seq, word, data, outcome_of } in events {
        let statement = "INSERT INTO events (run, seq, word, data) VALUES ($1, $2, $3, $4)
            ON CONFLICT (run, seq) DO NOTHING";
        db.execute(statement, values![run, *seq, *word, data]).await?;
        let Some(target) = outcome_of else { continue };
        // A target of the run has its outcome, which stays as it was recorded, or gets it here: it was never started, or the disk was
        // full. Others were settled when the run was planned.
        let statement = "UPDATE targets SET state = 'finished', shown = TRUE,
            outcome = CASE WHEN state = 'finished' AND NOT shown THEN outcome ELSE $3 END
            WHERE run = $1 AND key = $2 AND state <> 'settled'";
        if db.execute(statement, values![run, &target.key, data]).await? == 0 {
            insert(db, run, target, "settled", Some(data), false).await?;
        }
    }
    if let Some(Ending { state, statistics, stop_reason }) = ending {
        let statement =
            "UPDATE runs SET state = $2, ended = $3, statistics = $4, stop_reason = $5 WHERE id = $1";
        db.execute(statement, values![run, *state, now, statistics, stop_reason.as_deref()]).await?;
    }
    Ok(i64::try_from(events.len()).unwrap_or(i64::MAX))
}
