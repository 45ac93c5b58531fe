//! `--dry-run`: a plan is reported instead of run.

use atp_executor::{Data, DryRun, Operation, Outcome, OutcomeError, Plan, Status, Target};
use atp_transport::Effect;

use crate::report::Report;

/// Reports a plan instead of running it: each target as `skipped`, or as `unchanged` if there would be nothing to do.
/// Only outcomes that planning has settled count for the exit code.
pub(crate) fn report(plan: Plan, report: &mut Report<'_>) {
    let dry_runs: Vec<_> = plan.dry_run().map(|(_, dry_run)| dry_run).collect();
    let op = plan.operation.name();
    report.take_all(plan.settled);
    let would_be = |(target, dry_run): (Target, DryRun)| {
        let status = if dry_run == DryRun::Unchanged { Status::Unchanged } else { Status::Skipped };
        let domain = target.domain.as_ref().filter(|_| dry_run == DryRun::NotRunning);
        let error = domain.map(|domain| {
            let error = plan.operation.refusal(&target.host, domain);
            OutcomeError { message: format!("it would fail: {}", error.message), ..error }
        });
        Outcome {
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            found_on: None,
            host: Some(target.host),
            op: op.into(),
            status,
            effect: Effect::None,
            attempts: 0,
            duration_ms: 0,
            data: target.domain.map(Data::Domain),
            error,
        }
    };
    report.show_all(plan.targets.into_iter().zip(dry_runs).map(would_be).collect());
}

/// The dry-run words of a verb whose name says enough.
pub(crate) fn name_only(_: &Operation) -> Vec<String> {
    Vec::new()
}
