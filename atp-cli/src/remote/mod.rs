//! Runs through a service (`--server`), over its warm connections: with the same reports, exit codes and signals as runs of
//! this program's own. The run is the service's, and goes on there if this program is killed.

use std::pin::pin;
use std::time::Duration;

use atp_api::domain::DomainInfo;
use atp_api::serve::RunSummary;
use atp_api::{Data, DryRun, Effect, ErrorKind, PlanReport, PlannedTarget, RunRequest, Targets};
use atp_client::{Client, ClientError, ClientOptions, Liveness, Lost, RunEvents, RunFiles, Told};
use atp_executor::{Outcome, RunEvent};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::batch::{self, Batch, Reports, drive};
use crate::confirm::confirm;
use crate::context::Context;
use crate::dry_run;
use crate::exit::Signal;
use crate::problem::{Failure, Problem};
use crate::progress;
use crate::report::Report;
use crate::reservations;
use crate::settings::Settings;
use crate::signals::Interrupts;
use crate::words;

/// How long the service may take to answer when a signal is passed on, before the next one is waited for.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that are read ahead of the report.
const AHEAD: usize = 64;

/// The client of the service that the settings name, if they name one.
///
/// # Errors
/// The address, the token or the certificates cannot be used.
pub(crate) fn client(settings: &Settings) -> Result<Option<Client>, Problem> {
    let Some(server) = &settings.server else { return Ok(None) };
    let file = &server.token_file;
    let token = std::fs::read_to_string(file).map_err(|error| {
        let problem = Problem::new(format!("the token for {} cannot be read from {}", server.url, file.display()));
        problem.because(&error).hint(
            "write the token that `atp serve token add` printed into that file, or name another one in `server_token_file`",
        )
    })?;
    let options = ClientOptions::new(&server.url, token);
    let options = match &server.ca_file {
        Some(file) => options.with_ca_file(file),
        None => options,
    };
    Ok(Some(Client::new(options)?))
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let mut problem = Problem::new(error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            problem = problem.because(source);
        }
        match error.hint() {
            _ if error.kind() == ErrorKind::NotAuthenticated => problem.hint(
                "write a token that `atp serve token add` printed, and that was not removed since, into the file that \
                 `server_token_file` names",
            ),
            Some(hint) => problem.hint(words::hint(&hint)),
            None => problem,
        }
    }
}

/// Runs a batch through the service and reports it. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run(batch: Batch, client: &Client, context: &Context) -> Result<u8, Failure> {
    run_all(vec![batch], client, context).await
}

/// Runs batches through the service, one after the other, and reports them as one. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run_all(batches: Vec<Batch>, client: &Client, context: &Context) -> Result<u8, Failure> {
    let started = Instant::now();
    let interrupts = Interrupts::listen()?;
    let mut reports = Reports::new(batches.len(), context);
    for batch in batches {
        if reports.goes_on(&batch, &interrupts) {
            let ended = run_one(batch, client, &mut reports, &interrupts, context).await;
            reports.take(ended)?;
        }
    }
    Ok(reports.finish(started))
}

async fn run_one<'a>(
    batch: Batch,
    client: &Client,
    reports: &mut Reports<'a>,
    interrupts: &Interrupts,
    context: &'a Context,
) -> Result<(), Failure> {
    let Batch { selection, operation, dry_run: words, forms } = batch;
    let resumed = resumed(context)?;
    let policy = context.settings.policy.clone();
    let planning = async {
        let mut files = RunFiles::send(client, &operation).await.map_err(|error| Problem::from(&error))?;
        let request = RunRequest::new(Targets::from(&selection), files.operation().clone(), policy.clone());
        let plan = client.plan(&request).await?;
        if !context.dry_run {
            files.planned(&plan).await.map_err(|error| Problem::from(&error))?;
        }
        Ok::<_, Problem>((files, plan))
    };
    let (files, plan) = tokio::select! {
        planned = progress::while_waiting("asking the service for its VMs", context, planning) => planned?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    let request = RunRequest::new(Targets::from(&selection), files.operation().clone(), policy);
    plan.notices.iter().for_each(|notice| context.console.note(notice));
    if plan.targets.is_empty() && plan.settled.is_empty() && plan.done_before == 0 {
        let report = reports.next(&operation, plan.done_before, forms)?;
        report.ending.matched_nothing = true;
        context.console.problem(&batch::nothing_matches(&selection, &operation, None));
    } else if context.dry_run {
        let report = reports.next(&operation, plan.done_before, forms)?;
        words(&operation).iter().for_each(|line| context.console.note(line));
        let targets = plan.targets.iter().map(|target| would_be(&plan, target)).collect();
        dry_run::report(plan.settled, targets, report);
    } else {
        confirm(&plan, context, interrupts).await?;
        reports.check()?;
        let begun = match start(client, resumed, &request, Some(&plan), interrupts, context).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(signal)) => {
                reports.end_by(signal);
                return Ok(());
            }
            // Of a run that is continued it is not known here which targets it still has.
            Err(error) if error.effect() != Effect::None && resumed.is_none() => {
                let report = reports.next(&operation, 0, forms)?;
                context.console.problem(&Problem::from(error));
                report.take_all(Told::default().untold(plan, Lost::AtStart));
                return Ok(());
            }
            Err(error) => return Err(Problem::from(error).into()),
        };
        let run = begun.id;
        let report = reports.next(&operation, 0, forms)?;
        if operation.name() == "vm-list" {
            report.reserved = reservations::of_service(client, context).await;
        }
        let signals = AbortOnDropHandle::new(tokio::spawn(tell(client.clone(), run, interrupts.clone())));
        let mut told = Told::default();
        let mut events = follow(client, files, &begun);
        let is_whole = drive(&mut events, report, interrupts, |outcome| told.add(outcome)).await;
        drop(signals);
        // Of a run that is continued it is not known here which targets it still has.
        if !is_whole && resumed.is_none() {
            let lost = if events.is_interrupted { Lost::Interrupted(run) } else { Lost::During(run) };
            report.take_all(told.untold(plan, lost));
        }
        report.ending.signal = interrupts.received();
        if report.ending.signal.is_some() || report.ending.stopped_early {
            let again = format!(
                "this was run {run} of the service: the same command with --resume {run} does what is left"
            );
            context.console.note(&again);
        }
    }
    Ok(())
}

/// The number of the run to be continued, if there is one.
///
/// # Errors
/// The options are for a journal in a file of this machine.
fn resumed(context: &Context) -> Result<Option<u64>, Problem> {
    const NUMBER: &str = "add --resume NUMBER, with the number that the service has given the run: its page lists them, and a run \
                          that was interrupted tells it";
    if context.journal.is_some() {
        let problem = Problem::new("--journal is for runs without a service: a service keeps its runs");
        return Err(problem.hint(format!("remove it; to continue a run, {NUMBER}")));
    }
    let Some(resume) = &context.resume else { return Ok(None) };
    let number = resume.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let problem = Problem::new(format!(
            "{}: a service continues runs that it has itself, and no journals",
            resume.display()
        ));
        problem.hint(format!(
            "{NUMBER}; or add --server none to continue from the journal of a run of this machine"
        ))
    })?;
    match context.dry_run {
        false => Ok(Some(number)),
        true => {
            let problem = Problem::new("--dry-run does not show what is left of a run of a service");
            Err(problem.hint("remove --resume, to see what a new run would do"))
        }
    }
}

/// Starts a run as it was planned, or continues one; or returns the signal after which the service has not answered any more.
///
/// # Errors
/// The service refuses it.
async fn start(
    client: &Client,
    resumed: Option<u64>,
    request: &RunRequest,
    plan: Option<&PlanReport>,
    interrupts: &Interrupts,
    context: &Context,
) -> Result<Result<RunSummary, Signal>, ClientError> {
    let mut starting = pin!(async {
        match (resumed, plan) {
            (Some(run), Some(plan)) => client.resume(run, request, plan).await,
            (None, Some(plan)) => client.start_planned(request, plan).await,
            (_, None) => client.start(request).await,
        }
    });
    let run = tokio::select! {
        run = &mut starting => run?,
        // A start that was sent may be carried out. The same request is waited for, and the run is stopped then; another
        // one would have a key of its own, and start a second run.
        signal = interrupts.first() => match timeout(TELL_TIMEOUT, &mut starting).await {
            Ok(run) => run?,
            Err(_) => {
                context.console.warning(
                    "interrupted; the service has not answered, and may have started the run: look at its page",
                );
                return Ok(Err(signal));
            }
        },
    };
    tracing::info!(run = run.id, "started");
    Ok(Ok(run))
}

/// Runs an operation that reads and makes no files through the service, as a part of a report. Returns whether all of it could be
/// read.
///
/// # Errors
/// Why there is no such run.
pub(crate) async fn run_part(
    client: &Client,
    request: &RunRequest,
    report: &mut Report<'_>,
    interrupts: &Interrupts,
    context: &Context,
    seen: impl FnMut(&Outcome),
) -> Result<bool, Failure> {
    let started = start(client, None, request, None, interrupts, context).await;
    let Ok(RunSummary { id: run, .. }) = started.map_err(Problem::from)? else { return Ok(false) };
    let signals = AbortOnDropHandle::new(tokio::spawn(tell(client.clone(), run, interrupts.clone())));
    let is_whole = drive(&mut Remote::plain(client.run_events(run)), report, interrupts, seen).await;
    drop(signals);
    Ok(is_whole)
}

/// The events of a run of the service.
struct Remote {
    events: Events,
    liveness: Liveness,
    /// The service was ended under the run.
    is_interrupted: bool,
}

impl Remote {
    fn plain(events: RunEvents) -> Self {
        Remote { liveness: events.liveness(), events: Events::Plain(events), is_interrupted: false }
    }
}

enum Events {
    Plain(RunEvents),
    /// After its files were fetched, by a task.
    Fetched(
        mpsc::Receiver<Result<Option<RunEvent>, ClientError>>,
        #[expect(dead_code, reason = "the task ends with it")] AbortOnDropHandle<()>,
    ),
}

/// The events of a run, whose outcomes name the files of this machine.
fn follow(client: &Client, mut files: RunFiles, run: &RunSummary) -> Remote {
    let mut events = client.run_events_after(run.id, run.resumed_after);
    if files.is_empty() {
        return Remote::plain(events);
    }
    let liveness = events.liveness();
    let (sender, receiver) = mpsc::channel(AHEAD);
    let task = tokio::spawn(async move {
        loop {
            let mut event = events.next().await;
            if let Ok(Some(event)) = &mut event {
                files.localise(event).await;
            }
            let is_last = !matches!(event, Ok(Some(_)));
            if sender.send(event).await.is_err() || is_last {
                return;
            }
        }
    });
    let events = Events::Fetched(receiver, AbortOnDropHandle::new(task));
    Remote { events, liveness, is_interrupted: false }
}

impl batch::Events for &mut Remote {
    async fn next(&mut self) -> Result<Option<RunEvent>, Problem> {
        let event = match &mut self.events {
            Events::Plain(events) => events.next().await,
            Events::Fetched(events, _) => events.recv().await.transpose().map(Option::flatten),
        };
        self.is_interrupted |= matches!(event, Err(ClientError::Interrupted { .. }));
        event.map_err(Problem::from)
    }

    fn silent_for(&self) -> Option<Duration> {
        self.liveness.silent_for()
    }
}

/// Passes signals on to the service: the first stops the run, the second ends it at once.
async fn tell(client: Client, run: u64, interrupts: Interrupts) {
    let control = interrupts.control();
    control.stop.cancelled().await;
    // If it fails the next signal is still passed on; the report says what became of the run.
    let _unheard = timeout(TELL_TIMEOUT, client.stop(run)).await;
    control.abort.cancelled().await;
    let _unheard = timeout(TELL_TIMEOUT, client.abort(run)).await;
}

pub(crate) fn would_be(plan: &PlanReport, target: &PlannedTarget) -> Outcome {
    let PlannedTarget { host, vm, uuid, state, listed, dry_run, refusal } = target;
    // A service of an earlier version says no more of a VM than its state.
    let known = || Some(DomainInfo::new(vm.as_ref()?, (*uuid)?, (*state)?));
    let domain = listed.clone().or_else(known);
    let refusal = refusal.clone().filter(|_| *dry_run == DryRun::NotRunning);
    let data = domain.map(Data::Domain);
    Outcome { vm: vm.clone(), uuid: *uuid, ..dry_run::would_be(&plan.op, host, data, *dry_run, refusal) }
}
