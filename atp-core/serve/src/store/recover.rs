//! What becomes of runs that were under way when the service ended.

use atp_api::{Outcome, RunEvent, RunStatistics};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, Error, Row as _, SqliteConnection};

use super::read::recorded;

/// The event that a run was interrupted, and its data.
pub(crate) const INTERRUPTED: (&str, &str) = ("interrupted", r#"{"event":"interrupted"}"#);

/// Makes runs that were under way interrupted, each as a whole: their outcomes that were recorded and not shown become
/// events, and so do the unknown outcomes of targets that were started. A run whose planning had not ended is forgotten, as
/// nothing was started, so that a client can send its request again.
pub(super) async fn recover(connection: &mut SqliteConnection, now: i64) -> Result<(), Error> {
    sqlx::query("DELETE FROM runs WHERE state = 'planning'").execute(&mut *connection).await?;
    let runs = sqlx::query_as::<_, (i64, String)>("SELECT id, op FROM runs WHERE state = 'running'");
    for (run, op) in runs.fetch_all(&mut *connection).await? {
        let mut transaction = connection.begin().await?;
        interrupt(&mut transaction, run, &op, now).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn interrupt(connection: &mut SqliteConnection, run: i64, op: &str, now: i64) -> Result<(), Error> {
    let mut statistics = RunStatistics::default();
    let mut seq: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM events WHERE run = ?")
        .bind(run)
        .fetch_one(&mut *connection)
        .await?;
    let mut last = 0;
    loop {
        let statement = "SELECT n, host, vm, uuid, from_begin, state, outcome, shown FROM targets
            WHERE run = ? AND n > ? AND state <> 'waiting' ORDER BY n LIMIT 100";
        let rows: Vec<SqliteRow> =
            sqlx::query(statement).bind(run).bind(last).fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            last = row.try_get("n")?;
            let outcome = match row.try_get::<Option<String>, _>("outcome")? {
                Some(text) => {
                    let read = serde_json::from_str::<Outcome>(&text);
                    Some(read.map_err(|error| Error::Decode(Box::new(error)))?)
                }
                None => recorded(&row)?.unknown(op),
            };
            let Some(outcome) = outcome else { continue };
            statistics.add(&outcome);
            if row.try_get("shown")? {
                continue;
            }
            seq += 1;
            let event = RunEvent::Finished(Box::new(outcome));
            event_row(connection, run, seq, "finished", &text(&event)?).await?;
            let statement = "UPDATE targets SET shown = 1 WHERE run = ? AND n = ?";
            sqlx::query(statement).bind(run).bind(last).execute(&mut *connection).await?;
        }
    }
    event_row(connection, run, seq + 1, INTERRUPTED.0, INTERRUPTED.1).await?;
    let statement = "UPDATE runs SET state = 'interrupted', ended = ?, statistics = ? WHERE id = ?";
    sqlx::query(statement).bind(now).bind(text(&statistics)?).bind(run).execute(connection).await?;
    Ok(())
}

async fn event_row(
    connection: &mut SqliteConnection,
    run: i64,
    seq: i64,
    word: &str,
    data: &str,
) -> Result<(), Error> {
    let statement = "INSERT INTO events (run, seq, word, data) VALUES (?, ?, ?, ?)";
    sqlx::query(statement).bind(run).bind(seq).bind(word).bind(data).execute(connection).await?;
    Ok(())
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Encode(Box::new(error)))
}
