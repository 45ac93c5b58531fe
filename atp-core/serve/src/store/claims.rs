//! The rows of a run that several controllers work on: starts, outcomes, and the end.
//!
//! Each transaction locks the run's row first. So its limits hold over all controllers, and its events have one order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atp_api::{ErrorKind, Outcome, OutcomeError, Policy, RunEvent, RunStatistics, Status, StopReason};
use atp_cluster::Claim;
use atp_executor::{RecordedTarget, Target};
use atp_transport::HostId;
use serde::{Deserialize, Serialize};
use sqlx::Error;
use uuid::Uuid;

use super::StoreError;
use super::link::Link;
use super::read::recorded;
use super::recover;
use super::sql::{Db, DbRow, storable, values};

/// The most targets that are skipped, or given up, in a transaction.
const SOME: i64 = 200;

/// The bytes of outcomes after which no more are put into a statement: a server takes less than 1 GB, and has its time for each.
const MOST_BYTES: usize = 4 << 20;

/// How long no controller has known a host until its targets are settled, milliseconds: longer than a controller takes to
/// start again.
const UNKNOWN: i64 = 60_000;

/// What a controller needs to work on a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SharedRun {
    pub(crate) request: atp_api::RunRequest,
    pub(crate) placements: atp_executor::Placements,
    /// The time that a target has, with the grace after it, milliseconds.
    pub(crate) target_ms: i64,
    /// The number of targets and of failures of the planning, for shares of them.
    pub(crate) targets: usize,
    pub(crate) failed_before: usize,
    /// The targets whose changes of before are undone first, as [`Plan::to_undo`](atp_executor::Plan::to_undo).
    pub(crate) to_undo: BTreeSet<(HostId, Option<Uuid>)>,
}

/// A target that was started for this controller.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) run: i64,
    pub(crate) key: String,
    pub(crate) claim: Claim,
    pub(crate) target: Target,
    /// What is left of the time for the whole run.
    pub(crate) run_left: Option<Duration>,
}

/// An outcome that a controller has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) run: i64,
    pub(crate) key: String,
    pub(crate) controller: String,
    pub(crate) epoch: i64,
    pub(crate) number: i64,
    pub(crate) outcome: Outcome,
}

/// What a look at a run has led to.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) started: Vec<Started>,
    /// Whether targets under way are to be cancelled.
    pub(crate) is_aborted: bool,
    /// Whether there is more to do at once.
    pub(crate) has_more: bool,
}

/// Who looks, and what it may start.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) controller: &'a str,
    pub(crate) number: i64,
    /// The hosts of which targets may be started, with their epochs, as JSON.
    pub(crate) startable: &'a str,
    pub(crate) slack_ms: i64,
    /// Whether targets of hosts that no controller knows any more are settled.
    pub(crate) settles_unknown: bool,
    /// Why the controller cannot do the operation: then this is the outcome of what it would start.
    pub(crate) refused: Option<&'a OutcomeError>,
}

impl Link {
    /// The runs under way, each with when it was begun, or resumed last.
    pub(crate) async fn under_way(&mut self) -> Result<Vec<(i64, i64)>, StoreError> {
        let mut db = self.begin().await?;
        let made = async {
            let statement =
                "SELECT id, begun FROM runs WHERE state = 'running' AND shared IS NOT NULL ORDER BY id";
            let rows = db.rows(statement, values![]).await?;
            rows.iter().map(|row| Ok((row.int("id")?, row.int("begun")?))).collect()
        };
        let made = made.await;
        self.end(db, made).await
    }

    /// What is needed to work on a run; none if it has ended.
    pub(crate) async fn shared(&mut self, run: i64) -> Result<Option<SharedRun>, StoreError> {
        let mut db = self.begin().await?;
        let made = shared(&mut db, run).await;
        self.end(db, made).await
    }

    /// Does what there is to do for a run: ends it early or at its end, gives up what a lost controller had started, and
    /// starts targets.
    pub(crate) async fn look(&mut self, run: i64, look: &Look<'_>) -> Result<Looked, StoreError> {
        let mut db = self.begin().await?;
        let made = self::look(&mut db, run, look).await;
        self.end(db, made).await
    }

    /// Records outcomes, all of one run: all of them, or the first ones if they are large. Returns how many. Those of targets that
    /// have one already are passed over.
    pub(crate) async fn finish(&mut self, run: i64, outcomes: &[Finished]) -> Result<usize, StoreError> {
        let mut db = self.begin().await?;
        let made = finish(&mut db, run, outcomes).await;
        self.end(db, made).await
    }

    /// The targets that are started by this controller, as the database knows: run, key and claim.
    pub(crate) async fn started_by(
        &mut self,
        controller: &str,
    ) -> Result<Vec<(i64, String, Claim)>, StoreError> {
        let mut db = self.begin().await?;
        let made = async {
            let statement =
                "SELECT run, key, epoch, claim FROM targets WHERE owner = $1 AND state = 'started'";
            let rows = db.rows(statement, values![controller]).await?;
            let read = rows.iter().map(|row| {
                let claim = Claim {
                    controller: controller.to_owned(),
                    epoch: row.int("epoch")?,
                    number: row.int("claim")?,
                };
                Ok((row.int("run")?, row.text("key")?, claim))
            });
            read.collect()
        };
        let made = made.await;
        self.end(db, made).await
    }

    /// The runs that this controller is to plan, as the database knows.
    pub(crate) async fn planned_by(&mut self, controller: &str) -> Result<Vec<i64>, StoreError> {
        let mut db = self.begin().await?;
        let statement = "SELECT id FROM runs WHERE state = 'planning' AND planner = $1";
        let rows = db.rows(statement, values![controller]).await;
        let made = rows.and_then(|rows| rows.iter().map(|row| row.int("id")).collect());
        self.end(db, made).await
    }

    /// Forgets a run that this controller was to plan.
    pub(crate) async fn forget_planned(&mut self, controller: &str, run: i64) -> Result<(), StoreError> {
        let mut db = self.begin().await?;
        let statement = "DELETE FROM runs WHERE id = $1 AND state = 'planning' AND planner = $2";
        let made = db.execute(statement, values![run, controller]).await;
        self.end(db, made).await.map(drop)
    }

    /// Ends a run whose rows cannot be worked on, as one that was interrupted: it is shown so, and can be resumed.
    pub(crate) async fn interrupt(&mut self, run: i64) -> Result<(), StoreError> {
        let mut db = self.begin().await?;
        let made = interrupt(&mut db, run).await;
        self.end(db, made).await
    }

    /// Lets targets wait again for which nothing was sent.
    pub(crate) async fn put_back(&mut self, started: &[(i64, String, Claim)]) -> Result<(), StoreError> {
        let mut db = self.begin().await?;
        let made = async {
            for (run, key, Claim { controller, epoch, number }) in started {
                let statement = "UPDATE targets SET state = 'waiting', owner = NULL, epoch = NULL, claim = NULL, due = NULL
                    WHERE run = $1 AND key = $2 AND state = 'started' AND owner = $3 AND epoch = $4 AND claim = $5";
                db.execute(statement, values![*run, key, controller, *epoch, *number]).await?;
            }
            db.execute("SELECT pg_notify('atp', 'run')", values![]).await
        };
        let made = made.await;
        self.end(db, made).await.map(drop)
    }
}

async fn shared(db: &mut Db, run: i64) -> Result<Option<SharedRun>, Error> {
    let statement = "SELECT shared FROM runs WHERE id = $1 AND state = 'running'";
    let Some(row) = db.row(statement, values![run]).await? else { return Ok(None) };
    row.some_text("shared")?.map(|text| decoded(&text)).transpose()
}

/// A run whose row is locked.
struct Locked {
    run: i64,
    op: String,
    policy: Policy,
    shared: SharedRun,
    halt: Option<StopReason>,
    statistics: RunStatistics,
    seq: i64,
    now: i64,
    begun: i64,
    deadline: Option<i64>,
}

async fn lock(db: &mut Db, run: i64) -> Result<Option<Locked>, Error> {
    let statement = "SELECT op, shared, halt, statistics, begun, deadline, atp_now() AS now FROM runs
        WHERE id = $1 AND state = 'running' AND shared IS NOT NULL FOR UPDATE";
    let Some(row) = db.row(statement, values![run]).await? else { return Ok(None) };
    let shared: SharedRun = decoded(&row.text("shared")?)?;
    let seq = db.number("SELECT coalesce(max(seq), 0) FROM events WHERE run = $1", values![run]).await?;
    Ok(Some(Locked {
        run,
        op: row.text("op")?,
        policy: shared.request.policy.clone(),
        shared,
        halt: row.some_text("halt")?.map(|text| decoded(&text)).transpose()?,
        statistics: row.some_text("statistics")?.map(|text| decoded(&text)).transpose()?.unwrap_or_default(),
        seq,
        now: row.int("now")?,
        begun: row.some_int("begun")?.unwrap_or_default(),
        deadline: row.some_int("deadline")?,
    }))
}

impl Locked {
    async fn event(&mut self, db: &mut Db, word: &str, event: &RunEvent) -> Result<(), Error> {
        self.events(db, word, &[encoded(event)?]).await
    }

    /// Adds events, JSON, in this order.
    async fn events(&mut self, db: &mut Db, word: &str, events: &[String]) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let statement = "INSERT INTO events (run, seq, word, data)
            SELECT $1, $2 + ordinality, $3, value
            FROM json_array_elements_text(CAST($4 AS JSON)) WITH ORDINALITY";
        let count = db.execute(statement, values![self.run, self.seq, word, &encoded(&events)?]).await?;
        self.seq += count;
        Ok(())
    }

    /// Gives a target its outcome, which its guard was met for.
    async fn outcome(&mut self, db: &mut Db, key: &str, outcome: Outcome) -> Result<(), Error> {
        let statement = "UPDATE targets SET state = 'finished', outcome = $3, shown = TRUE, failed = $4
            WHERE run = $1 AND key = $2 AND state IN ('waiting', 'started')";
        let has_failed = is_failure(outcome.status);
        let changed = db.execute(statement, values![self.run, key, &encoded(&outcome)?, has_failed]).await?;
        if changed > 0 {
            self.statistics.add(&outcome);
            self.event(db, "finished", &RunEvent::Finished(Box::new(outcome))).await?;
        }
        Ok(())
    }

    /// Gives a target that was started the outcome that nothing is known.
    async fn lost(&mut self, db: &mut Db, row: &DbRow) -> Result<(), Error> {
        let Some(mut outcome) = recorded(row)?.unknown(&self.op) else { return Ok(()) };
        if let Some(error) = &mut outcome.error {
            let message = "it was started by a controller that was lost, or cut off, before it told the outcome; it is \
                           not repeated";
            message.clone_into(&mut error.message);
        }
        self.outcome(db, &row.text("key")?, outcome).await
    }

    /// Writes the numbers, and wakes those who follow the run.
    async fn save(self, db: &mut Db) -> Result<(), Error> {
        let statement = "UPDATE runs SET statistics = $2 WHERE id = $1";
        db.execute(statement, values![self.run, &encoded(&self.statistics)?]).await?;
        db.execute("SELECT pg_notify('atp', 'run')", values![]).await?;
        Ok(())
    }

    /// Why no more targets are started, if that is so.
    async fn reason(&mut self, db: &mut Db) -> Result<Option<StopReason>, Error> {
        if self.halt.is_some() {
            return Ok(self.halt.clone());
        }
        let statement =
            "SELECT count(*) AS failures, count(*) FILTER (WHERE batch = 0) AS canary FROM targets
            WHERE run = $1 AND state = 'finished' AND failed";
        let Some(row) = db.row(statement, values![self.run]).await? else { return Ok(None) };
        let failures = usize::try_from(row.int("failures")?).unwrap_or_default() + self.shared.failed_before;
        let most = self.policy.max_failures;
        let most = most.map(|most| most.of(self.shared.targets + self.shared.failed_before));
        let reason = if self.policy.serial.is_some() && row.int("canary")? > 0 {
            StopReason::CanaryFailed
        } else if most.is_some_and(|most| failures >= most) {
            StopReason::MaxFailures { failures }
        } else if self.deadline.is_some_and(|deadline| deadline <= self.now) {
            StopReason::DeadlinePassed
        } else {
            return Ok(None);
        };
        let statement = "UPDATE runs SET halt = $2 WHERE id = $1";
        db.execute(statement, values![self.run, &encoded(&reason)?]).await?;
        Ok(Some(reason))
    }
}

async fn look(db: &mut Db, run: i64, look: &Look<'_>) -> Result<Looked, Error> {
    let Some(mut locked) = lock(db, run).await? else { return Ok(Looked::default()) };
    let mut looked = Looked::default();
    let mut given_up = give_up(db, &mut locked, look).await?;
    if look.settles_unknown {
        given_up |= settle_unknown(db, &mut locked, look).await?;
    }
    if let Some(reason) = locked.reason(db).await? {
        looked.is_aborted = reason == StopReason::Aborted;
        let statement = "SELECT n, key, host, vm, uuid, from_begin, state, outcome FROM targets
            WHERE run = $1 AND state = 'waiting' ORDER BY n LIMIT $2";
        let rows = db.rows(statement, values![run, SOME]).await?;
        let announced = "UPDATE runs SET stop_reason = $2 WHERE id = $1 AND stop_reason IS NULL";
        if !rows.is_empty() && db.execute(announced, values![run, &encoded(&reason)?]).await? > 0 {
            locked.event(db, "stopping", &RunEvent::Stopping(reason.clone())).await?;
        }
        for row in &rows {
            let target = recorded(row)?;
            let error = OutcomeError::new(reason.kind(), format!("not started: {reason}")).retryable();
            let outcome = Outcome::not_started(locked.op.clone(), Status::Skipped);
            let outcome = named(&target, Outcome { error: Some(error), ..outcome });
            locked.outcome(db, &row.text("key")?, outcome).await?;
        }
        looked.has_more = rows.len() as i64 == SOME;
    } else if let Some(error) = look.refused {
        looked.has_more = refuse(db, &mut locked, look, error).await?;
    } else {
        looked.started = start(db, &mut locked, look).await?;
    }
    let left = "SELECT count(*) FROM (
        SELECT 1 FROM targets WHERE run = $1 AND state IN ('waiting', 'started') LIMIT 1) AS found";
    let has_ended = db.number(left, values![run]).await? == 0;
    if has_ended {
        locked.statistics.duration_ms = u64::try_from(locked.now - locked.begun).unwrap_or_default();
        let statistics = locked.statistics.clone();
        locked.event(db, "ended", &RunEvent::Ended(Box::new(statistics))).await?;
        // What the operation's parameters hold is not kept longer than it is needed.
        let statement = "UPDATE runs SET state = 'ended', ended = atp_now(), shared = NULL WHERE id = $1";
        db.execute(statement, values![run]).await?;
    }
    if has_ended || given_up || looked.has_more || !looked.started.is_empty() {
        locked.save(db).await?;
    }
    Ok(looked)
}

/// Gives up targets of the look's controller's hosts that an earlier owner had started and has no outcome of, after their
/// deadlines and the slack of clocks.
async fn give_up(db: &mut Db, locked: &mut Locked, look: &Look<'_>) -> Result<bool, Error> {
    let statement = "SELECT t.n, t.key, t.host, t.vm, t.uuid, t.from_begin, t.state, t.outcome
        FROM targets AS t JOIN host_lease AS l ON l.daemon = t.host
        WHERE t.run = $1 AND t.state = 'started' AND t.epoch < l.epoch AND l.controller = $2
            AND t.due + $3 < atp_now()
        ORDER BY t.n LIMIT $4";
    let rows = db.rows(statement, values![locked.run, look.controller, look.slack_ms, SOME]).await?;
    for row in &rows {
        locked.lost(db, row).await?;
    }
    Ok(!rows.is_empty())
}

/// Settles targets of hosts that no controller has known for a while: no lease would ever be taken.
async fn settle_unknown(db: &mut Db, locked: &mut Locked, look: &Look<'_>) -> Result<bool, Error> {
    let statement = "SELECT t.n, t.key, t.host, t.vm, t.uuid, t.from_begin, t.state, t.outcome FROM targets AS t
        WHERE t.run = $1 AND (t.state = 'waiting' OR (t.state = 'started' AND t.due + $2 < atp_now()))
            AND NOT EXISTS (SELECT 1 FROM host_lease AS l WHERE l.daemon = t.host AND l.expires > atp_now() - $3)
            AND NOT EXISTS (
                SELECT 1 FROM controllers AS c, json_array_elements_text(CAST(c.hosts AS JSON)) AS known
                WHERE c.expires > atp_now() AND known.value = t.host)
            AND (SELECT begun FROM runs WHERE id = $1) < atp_now() - $3
        ORDER BY t.n LIMIT $4";
    let rows = db.rows(statement, values![locked.run, look.slack_ms, UNKNOWN, SOME]).await?;
    for row in &rows {
        if row.text("state")? == "started" {
            locked.lost(db, row).await?;
            continue;
        }
        let target = recorded(row)?;
        let problem = format!("not started: no controller has a host {:?} any more", target.host.as_str());
        let error = OutcomeError::new(ErrorKind::UnknownHost, problem);
        let outcome = Outcome::not_started(locked.op.clone(), Status::Skipped);
        let outcome = named(&target, Outcome { error: Some(error), ..outcome });
        locked.outcome(db, &row.text("key")?, outcome).await?;
    }
    Ok(!rows.is_empty())
}

/// Gives targets that wait on the hosts of the look's controller this error. Returns whether there may be more.
async fn refuse(
    db: &mut Db,
    locked: &mut Locked,
    look: &Look<'_>,
    error: &OutcomeError,
) -> Result<bool, Error> {
    let statement = "SELECT t.n, t.key, t.host, t.vm, t.uuid, t.from_begin, t.state, t.outcome
        FROM targets AS t JOIN host_lease AS l ON l.daemon = t.host
        JOIN json_each_text(CAST($2 AS JSON)) AS m ON m.key = l.daemon AND CAST(m.value AS BIGINT) = l.epoch
        WHERE t.run = $1 AND t.state = 'waiting' AND l.controller = $3 AND l.expires > (SELECT atp_now())
        ORDER BY t.n LIMIT $4";
    let rows = db.rows(statement, values![locked.run, look.startable, look.controller, SOME]).await?;
    for row in &rows {
        let outcome = Outcome::not_started(locked.op.clone(), Status::Failed);
        let outcome = named(&recorded(row)?, Outcome { error: Some(error.clone()), ..outcome });
        locked.outcome(db, &row.text("key")?, outcome).await?;
    }
    Ok(!rows.is_empty())
}

async fn start(db: &mut Db, locked: &mut Locked, look: &Look<'_>) -> Result<Vec<Started>, Error> {
    let Look { controller, number, startable, .. } = *look;
    let run = locked.run;
    if startable == "{}" {
        return Ok(Vec::new());
    }
    let parallel = i64::try_from(locked.policy.parallel.max(1)).unwrap_or(i64::MAX);
    // What an earlier owner had started is limited by what it could start; it does not hold others back.
    let statement =
        "SELECT count(*) FROM targets AS t JOIN host_lease AS l ON l.daemon = t.host AND l.epoch = t.epoch
        WHERE t.run = $1 AND t.state = 'started'";
    let free = parallel - db.number(statement, values![run]).await?;
    if free <= 0 {
        return Ok(Vec::new());
    }
    let per_host =
        locked.policy.per_host.map_or(parallel, |most| i64::try_from(most.max(1)).unwrap_or(i64::MAX));
    let statement = "WITH open AS (
            SELECT min(batch) AS batch FROM targets WHERE run = $1 AND state IN ('waiting', 'started')
        ), hosts AS (
            SELECT l.daemon AS host, l.controller, l.epoch,
                count(*) FILTER (WHERE t.state = 'started' AND t.epoch = l.epoch) AS busy,
                count(*) FILTER (WHERE t.state = 'waiting') AS waiting
            FROM targets AS t JOIN open ON open.batch = t.batch JOIN host_lease AS l ON l.daemon = t.host
            WHERE t.run = $1 AND t.state IN ('waiting', 'started')
                AND l.controller IS NOT NULL AND l.expires > (SELECT atp_now())
            GROUP BY l.daemon
        ), mine AS (
            SELECT hosts.host, hosts.epoch, hosts.busy
            FROM json_each_text(CAST($2 AS JSON)) AS m
            JOIN hosts ON hosts.host = m.key AND hosts.epoch = CAST(m.value AS BIGINT)
            WHERE hosts.controller = $3
        ), share AS (
            -- Of the places, those in proportion to what could be under way on a controller's hosts.
            SELECT coalesce(sum(busy) FILTER (WHERE controller = $3), 0) AS busy,
                ceil($8 * coalesce(sum(least(busy + waiting, $4)) FILTER (WHERE controller = $3), 0)
                    / greatest(sum(least(busy + waiting, $4)), 1)) AS most
            FROM hosts
        ), next AS (
            SELECT t.key, t.n, mine.epoch,
                mine.busy + row_number() OVER (PARTITION BY t.host ORDER BY t.n) AS place
            FROM targets AS t JOIN mine ON mine.host = t.host JOIN open ON open.batch = t.batch
            WHERE t.run = $1 AND t.state = 'waiting'
        ), chosen AS (
            SELECT key, epoch FROM next WHERE place <= $4 ORDER BY place, n
            LIMIT (SELECT CAST(greatest(least($5, most - busy), 0) AS BIGINT) FROM share)
        )
        UPDATE targets SET state = 'started', owner = $3, epoch = chosen.epoch, claim = $6, due = atp_now() + $7
        FROM chosen WHERE targets.run = $1 AND targets.key = chosen.key AND targets.state = 'waiting'
        RETURNING targets.key, targets.host, targets.domain, targets.epoch";
    let due = locked.shared.target_ms;
    let parameters = values![run, startable, controller, per_host, free, number, due, parallel];
    let rows = db.rows(statement, parameters).await?;
    let left = locked.deadline.map(|deadline| u64::try_from(deadline - locked.now).unwrap_or_default());
    let (mut started, mut events) = (Vec::new(), Vec::new());
    for row in rows {
        let host: HostId = row.text("host")?.parse().map_err(|error| Error::Decode(Box::new(error)))?;
        let domain = row.some_text("domain")?.map(|text| decoded(&text)).transpose()?;
        let target = Target { host, domain };
        let event = RunEvent::Started { host: target.host.clone(), vm: target.vm().map(str::to_owned) };
        events.push(encoded(&event)?);
        started.push(Started {
            run,
            key: row.text("key")?,
            claim: Claim { controller: controller.to_owned(), epoch: row.int("epoch")?, number },
            target,
            run_left: left.map(Duration::from_millis),
        });
    }
    locked.events(db, "started", &events).await?;
    Ok(started)
}

async fn finish(db: &mut Db, run: i64, outcomes: &[Finished]) -> Result<usize, Error> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for Finished { key, controller, epoch, number, outcome, .. } in outcomes {
        let json = encoded(outcome)?;
        bytes += json.len();
        rows.push(serde_json::json!({
            "n": rows.len(),
            "key": storable(key),
            "controller": controller,
            "epoch": epoch,
            "number": number,
            "outcome": json,
            "failed": is_failure(outcome.status),
        }));
        if bytes >= MOST_BYTES {
            break;
        }
    }
    let Some(mut locked) = lock(db, run).await? else { return Ok(outcomes.len()) };
    let statement =
        "UPDATE targets SET state = 'finished', outcome = f.outcome, shown = TRUE, failed = f.failed
        FROM json_to_recordset(CAST($2 AS JSON)) AS f
            (n BIGINT, key TEXT, controller TEXT, epoch BIGINT, number BIGINT, outcome TEXT, failed BOOLEAN)
        WHERE targets.run = $1 AND targets.key = f.key AND targets.state = 'started'
            AND targets.owner = f.controller AND targets.epoch = f.epoch AND targets.claim = f.number
        RETURNING f.n";
    let changed = db.rows(statement, values![run, &encoded(&rows)?]).await?;
    let changed: BTreeSet<_> = changed.iter().map(|row| row.int("n")).collect::<Result<_, _>>()?;
    let count = rows.len();
    let mut events = Vec::new();
    for (_, Finished { outcome, .. }) in (0..).zip(outcomes).take(count).filter(|(n, _)| changed.contains(n))
    {
        locked.statistics.add(outcome);
        events.push(encoded(&RunEvent::Finished(Box::new(outcome.clone())))?);
    }
    locked.events(db, "finished", &events).await?;
    locked.save(db).await?;
    Ok(count)
}

async fn interrupt(db: &mut Db, run: i64) -> Result<(), Error> {
    let statement = "SELECT op, atp_now() AS now FROM runs WHERE id = $1 AND state = 'running' FOR UPDATE";
    let Some(row) = db.row(statement, values![run]).await? else { return Ok(()) };
    recover::interrupt(db, run, &row.text("op")?, row.int("now")?).await?;
    // What is still under way may have been started: it is no controller's to put back, and has its outcome.
    let statement =
        "UPDATE targets SET owner = NULL, epoch = NULL, claim = NULL WHERE run = $1 AND state = 'started'";
    db.execute(statement, values![run]).await?;
    db.execute("SELECT pg_notify('atp', 'run')", values![]).await?;
    Ok(())
}

fn named(target: &RecordedTarget, outcome: Outcome) -> Outcome {
    Outcome { host: Some(target.host.clone()), vm: target.vm.clone(), uuid: target.uuid, ..outcome }
}

fn is_failure(status: Status) -> bool {
    matches!(status, Status::Failed | Status::Timeout | Status::Unreachable)
}

fn encoded<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Encode(Box::new(error)))
}

fn decoded<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Decode(Box::new(error)))
}

/// The hosts of which targets may be started, as [`Look`] has them.
pub(crate) fn startable<'a>(leases: impl Iterator<Item = (&'a str, i64)>) -> String {
    let map: BTreeMap<_, _> = leases.map(|(host, epoch)| (host, epoch.to_string())).collect();
    serde_json::to_string(&map).unwrap_or_else(|_| "{}".to_owned())
}
