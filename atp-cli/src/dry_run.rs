//! `--dry-run`: a plan is reported instead of run.

use atp_executor::{Data, DryRun, Operation, Outcome, OutcomeError, Plan, Status, Target};
use atp_transport::Effect;

use crate::report::Report;

/// Reports a plan instead of running it: each target as `skipped`, or as `unchanged` if there would be nothing to do.
/// Only outcomes that planning has settled count for the exit code.
pub(crate) fn report(plan: Plan, report: &mut Report<'_>) {
    let op = plan.operation.name();
    let would_be = |(target, dry_run): (&Target, DryRun)| {
        let status = if dry_run == DryRun::Unchanged { Status::Unchanged } else { Status::Skipped };
        let error = (dry_run == DryRun::NotRunning).then(|| plan.refusal(target)).flatten();
        let error = error.map(|error| {
            let message = format!("it would fail: {}", error.message);
            OutcomeError { message, ..error }
        });
        Outcome {
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            found_on: None,
            from_earlier_run: false,
            host: Some(target.host.clone()),
            op: op.into(),
            status,
            effect: Effect::None,
            attempts: 0,
            duration_ms: 0,
            data: target.domain.clone().map(Data::Domain),
            error,
        }
    };
    let would_be = plan.dry_run().map(would_be).collect();
    report.take_all(plan.settled);
    report.show_all(would_be);
}

/// The dry-run words of a verb whose name says enough.
pub(crate) fn name_only(_: &Operation) -> Vec<String> {
    Vec::new()
}
