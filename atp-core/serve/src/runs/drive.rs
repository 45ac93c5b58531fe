//! A run under way: its events go to the store, from where clients read them.

use std::time::Duration;

use atp_api::{Outcome, RunEvent, RunStatistics, StopReason};
use atp_executor::Run;
use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::Activity;
use crate::published::{publish, shorten};
use crate::store::{Change, Ending, EventRow, INTERRUPTED, StoreError, TargetRow};

/// The most events that are written together.
const BATCH: usize = 256;

/// The pause after the store has failed, as on a full disk: outcomes are kept in memory until it works again.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes the events of a run to the store until it has ended. When the service ends, no more targets are started.
pub(super) async fn drive(mut run: Run, activity: Activity) {
    let Activity { service, run: id, active } = &activity;
    let mut seq = *active.last.borrow();
    let mut stop_reason = None;
    let mut is_cut = false;
    let files = service.config().files().ok();
    loop {
        let first = tokio::select! {
            first = run.next() => first,
            () = service.stopping().cancelled(), if !is_cut => {
                is_cut = true;
                active.control.stop.cancel();
                continue;
            }
        };
        let Some(first) = first else { break };
        let mut taken = vec![first];
        while taken.len() < BATCH
            && let Some(Some(event)) = run.next().now_or_never()
        {
            taken.push(event);
        }
        let mut events = Vec::with_capacity(taken.len());
        let mut ending = None;
        for mut event in taken {
            if let (RunEvent::Finished(outcome), Some(files)) = (&mut event, &files) {
                publish(files, outcome);
            }
            if let RunEvent::Finished(outcome) = &mut event {
                shorten(outcome);
            }
            let (word, outcome_of) = match &event {
                RunEvent::Begun(_) => ("begun", None),
                RunEvent::Started { .. } => ("started", None),
                RunEvent::Finished(outcome) => ("finished", Some(count(outcome, &active.statistics))),
                RunEvent::Stopping(reason) => {
                    stop_reason = Some(reason.clone());
                    ("stopping", None)
                }
                RunEvent::Ended(statistics) => {
                    ending = end(statistics, stop_reason.as_ref(), is_cut);
                    ("ended", None)
                }
                // What is of use only while it is new goes into no store.
                RunEvent::Console { host, vm, .. } => {
                    active.lines.add(host, vm, &event);
                    continue;
                }
                RunEvent::Progress { .. } | RunEvent::Unknown => continue,
            };
            let Ok(data) = serde_json::to_string(&event) else { continue };
            seq += 1;
            events.push(EventRow { seq, word, data, outcome_of });
        }
        if ending.is_some() && is_cut {
            seq += 1;
            let (word, data) = INTERRUPTED;
            events.push(EventRow { seq, word, data: data.to_owned(), outcome_of: None });
        }
        if events.is_empty() && ending.is_none() {
            continue;
        }
        let change = Change::Events { run: *id, events, ending };
        if let Err(StoreError::Closed) = write(&activity, change).await {
            // Dropping the run aborts it.
            return;
        }
        active.last.send_replace(seq);
    }
}

/// Writes events, as often as that takes: what is not in the store is not shown, and its run does not go on.
async fn write(activity: &Activity, change: Change) -> Result<(), StoreError> {
    let Activity { service, run, .. } = activity;
    let mut has_failed = false;
    loop {
        match service.runs().store.change(change.clone()).await {
            Ok(_) => {
                if has_failed {
                    tracing::info!(run, "the store of runs works again");
                }
                return Ok(());
            }
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Err(error) => {
                if !has_failed {
                    tracing::error!(
                        run,
                        error = &error as &dyn std::error::Error,
                        "the run's events wait: the store failed"
                    );
                }
                has_failed = true;
                sleep(PAUSE).await;
            }
        }
    }
}

fn count(outcome: &Outcome, statistics: &parking_lot::Mutex<RunStatistics>) -> TargetRow {
    statistics.lock().add(outcome);
    TargetRow::of_outcome(outcome)
}

fn end(statistics: &RunStatistics, stop_reason: Option<&StopReason>, is_cut: bool) -> Option<Ending> {
    // A run that ended before it heard that the service ends is not interrupted.
    let is_interrupted = is_cut && stop_reason == Some(&StopReason::Requested);
    Some(Ending {
        state: if is_interrupted { "interrupted" } else { "ended" },
        statistics: serde_json::to_string(statistics).ok()?,
        stop_reason: stop_reason.and_then(|reason| serde_json::to_string(reason).ok()),
    })
}
