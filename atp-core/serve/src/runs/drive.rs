//! A run under way: its events go to the store, from where clients read them.

use std::time::Duration;

use atp_api::{Outcome, RunEvent, RunStatistics, StopReason};
use atp_executor::Run;
use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::Activity;
use crate::output::{shorten, take_out};
use crate::published::publish;
use crate::store::{Change, Ending, EventRow, INTERRUPTED, StoreError, TargetRow};

/// The most events that are written together.
const BATCH: usize = 256;

/// The pause after the store has failed, as on a full disk: outcomes are kept in memory until it works again.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes the events of a run to the store until it has ended. When the service ends, no more targets are started.
pub(super) async fn drive(mut run: Run, activity: Activity) {
    let Activity { service, active, .. } = &activity;
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
        let mut batch = Batch::default();
        for mut event in taken {
            if let (RunEvent::Finished(outcome), Some(files)) = (&mut event, &files) {
                publish(files, outcome);
            }
            if let RunEvent::Finished(outcome) = &mut event {
                active.progress.remove(outcome.host.as_ref(), outcome.vm.as_deref());
                shorten(outcome);
                if let Some(error) = active.refused.lock().remove(&TargetRow::of_outcome(outcome).key) {
                    take_out(outcome, &error);
                }
            }
            if let RunEvent::Ended(statistics) = &mut event {
                // Of the outcomes as they are kept, so those before it are written first.
                if !std::mem::take(&mut batch).write(&activity).await {
                    return;
                }
                let duration_ms = statistics.duration_ms;
                **statistics = RunStatistics { duration_ms, ..active.statistics.lock().clone() };
            }
            let (word, outcome_of) = match &event {
                RunEvent::Begun(_) => ("begun", None),
                RunEvent::Started { .. } => ("started", None),
                RunEvent::Finished(outcome) => ("finished", Some(TargetRow::of_outcome(outcome))),
                RunEvent::Stopping(reason) => {
                    stop_reason = Some(reason.clone());
                    ("stopping", None)
                }
                RunEvent::Ended(statistics) => {
                    batch.ending = end(statistics, stop_reason.as_ref(), is_cut);
                    ("ended", None)
                }
                // What is of use only while it is new goes into no store.
                RunEvent::Console { host, vm, .. } => {
                    active.lines.add(host, vm, &event);
                    continue;
                }
                RunEvent::Progress { host, vm, .. } => {
                    active.progress.set(host, vm.as_deref(), seq, &event);
                    continue;
                }
                RunEvent::Unknown => continue,
            };
            let Ok(data) = serde_json::to_string(&event) else { continue };
            seq += 1;
            batch.events.push(EventRow { seq, word, data, outcome_of });
            if let RunEvent::Finished(outcome) = event {
                batch.outcomes.push((seq, outcome));
            }
        }
        if batch.ending.is_some() && is_cut {
            seq += 1;
            let (word, data) = INTERRUPTED;
            batch.events.push(EventRow { seq, word, data: data.to_owned(), outcome_of: None });
        }
        if !batch.write(&activity).await {
            // Dropping the run aborts it.
            return;
        }
    }
}

/// Events that are written together.
#[derive(Default)]
struct Batch {
    events: Vec<EventRow>,
    /// Those of them that are outcomes, by the numbers of their events.
    outcomes: Vec<(i64, Box<Outcome>)>,
    ending: Option<Ending>,
}

impl Batch {
    /// Writes it, and then counts its outcomes, as they were written, and shows its events. False if the run cannot go on, as the
    /// store will not take them.
    async fn write(self, activity: &Activity) -> bool {
        let Batch { events, mut outcomes, ending } = self;
        let (run, active) = (activity.run, &activity.active);
        if events.is_empty() && ending.is_none() {
            return true;
        }
        let last = events.last().map(|event| event.seq);
        let change = Change::Events { run, events, ending };
        let mut written = write(activity, &change).await;
        if written.as_ref().is_err_and(StoreError::is_for_good)
            && let Change::Events { events, ending, .. } = change
        {
            written = write_singly(activity, events, &mut outcomes, ending).await;
        }
        if let Err(error) = written {
            if !matches!(error, StoreError::Closed) {
                let error = &error as &dyn std::error::Error;
                tracing::error!(run, error, "the run is aborted: the store will not take its events");
            }
            return false;
        }
        for (_, outcome) in &outcomes {
            active.statistics.lock().add(outcome);
        }
        if let Some(last) = last {
            active.last.send_replace(last);
        }
        true
    }
}

/// Writes events, as often as that takes: what is not in the store is not shown, and its run does not go on.
///
/// # Errors
/// The store is closed or another service's, or it refuses them for good.
async fn write(activity: &Activity, change: &Change) -> Result<(), StoreError> {
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
            Err(error @ (StoreError::Closed | StoreError::TakenOver { .. })) => return Err(error),
            Err(error) if error.is_for_good() => return Err(error),
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

/// Writes events one by one, without those that the store refuses for good. An outcome is told without its data then; where the store
/// has not recorded it before, it has failed, also in `outcomes`.
///
/// # Errors
/// The store is closed or another service's, or it refuses the run's end for good.
async fn write_singly(
    activity: &Activity,
    events: Vec<EventRow>,
    outcomes: &mut [(i64, Box<Outcome>)],
    ending: Option<Ending>,
) -> Result<(), StoreError> {
    let run = activity.run;
    let one = |event: EventRow| Change::Events { run, events: vec![event], ending: None };
    for event in events {
        let mut written = write(activity, &one(event.clone())).await;
        if let Err(error) = &written
            && error.is_for_good()
            && let Some((_, outcome)) = outcomes.iter_mut().find(|(seq, _)| *seq == event.seq)
            && let Some(rest) = without_data(activity, &event, outcome, error).await
        {
            written = write(activity, &one(rest)).await;
        }
        match written {
            Ok(()) => {}
            Err(error) if error.is_for_good() => {
                let (seq, event) = (event.seq, event.word);
                let error = &error as &dyn std::error::Error;
                tracing::error!(run, seq, event, error, "the store refuses an event, which is left out");
            }
            Err(error) => return Err(error),
        }
    }
    match ending {
        Some(_) => write(activity, &Change::Events { run, events: Vec::new(), ending }).await,
        None => Ok(()),
    }
}

/// The event of an outcome without the outcome's data.
async fn without_data(
    activity: &Activity,
    event: &EventRow,
    outcome: &mut Box<Outcome>,
    error: &StoreError,
) -> Option<EventRow> {
    let key = &event.outcome_of.as_ref()?.key;
    // An outcome that is recorded stays as it is, and is asked for with its data.
    let is_recorded = loop {
        match activity.service.runs().store.has_outcome(activity.run, key).await {
            Ok(is_recorded) => break is_recorded,
            Err(StoreError::Closed | StoreError::TakenOver { .. }) => return None,
            Err(error) if error.is_for_good() => break false,
            Err(_) => sleep(PAUSE).await,
        }
    };
    match is_recorded {
        true => outcome.data = None,
        false => take_out(outcome, error),
    }
    let data = serde_json::to_string(&RunEvent::Finished(outcome.clone())).ok()?;
    Some(EventRow { data, ..event.clone() })
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
