//! `--dry-run`: a plan is reported instead of run.

use atp_executor::{Data, DryRun, Operation, Outcome, OutcomeError, Plan, Status, Target};
use atp_transport::{Effect, HostId};

use crate::report::Report;

/// Reports a plan instead of running it: each target as `skipped`, or as `unchanged` if there would be nothing to do.
/// Only outcomes that planning has settled count for the exit code.
pub(crate) fn report(settled: Vec<Outcome>, would_be: Vec<Outcome>, report: &mut Report<'_>) {
    report.take_all(settled);
    report.show_all(would_be);
}

/// What would become of the targets of a plan.
pub(crate) fn of_plan(plan: &Plan) -> Vec<Outcome> {
    let op = plan.operation.name();
    let outcome = |(target, dry_run): (&Target, DryRun)| {
        let refusal = (dry_run == DryRun::NotRunning).then(|| plan.refusal(target)).flatten();
        let data = target.domain.clone().map(Data::Domain);
        Outcome {
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            ..would_be(op, &target.host, data, dry_run, refusal)
        }
    };
    plan.dry_run().map(outcome).collect()
}

/// What would become of a target of this host.
pub(crate) fn would_be(
    op: &str,
    host: &HostId,
    data: Option<Data>,
    dry_run: DryRun,
    refusal: Option<OutcomeError>,
) -> Outcome {
    let error = refusal.map(|error| {
        let message = format!("it would fail: {}", error.message);
        OutcomeError { message, ..error }
    });
    let status = if dry_run == DryRun::Unchanged { Status::Unchanged } else { Status::Skipped };
    let effect = Effect::None;
    Outcome { host: Some(host.clone()), effect, data, error, ..Outcome::not_started(op.to_owned(), status) }
}

/// The dry-run words of a verb whose name says enough.
pub(crate) fn name_only(_: &Operation) -> Vec<String> {
    Vec::new()
}
