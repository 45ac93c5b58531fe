//! A diagnosis by a service, of the hosts as it reaches them.

use std::collections::BTreeSet;

use atp_api::{OperationSpec, RunRequest, Targets};
use atp_client::Client;
use atp_executor::Selection;
use tokio::time::Instant;

use super::{FORMS, OP, about_settings, of_agents, of_hosts, outcome, reached_host, vms_of};
use crate::context::Context;
use crate::dry_run;
use crate::problem::{Failure, Problem};
use crate::remote::{run_part, would_be};
use crate::report::Report;
use crate::signals::Interrupts;

/// Checks the hosts, and then the agents of their VMs, as two runs of the service.
pub(super) async fn diagnose(
    client: &Client,
    hosts: &Selection,
    context: &Context,
    interrupts: &Interrupts,
) -> Result<u8, Failure> {
    let started = Instant::now();
    let policy = &context.settings.policy;
    let request = RunRequest::new(Targets::from(hosts), OperationSpec::DiagnoseHost, of_hosts(policy));
    let plan = tokio::select! {
        plan = client.plan(&request) => plan.map_err(Problem::from)?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    let mut report = Report::new(OP, plan.done_before, FORMS, context)?;
    report.take_all(about_settings(context));
    if context.dry_run {
        let would_be = plan.targets.iter().map(|target| would_be(&plan, target)).collect();
        dry_run::report(plan.settled, would_be, &mut report);
        return Ok(report.finish(started));
    }
    let mut reached = BTreeSet::new();
    let seen = |outcome: &_| reached.extend(reached_host(outcome));
    let is_whole = run_part(client, &request, &mut report, interrupts, context, seen).await?;
    let goes_on = is_whole && interrupts.received().is_none() && !report.ending.stopped_early;
    if goes_on && !reached.is_empty() {
        let vms =
            vms_of(plan.targets.iter().map(|target| &target.host).filter(|host| reached.contains(*host)));
        let policy = of_agents(policy, started);
        let request = RunRequest::new(Targets::from(&vms), OperationSpec::DiagnoseAgent, policy);
        let planned = tokio::select! {
            plan = client.plan(&request) => Some(plan.map_err(Problem::from)?),
            _ = interrupts.first() => None,
        };
        if let Some(plan) = planned {
            report.take_all(plan.findings.into_iter().map(outcome).collect());
            run_part(client, &request, &mut report, interrupts, context, |_| {}).await?;
        }
    }
    report.ending.signal = interrupts.received();
    Ok(report.finish(started))
}
