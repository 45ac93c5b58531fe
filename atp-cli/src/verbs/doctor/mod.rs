//! `atp doctor`: checks the settings files, the hosts and the guest agents, with a finding for each check.

mod findings;
mod service;

use std::collections::BTreeSet;
use std::time::Duration;

use atp_executor::{
    Data, Diagnosis, Executor, Finding, HostSelector, Notice, Operation, Outcome, OutcomeError, Policy,
    Selection, Selector, Status, Verdict,
};
use atp_transport::{ErrorKind, HostId};
use clap::Args;
use tokio::time::Instant;

use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::batch::drive;
use crate::completer;
use crate::context::Context;
use crate::dry_run;
use crate::inventory;
use crate::permissions;
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::render::Forms;
use crate::report::Report;
use crate::signals::Interrupts;

const EXAMPLES: &str = "\
Examples:
  atp doctor
  atp doctor node7 --timeout 5s";

/// The name of the operation in every outcome.
const OP: &str = "doctor";

/// How the outcomes are shown.
const FORMS: Forms = Forms { table: findings::findings, failures: findings::advice, columns: &["findings"] };

/// Check everything between this machine and the guest agents, and suggest fixes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Host ids, globs that match them, or @GROUP; all hosts by default
    #[arg(value_name = "HOST", add = completer::hosts())]
    hosts: Vec<HostSelector>,
}

impl Verb for DoctorArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_journal()
    }

    /// Checks the hosts, all of them if none is named, and then the agents of their VMs.
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let started = Instant::now();
        let interrupts = Interrupts::listen()?;
        let policy = context.settings.policy.clone();
        let hosts = if self.hosts.is_empty() { Selection::all() } else { Selection::hosts(self.hosts) };
        if let Some(client) = remote::client(&context.settings)? {
            return service::diagnose(&client, &hosts, context, &interrupts).await;
        }
        let manager = inventory::open_selected(&hosts, &context.settings, &interrupts).await?;
        let executor = Executor::new(manager.clone());
        let plan = executor.plan(&hosts, Operation::DiagnoseHost, of_hosts(&policy)).await;
        let plan = plan.map_err(Problem::from)?;
        let mut report = Report::new(plan.operation.name(), plan.done_before, FORMS, context)?;
        report.take_all(about_settings(context));
        if context.dry_run {
            let would_be = dry_run::of_plan(&plan);
            dry_run::report(plan.settled, would_be, &mut report);
        } else {
            let hosts: Vec<_> = plan.targets.iter().map(|target| target.host.clone()).collect();
            let mut reached = BTreeSet::new();
            let run = executor.run(plan, interrupts.control());
            drive(run, &mut report, &interrupts, |outcome| reached.extend(reached_host(outcome))).await;
            let vms = vms_of(hosts.iter().filter(|host| reached.contains(*host)));
            let goes_on = interrupts.received().is_none() && !report.ending.stopped_early;
            let policy = of_agents(&policy, started);
            let planning = async {
                match goes_on && !reached.is_empty() {
                    true => executor
                        .plan(&vms, Operation::DiagnoseAgent, policy)
                        .await
                        .map(Some)
                        .map_err(Problem::from),
                    false => Ok(None),
                }
            };
            let plan = tokio::select! {
                plan = planning => plan?,
                _ = interrupts.first() => None,
            };
            if let Some(plan) = plan {
                report.take_all(plan.notices.iter().filter_map(Notice::finding).map(outcome).collect());
                drive(executor.run(plan, interrupts.control()), &mut report, &interrupts, |_| {}).await;
            }
            report.ending.signal = interrupts.received();
        }
        let code = report.finish(started);
        inventory::close(&manager, Duration::ZERO).await;
        Ok(code)
    }
}

/// The limits for the hosts: they get half of the whole time, so that a hung host leaves time for the agents of the others.
fn of_hosts(policy: &Policy) -> Policy {
    let timeout = policy.deadline.map_or(policy.timeout, |whole| policy.timeout.min(whole / 2));
    Policy { timeout, ..policy.clone() }
}

/// The limits for the agents, in the rest of the whole time.
fn of_agents(policy: &Policy, started: Instant) -> Policy {
    let deadline = policy.deadline.map(|whole| whole.saturating_sub(started.elapsed()));
    Policy { deadline, ..policy.clone() }
}

/// All VMs of these hosts.
fn vms_of<'a>(hosts: impl Iterator<Item = &'a HostId>) -> Selection {
    Selection::of(hosts.filter_map(|host| format!("{host}/").parse::<Selector>().ok()))
}

/// What is found about the settings of this program.
fn about_settings(context: &Context) -> Vec<Outcome> {
    let settings = &context.settings;
    permissions::files(settings).chain(permissions::secret_files(settings)).map(outcome).collect()
}

/// The host, if it was reached.
fn reached_host(outcome: &Outcome) -> Option<HostId> {
    match &outcome.data {
        Some(Data::Diagnosis(Diagnosis { host: Some(_), .. })) => outcome.host.clone(),
        _ => None,
    }
}

/// An outcome without a host or VM.
fn outcome(finding: Finding) -> Outcome {
    let is_bad = finding.verdict == Verdict::Problem;
    let kind =
        if finding.check == "settings" { ErrorKind::UnsafePermissions } else { ErrorKind::DuplicateDaemon };
    Outcome {
        attempts: 1,
        error: is_bad.then(|| OutcomeError {
            hint: finding.hint.clone(),
            ..OutcomeError::new(kind, finding.message.clone())
        }),
        data: Some(Data::Diagnosis(Diagnosis::from(vec![finding]))),
        ..Outcome::not_started(OP, if is_bad { Status::Failed } else { Status::Ok })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_may_be_one_are_a_warning_and_not_called_one() {
        let doubt = atp_executor::Doubt::HostNames { hostname: "box".to_owned(), other: "crate".to_owned() };
        let (host, other) = ("h1".parse().unwrap(), "h2".parse().unwrap());
        let notice = Notice::PerhapsSameDaemon { host, other, vms: 1, doubt };
        let outcome = outcome(notice.finding().unwrap());
        assert_eq!((outcome.status, &outcome.error), (Status::Ok, &None));
        let Some(Data::Diagnosis(diagnosis)) = outcome.data else { panic!("{:?}", outcome.data) };
        let [finding] = &diagnosis.findings[..] else { panic!("{diagnosis:?}") };
        assert_eq!((finding.check.as_ref(), finding.verdict), ("inventory", Verdict::Warning));
        assert!(!finding.message.contains("same daemon"), "{}", finding.message);
        assert!(finding.hint.as_ref().unwrap().contains("host_uuid"));
    }
}
