//! What is read from the store.

use std::str::FromStr as _;

use atp_api::serve::{RunState, RunSummary};
use atp_api::{Outcome, RunRequest};
use atp_executor::{RecordedTarget, RunHead};
use serde::de::DeserializeOwned;
use sqlx::Error;

use super::sql::{DbRow, Readers, values};
use super::{Store, StoreError};

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) id: i64,
    pub(crate) by: String,
    pub(crate) summary: RunSummary,
    /// The request, where it was kept.
    pub(crate) request: Option<RunRequest>,
    /// What a resume needs to know; none before it has begun.
    pub(crate) head: Option<RunHead>,
}

const RUN: &str = "SELECT id, op, by, state, created, ended, targets, statistics, stop_reason, request, head FROM runs WHERE id = $1";
const RUNS: &str = "SELECT id, op, by, state, created, ended, targets, statistics, stop_reason, CAST(NULL AS TEXT) AS request, CAST(NULL AS TEXT) AS head
    FROM runs WHERE id < $1 AND (CAST($2 AS TEXT) IS NULL OR by = CAST($2 AS TEXT)) ORDER BY id DESC LIMIT $3";

/// The bytes of outcomes after which no more are read at a time.
const MOST_READ: usize = 16 << 20;

/// Rows of outcomes that are read at a time.
const ROWS_READ: i64 = 8;

/// Outcomes of a run.
#[derive(Debug)]
pub(crate) struct OutcomesRead {
    /// Each with its number.
    pub(crate) outcomes: Vec<(i64, Outcome)>,
    /// Whether there are no more after them.
    pub(crate) is_all: bool,
}

impl RunRow {
    fn of(row: &DbRow) -> Result<Self, Error> {
        let (id, by) = (row.int("id")?, row.text("by")?);
        let state = row.text("state")?;
        let summary = RunSummary {
            id: u64::try_from(id).unwrap_or_default(),
            op: row.text("op")?,
            by: by.clone(),
            state: RunState::from_str(&state).unwrap_or(RunState::Interrupted),
            created: time(row.int("created")?),
            ended: row.some_int("ended")?.map(time),
            targets: row.some_int("targets")?.and_then(|count| u64::try_from(count).ok()),
            statistics: json(row, "statistics")?,
            stop_reason: json(row, "stop_reason")?,
            resumed_after: None,
        };
        Ok(RunRow { id, by, summary, request: json(row, "request")?, head: json(row, "head")? })
    }
}

impl Store {
    /// The time by which the store counts the ends of what it keeps, milliseconds since 1970: a database's own, as several services
    /// may use it; otherwise `steady`, the service's.
    pub(crate) async fn now(&self, steady: i64) -> Result<i64, StoreError> {
        let Readers::Postgres(_) = self.readers else { return Ok(steady) };
        let read = self.readers.row("SELECT atp_now() AS now", values![]).await;
        let now = read.and_then(|row| row.ok_or(Error::RowNotFound)?.int("now"));
        now.map_err(|error| self.failed(error))
    }

    /// A run, if there is one of this id.
    pub(crate) async fn run(&self, run: i64) -> Result<Option<RunRow>, StoreError> {
        let read = self.readers.row(RUN, values![run]).await;
        let read = read.and_then(|row| row.map(|row| RunRow::of(&row)).transpose());
        read.map_err(|error| self.failed(error))
    }

    /// The newest runs before one; with `by`, those of one token.
    pub(crate) async fn runs(
        &self,
        before: i64,
        by: Option<&str>,
        limit: i64,
    ) -> Result<Vec<RunRow>, StoreError> {
        let rows = self.readers.rows(RUNS, values![before, by, limit]).await;
        let read = rows.and_then(|rows| rows.iter().map(RunRow::of).collect());
        read.map_err(|error| self.failed(error))
    }

    /// The plan of a run, JSON.
    pub(crate) async fn plan(&self, run: i64) -> Result<Option<String>, StoreError> {
        let read = self.readers.row("SELECT plan FROM runs WHERE id = $1", values![run]).await;
        let plan = read.and_then(|row| row.map(|row| row.some_text("plan")).transpose());
        Ok(plan.map_err(|error| self.failed(error))?.flatten())
    }

    /// Events of a run after one: number, word and data of each. At most as many as are a megabyte together, and at least
    /// one if there is one.
    pub(crate) async fn events(
        &self,
        run: i64,
        after: i64,
        limit: i64,
    ) -> Result<Vec<(i64, String, String)>, StoreError> {
        // The sum of sizes before an event, so that a stream holds no more than about that in memory.
        let statement = "SELECT seq, word, data FROM (
                SELECT seq, word, data, sum(length(data)) OVER (ORDER BY seq) - length(data) AS before
                FROM (SELECT seq, word, data FROM events WHERE run = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS next
            ) AS sized WHERE before < 1000000 ORDER BY seq";
        let rows = self.readers.rows(statement, values![run, after, limit]).await;
        let event = |row: &DbRow| Ok((row.int("seq")?, row.text("word")?, row.text("data")?));
        let read = rows.and_then(|rows| rows.iter().map(event).collect());
        read.map_err(|error| self.failed(error))
    }

    /// The number of the last event of a run.
    pub(crate) async fn last_event(&self, run: i64) -> Result<i64, StoreError> {
        let statement = "SELECT coalesce(max(seq), 0) AS n FROM events WHERE run = $1";
        let read = self.readers.row(statement, values![run]).await;
        let read = read.and_then(|row| row.map_or(Ok(0), |row| row.int("n")));
        read.map_err(|error| self.failed(error))
    }

    /// Targets of a run after the one of this number, each with its number, in the order of the plan.
    pub(crate) async fn targets(
        &self,
        run: i64,
        after: i64,
        limit: i64,
    ) -> Result<Vec<(i64, RecordedTarget)>, StoreError> {
        let statement = "SELECT n, host, vm, uuid, from_begin, state, outcome FROM targets
            WHERE run = $1 AND n > $2 AND host IS NOT NULL AND state <> 'settled' ORDER BY n LIMIT $3";
        let rows = self.readers.rows(statement, values![run, after, limit]).await;
        let target = |row: &DbRow| Ok((row.int("n")?, recorded(row)?));
        let read = rows.and_then(|rows| rows.iter().map(target).collect());
        read.map_err(|error| self.failed(error))
    }

    /// Whether a target of a run has its outcome, as it was recorded.
    pub(crate) async fn has_outcome(&self, run: i64, key: &str) -> Result<bool, StoreError> {
        let statement = "SELECT outcome FROM targets WHERE run = $1 AND key = $2 AND state = 'finished'";
        let read = self.readers.row(statement, values![run, key]).await;
        read.map(|row| row.is_some()).map_err(|error| self.failed(error))
    }

    /// Outcomes of a run after the one of this number, in the order of the plan: at most `limit`, and fewer if they are large. Of a
    /// target that was started and has none the outcome is unknown, if the run is not under way.
    pub(crate) async fn outcomes(
        &self,
        run: &RunRow,
        after: i64,
        limit: i64,
    ) -> Result<OutcomesRead, StoreError> {
        let has_ended = matches!(run.summary.state, RunState::Ended | RunState::Interrupted);
        let statement = "SELECT n, host, vm, uuid, from_begin, state, outcome FROM targets
            WHERE run = $1 AND n > $2 AND (outcome IS NOT NULL OR ($3 AND state = 'started')) ORDER BY n LIMIT $4";
        let (mut outcomes, mut bytes, mut last) = (Vec::new(), 0, after);
        // A few at a time, as each may be large.
        while bytes < MOST_READ && (outcomes.len() as i64) < limit {
            let some = (limit - outcomes.len() as i64).min(ROWS_READ);
            let rows = self.readers.rows(statement, values![run.id, last, has_ended, some]).await;
            let rows = rows.map_err(|error| self.failed(error))?;
            for row in &rows {
                last = row.int("n").map_err(|error| self.failed(error))?;
                bytes += row
                    .some_text("outcome")
                    .map_err(|error| self.failed(error))?
                    .map_or(0, |text| text.len());
                let outcome = match json(row, "outcome").map_err(|error| self.failed(error))? {
                    Some(outcome) => Some(outcome),
                    None => recorded(row).map_err(|error| self.failed(error))?.unknown(&run.summary.op),
                };
                outcomes.extend(outcome.map(|outcome| (last, outcome)));
            }
            if (rows.len() as i64) < some {
                return Ok(OutcomesRead { outcomes, is_all: true });
            }
        }
        Ok(OutcomesRead { outcomes, is_all: false })
    }
}

/// A row as a target; one without a host is none.
pub(super) fn recorded(row: &DbRow) -> Result<RecordedTarget, Error> {
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| Error::Decode(error);
    let host = row.some_text("host")?.unwrap_or_default().parse().map_err(|error| decode(Box::new(error)))?;
    let uuid = row.some_text("uuid")?.map(|uuid| uuid.parse()).transpose();
    let state = row.text("state")?;
    Ok(RecordedTarget {
        host,
        vm: row.some_text("vm")?,
        uuid: uuid.map_err(|error: uuid::Error| decode(Box::new(error)))?,
        is_from_begin: row.bool("from_begin")?,
        was_started: state != "waiting",
        outcome: json(row, "outcome")?,
    })
}

fn json<T: DeserializeOwned>(row: &DbRow, name: &str) -> Result<Option<T>, Error> {
    let Some(text) = row.some_text(name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| Error::Decode(Box::new(error)))
}

fn time(millis: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
