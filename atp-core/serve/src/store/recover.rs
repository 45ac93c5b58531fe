//! What becomes of runs that were under way when the service ended.

use atp_api::{Outcome, RunEvent, RunStatistics};
use sqlx::Error;

use super::read::recorded;
use super::sql::{Db, values};

/// The event that a run was interrupted, and its data.
pub(crate) const INTERRUPTED: (&str, &str) = ("interrupted", r#"{"event":"interrupted"}"#);

/// Makes runs that were under way interrupted, each as a whole: their outcomes that were recorded and not shown become
/// events, and so do the unknown outcomes of targets that were started. A run whose planning had not ended is forgotten, as
/// nothing was started, so that a client can send its request again.
pub(super) async fn recover(db: &mut Db, now: i64) -> Result<(), Error> {
    db.execute("DELETE FROM runs WHERE state = 'planning'", values![]).await?;
    for row in db.rows("SELECT id, op FROM runs WHERE state = 'running'", values![]).await? {
        db.begin().await?;
        // What fails closes the store, and with it the transaction.
        let run = row.int("id")?;
        interrupt(db, run, &row.text("op")?, now).await?;
        db.raw("COMMIT").await?;
    }
    Ok(())
}

/// Makes a run interrupted, within a transaction.
pub(super) async fn interrupt(db: &mut Db, run: i64, op: &str, now: i64) -> Result<(), Error> {
    let mut statistics = RunStatistics::default();
    let statement = "SELECT coalesce(max(seq), 0) FROM events WHERE run = $1";
    let mut seq = db.number(statement, values![run]).await?;
    let mut last = 0;
    loop {
        let statement = "SELECT n, host, vm, uuid, from_begin, state, outcome, shown FROM targets
            WHERE run = $1 AND n > $2 AND state <> 'waiting' ORDER BY n LIMIT 100";
        let rows = db.rows(statement, values![run, last]).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            last = row.int("n")?;
            let outcome = match row.some_text("outcome")? {
                Some(text) => {
                    let read = serde_json::from_str::<Outcome>(&text);
                    Some(read.map_err(|error| Error::Decode(Box::new(error)))?)
                }
                None => recorded(&row)?.unknown(op),
            };
            let Some(outcome) = outcome else { continue };
            statistics.add(&outcome);
            if row.bool("shown")? {
                continue;
            }
            seq += 1;
            let event = RunEvent::Finished(Box::new(outcome));
            event_row(db, run, seq, "finished", &text(&event)?).await?;
            let statement = "UPDATE targets SET shown = TRUE WHERE run = $1 AND n = $2";
            db.execute(statement, values![run, last]).await?;
        }
    }
    event_row(db, run, seq + 1, INTERRUPTED.0, INTERRUPTED.1).await?;
    let statement = "UPDATE runs SET state = 'interrupted', ended = $2, statistics = $3 WHERE id = $1";
    db.execute(statement, values![run, now, &text(&statistics)?]).await?;
    if matches!(db, Db::Postgres(_)) {
        // Controllers had worked on it: what they needed may be secret.
        db.execute("UPDATE runs SET shared = NULL WHERE id = $1", values![run]).await?;
    }
    Ok(())
}

async fn event_row(db: &mut Db, run: i64, seq: i64, word: &str, data: &str) -> Result<(), Error> {
    let statement = "INSERT INTO events (run, seq, word, data) VALUES ($1, $2, $3, $4)";
    db.execute(statement, values![run, seq, word, data]).await?;
    Ok(())
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Encode(Box::new(error)))
}
