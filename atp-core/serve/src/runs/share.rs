//! What controllers need to work on a run together.

use atp_api::{ErrorKind, PlanReport, RunEvent, RunRequest, RunStart, RunStatistics, Status, Targets};
use atp_executor::{Operation, Plan};

use crate::problem::Refusal;
use crate::state::Service;
use crate::store::{EventRow, Share, SharedRun, TargetRow};

/// What goes to the store with a plan whose events begin after `last`; none where this service has the store for itself.
pub(super) fn share(
    service: &Service,
    request: &RunRequest,
    plan: &Plan,
    last: i64,
) -> Result<Option<Share>, Refusal> {
    if service.cluster().is_none() {
        return Ok(None);
    }
    let policy = &plan.policy;
    let mut statistics = RunStatistics::default();
    let mut events = Vec::new();
    let start = RunStart {
        version: atp_api::VERSION,
        op: plan.operation.name().into(),
        targets: plan.targets.len(),
        hosts: plan
            .targets
            .iter()
            .map(|target| &target.host)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        settled: plan.settled.len(),
        done_before: plan.done_before,
        policy: policy.clone(),
    };
    let mut add = |word, event: &RunEvent, outcome_of| -> Result<(), Refusal> {
        let seq = last + 1 + i64::try_from(events.len()).unwrap_or(i64::MAX);
        events.push(EventRow {
            seq,
            word,
            data: serde_json::to_string(event).map_err(unwritable)?,
            outcome_of,
        });
        Ok(())
    };
    add("begun", &RunEvent::Begun(Box::new(start)), None)?;
    for outcome in &plan.settled {
        statistics.add(outcome);
        let of = TargetRow::of_outcome(outcome);
        add("finished", &RunEvent::Finished(Box::new(outcome.clone())), Some(of))?;
    }
    let is_failure = |status| matches!(status, Status::Failed | Status::Timeout | Status::Unreachable);
    // Outcomes of before a resume were counted then.
    let failed = plan.settled.iter().filter(|outcome| outcome.attempts == 0 && is_failure(outcome.status));
    let time = match &plan.operation {
        Operation::Scenario(scenario) => scenario.budget(policy.timeout),
        _ => policy.timeout,
    };
    let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let run = SharedRun {
        request: request.clone(),
        placements: plan.placements.clone().for_targets(&plan.targets),
        target_ms: millis(time.saturating_add(policy.grace)),
        targets: plan.targets.len(),
        failed_before: failed.count(),
        to_undo: plan.to_undo.clone(),
    };
    let domain =
        |target: &atp_executor::Target| target.domain.as_ref().map(serde_json::to_string).transpose();
    Ok(Some(Share {
        run: serde_json::to_string(&run).map_err(unwritable)?,
        left_ms: policy.deadline.map(|whole| millis(whole.saturating_sub(plan.planned_in))),
        domains: plan.targets.iter().map(domain).collect::<Result<_, _>>().map_err(unwritable)?,
        batch: policy.serial.map_or(usize::MAX, |serial| serial.of(plan.targets.len())),
        events,
        statistics: serde_json::to_string(&statistics).map_err(unwritable)?,
    }))
}

/// The plan as it is kept, with what chose its targets: who resumes the run may have to give that again.
pub(super) fn kept_plan(plan: &Plan, targets: &Targets) -> Result<String, Refusal> {
    let report = PlanReport { chosen_by: Some(targets.clone()), ..plan.report() };
    serde_json::to_string(&report).map_err(unwritable)
}

pub(super) fn unwritable(error: serde_json::Error) -> Refusal {
    Refusal::new(ErrorKind::Unknown, format!("the plan cannot be written: {error}"))
}
