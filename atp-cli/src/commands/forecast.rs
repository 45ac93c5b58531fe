//! `--dry-run`: a plan is reported instead of carried out.

use atp_executor::{Data, Forecast, Outcome, OutcomeError, Plan, Status};
use atp_transport::{Effect, ErrorKind};

use crate::report::Report;

/// Reports a plan instead of carrying it out: each target as `skipped`, or as `unchanged` where there would be
/// nothing to do. Only what is settled already counts for the exit code.
pub(crate) fn forecast(plan: Plan, report: &mut Report<'_>) {
    let forecasts: Vec<_> = plan.forecasts().map(|(_, forecast)| forecast).collect();
    let op = plan.operation.name();
    for outcome in plan.settled {
        report.take(outcome);
    }
    for (target, forecast) in plan.targets.into_iter().zip(forecasts) {
        let status = if forecast == Forecast::Unchanged { Status::Unchanged } else { Status::Skipped };
        let error = (forecast == Forecast::NotRunning).then(|| OutcomeError {
            kind: ErrorKind::VmNotRunning.as_str().to_owned(),
            message: "it would fail: the VM is not running".to_owned(),
            hint: Some(ErrorKind::VmNotRunning.hint().to_owned()),
            retryable: false,
            libvirt: None,
            causes: Vec::new(),
        });
        report.show(Outcome {
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            host: Some(target.host),
            op,
            status,
            effect: Effect::None,
            attempts: 0,
            duration_ms: 0,
            data: target.domain.map(Data::Domain),
            error,
        });
    }
}
