//! What is read from the store.

use std::str::FromStr as _;

use atp_api::serve::{RunState, RunSummary};
use atp_api::{Outcome, RunRequest};
use atp_executor::{RecordedTarget, RunHead};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, FromRow, Row as _};

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

const RUN: &str = "SELECT id, op, by, state, created, ended, targets, statistics, stop_reason, request, head FROM runs WHERE id = ?";
const RUNS: &str = "SELECT id, op, by, state, created, ended, targets, statistics, stop_reason, NULL AS request, NULL AS head
    FROM runs WHERE id < ? AND (? IS NULL OR by = ?) ORDER BY id DESC LIMIT ?";

impl FromRow<'_, SqliteRow> for RunRow {
    fn from_row(row: &SqliteRow) -> Result<Self, Error> {
        let (id, by): (i64, String) = (row.try_get("id")?, row.try_get("by")?);
        let state: String = row.try_get("state")?;
        let summary = RunSummary {
            id: u64::try_from(id).unwrap_or_default(),
            op: row.try_get("op")?,
            by: by.clone(),
            state: RunState::from_str(&state).unwrap_or(RunState::Interrupted),
            created: time(row.try_get("created")?),
            ended: row.try_get::<Option<i64>, _>("ended")?.map(time),
            targets: row.try_get::<Option<i64>, _>("targets")?.and_then(|count| u64::try_from(count).ok()),
            statistics: json(row, "statistics")?,
            stop_reason: json(row, "stop_reason")?,
        };
        Ok(RunRow { id, by, summary, request: json(row, "request")?, head: json(row, "head")? })
    }
}

impl Store {
    /// A run, if there is one of this id.
    pub(crate) async fn run(&self, run: i64) -> Result<Option<RunRow>, StoreError> {
        let read = sqlx::query_as(RUN).bind(run).fetch_optional(&self.readers).await;
        read.map_err(|error| self.failed(error))
    }

    /// The newest runs before one; with `by`, those of one token.
    pub(crate) async fn runs(
        &self,
        before: i64,
        by: Option<&str>,
        limit: i64,
    ) -> Result<Vec<RunRow>, StoreError> {
        let read = sqlx::query_as(RUNS).bind(before).bind(by).bind(by).bind(limit);
        read.fetch_all(&self.readers).await.map_err(|error| self.failed(error))
    }

    /// The plan of a run, JSON.
    pub(crate) async fn plan(&self, run: i64) -> Result<Option<String>, StoreError> {
        let read = sqlx::query_scalar::<_, Option<String>>("SELECT plan FROM runs WHERE id = ?").bind(run);
        let plan = read.fetch_optional(&self.readers).await.map_err(|error| self.failed(error))?;
        Ok(plan.flatten())
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
                FROM (SELECT seq, word, data FROM events WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?)
            ) WHERE before < 1000000 ORDER BY seq";
        let read = sqlx::query_as(statement).bind(run).bind(after).bind(limit);
        read.fetch_all(&self.readers).await.map_err(|error| self.failed(error))
    }

    /// The number of the last event of a run.
    pub(crate) async fn last_event(&self, run: i64) -> Result<i64, StoreError> {
        let statement = "SELECT coalesce(max(seq), 0) FROM events WHERE run = ?";
        let read = sqlx::query_scalar(statement).bind(run).fetch_one(&self.readers).await;
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
            WHERE run = ? AND n > ? AND host IS NOT NULL AND state <> 'settled' ORDER BY n LIMIT ?";
        let read = sqlx::query(statement).bind(run).bind(after).bind(limit).fetch_all(&self.readers).await;
        let rows = read.map_err(|error| self.failed(error))?;
        let read = rows.iter().map(|row| Ok((row.try_get("n")?, recorded(row)?)));
        read.collect::<Result<_, _>>().map_err(|error| self.failed(error))
    }

    /// Outcomes of a run after the one of this number, each with its number, in the order of the plan. Of a target that was
    /// started and has none the outcome is unknown, if the run is not under way.
    pub(crate) async fn outcomes(
        &self,
        run: &RunRow,
        after: i64,
        limit: i64,
    ) -> Result<Vec<(i64, Outcome)>, StoreError> {
        let has_ended = matches!(run.summary.state, RunState::Ended | RunState::Interrupted);
        let statement = "SELECT n, host, vm, uuid, from_begin, state, outcome FROM targets
            WHERE run = ? AND n > ? AND (outcome IS NOT NULL OR (? AND state = 'started')) ORDER BY n LIMIT ?";
        let read = sqlx::query(statement).bind(run.id).bind(after).bind(has_ended).bind(limit);
        let rows = read.fetch_all(&self.readers).await.map_err(|error| self.failed(error))?;
        let read = rows.iter().map(|row| {
            let outcome = match json(row, "outcome")? {
                Some(outcome) => Some(outcome),
                None => recorded(row)?.unknown(&run.summary.op),
            };
            Ok(outcome.map(|outcome| Ok::<_, Error>((row.try_get("n")?, outcome))))
        });
        let outcomes = read.filter_map(|outcome: Result<_, Error>| outcome.transpose().map(Result::flatten));
        outcomes.collect::<Result<_, _>>().map_err(|error| self.failed(error))
    }
}

/// A row as a target; one without a host is none.
pub(super) fn recorded(row: &SqliteRow) -> Result<RecordedTarget, Error> {
    let text = |name: &str| row.try_get::<Option<String>, _>(name);
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| Error::Decode(error);
    let host = text("host")?.unwrap_or_default().parse().map_err(|error| decode(Box::new(error)))?;
    let uuid = text("uuid")?.map(|uuid| uuid.parse()).transpose();
    let state: String = row.try_get("state")?;
    Ok(RecordedTarget {
        host,
        vm: text("vm")?,
        uuid: uuid.map_err(|error: uuid::Error| decode(Box::new(error)))?,
        is_from_begin: row.try_get("from_begin")?,
        was_started: state != "waiting",
        outcome: json(row, "outcome")?,
    })
}

fn json<T: DeserializeOwned>(row: &SqliteRow, name: &str) -> Result<Option<T>, Error> {
    let Some(text) = row.try_get::<Option<String>, _>(name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| Error::Decode(Box::new(error)))
}

fn time(millis: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
