//! `atp doctor`: from the settings' files over the hosts to the agents, a finding for everything on the way.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use atp_executor::{
    Data, Diagnosis, Executor, Finding, Notice, Operation, Outcome, OutcomeError, PlanError, Policy,
    Selection, Selector, Status, Verdict,
};
use atp_transport::{Effect, ErrorKind, HostId, HostInfo, PasswordSource};
use tokio::time::Instant;

use crate::args::DoctorArgs;
use crate::batch::drive;
use crate::context::Context;
use crate::dry_run;
use crate::inventory;
use crate::problem::{Failure, Problem};
use crate::report::Report;
use crate::signals::Interrupts;

/// The name of the operation in every outcome.
const OP: &str = "doctor";

/// Readable or writable by others than the owner.
const FOREIGN_READ: u32 = 0o044;
const FOREIGN_WRITE: u32 = 0o022;

/// Examines the way to the hosts, all of them if none is named, and to the agents of their VMs.
pub(crate) async fn run(args: DoctorArgs, context: &Context) -> Result<u8, Failure> {
    let started = Instant::now();
    let interrupts = Interrupts::listen().context("signals cannot be listened to").map_err(Failure::Bug)?;
    let policy = context.settings.policy.clone();
    let hosts = if args.hosts.is_empty() { Selection::all() } else { Selection::hosts(args.hosts) };
    let settings = inventory::with_passwords(&hosts, &context.settings, &interrupts).await?;
    let manager = tokio::select! {
        opened = inventory::open(&settings) => opened?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    let executor = Executor::new(manager.clone());
    // A host that hangs leaves the agents of the others their half of the time for the whole.
    let timeout = policy.deadline.map_or(policy.timeout, |whole| policy.timeout.min(whole / 2));
    let of_hosts = Policy { timeout, ..policy.clone() };
    let plan = executor.plan(&hosts, Operation::DiagnoseHost, of_hosts).await.map_err(refused)?;
    let mut report = Report::new(&plan, context)?;
    for outcome in files(context).chain(password_files(context)) {
        report.expect(1);
        report.take(outcome);
    }
    if context.dry_run {
        dry_run::forecast(plan, &mut report);
    } else {
        let hosts: Vec<_> = plan.targets.iter().map(|target| target.host.clone()).collect();
        let mut reached = BTreeSet::new();
        let run = executor.run(plan, interrupts.control());
        drive(run, &mut report, &interrupts, |outcome| reached.extend(reached_host(outcome))).await;
        let alive = hosts.iter().filter(|host| reached.contains(*host));
        let vms = Selection::of(alive.filter_map(|host| format!("{host}/").parse::<Selector>().ok()));
        let goes_on = interrupts.received().is_none() && !report.ending.stopped_early;
        // What is left of the time for the whole.
        let deadline = policy.deadline.map(|whole| whole.saturating_sub(started.elapsed()));
        let policy = Policy { deadline, ..policy };
        let planning = async {
            match goes_on && !reached.is_empty() {
                true => {
                    executor.plan(&vms, Operation::DiagnoseAgent, policy).await.map(Some).map_err(refused)
                }
                false => Ok(None),
            }
        };
        let plan = tokio::select! {
            plan = planning => plan?,
            _ = interrupts.first() => None,
        };
        if let Some(plan) = plan {
            for outcome in plan.notices.iter().filter_map(same_daemon) {
                report.expect(1);
                report.take(outcome);
            }
            report.expect(plan.targets.len() + plan.settled.len());
            drive(executor.run(plan, interrupts.control()), &mut report, &interrupts, |_| {}).await;
        }
        report.ending.signal = interrupts.received();
    }
    let code = report.finish(started);
    inventory::close(&manager, Duration::ZERO).await;
    Ok(code)
}

/// A host that was reached.
fn reached_host(outcome: &Outcome) -> Option<HostId> {
    match &outcome.data {
        Some(Data::Diagnosis(Diagnosis { host: Some(_), .. })) => outcome.host.clone(),
        _ => None,
    }
}

fn refused(error: PlanError) -> Problem {
    Problem::new(error.to_string()).hint(error.hint())
}

/// What others may do with the files of settings. One that holds no secret may be read by all, but written by nobody
/// else: a URI can name a program to run.
pub(super) fn files(context: &Context) -> impl Iterator<Item = Outcome> {
    context.settings.files.iter().map(|file| {
        let finding = match fs::metadata(file) {
            Ok(metadata) => {
                permissions(file, metadata.permissions().mode(), context.settings.has_secrets(file))
            }
            Err(error) => Finding::note("settings", format!("{}: {error}", file.display())),
        };
        outcome(finding)
    })
}

/// What others may do with the files that hold passwords.
pub(super) fn password_files(context: &Context) -> impl Iterator<Item = Outcome> {
    let file = |host: &HostInfo| match host.credentials.as_ref()?.password.as_ref()? {
        PasswordSource::File(file) => Some(file.clone()),
        _ => None,
    };
    let files: BTreeSet<_> = context.settings.hosts.iter().filter_map(file).collect();
    files.into_iter().map(|file| {
        let finding = match fs::metadata(&file) {
            Ok(metadata) => permissions(&file, metadata.permissions().mode(), true),
            Err(error) => Finding::problem(
                "settings",
                format!("{}: {error}", file.display()),
                "correct password_file in the host's auth section, or make that file, with the password as its first line",
            ),
        };
        outcome(finding)
    })
}

fn permissions(file: &Path, mode: u32, has_secrets: bool) -> Finding {
    let name = file.display();
    if mode & FOREIGN_WRITE != 0 {
        let message = format!(
            "{name} can be written by others (mode {:03o}), and can name programs to run",
            mode & 0o777
        );
        return Finding::problem("settings", message, format!("chmod go-w {name}"));
    }
    if has_secrets && mode & FOREIGN_READ != 0 {
        let message =
            format!("{name} holds a password and can be read by others (mode {:03o})", mode & 0o777);
        return Finding::problem("settings", message, format!("chmod go= {name}"));
    }
    Finding::ok("settings", format!("{name} is good, and nobody else can change it"))
}

/// Two ids of one and the same daemon, or of daemons that cannot be told apart by their machines.
fn same_daemon(notice: &Notice) -> Option<Outcome> {
    let (message, hint) = match notice {
        Notice::SameDaemon { host, alias, .. } => (
            format!("{host} and {alias} reach the same daemon: its VMs are worked on as {host}'s"),
            "keep one of the ids, and remove the other from the inventory",
        ),
        Notice::SameMachine { .. } => (
            notice.to_string(),
            "give each machine a UUID of its own (host_uuid in libvirtd.conf); of two ids of one daemon keep one",
        ),
        _ => return None,
    };
    Some(outcome(Finding::problem("inventory", message, hint)))
}

/// An outcome that is about no host or VM.
fn outcome(finding: Finding) -> Outcome {
    let is_bad = finding.verdict == Verdict::Problem;
    let kind =
        if finding.check == "settings" { ErrorKind::UnsafePermissions } else { ErrorKind::DuplicateDaemon };
    Outcome {
        host: None,
        vm: None,
        uuid: None,
        op: OP,
        status: if is_bad { Status::Failed } else { Status::Ok },
        effect: Effect::None,
        attempts: 1,
        duration_ms: 0,
        error: is_bad.then(|| OutcomeError {
            hint: finding.hint.clone(),
            ..OutcomeError::new(kind, finding.message.clone())
        }),
        data: Some(Data::Diagnosis(Diagnosis::from(vec![finding]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_judged_by_what_is_in_it() {
        let verdict = |mode, has_secrets| permissions(Path::new("f"), mode, has_secrets).verdict;
        for (mode, has_secrets, expected) in [
            (0o100600, true, Verdict::Ok),
            (0o100644, false, Verdict::Ok),
            (0o100644, true, Verdict::Problem),
            (0o100640, true, Verdict::Problem),
            (0o100664, false, Verdict::Problem),
            (0o100602, false, Verdict::Problem),
        ] {
            assert_eq!(verdict(mode, has_secrets), expected, "{mode:o} {has_secrets}");
        }
    }
}
