//! A run of one operation, from a request to its outcomes.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use atp_api::{
    Effect, ErrorKind, OperationSpec, Outcome, OutcomeError, PlanReport, RunEvent, RunRequest, RunStatistics,
    StopReason,
};
use atp_client::{Client, ClientError, Lost, RunFiles, Told};
use atp_executor::{Executor, Operation, Plan, Recorder, RunControl, Selection, Target};
use futures_util::future::join;
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{Answer, Bridge};
use crate::driver::{Driver, Spawner};
use crate::error::{self, Failure};
use crate::forked::Forked;
use crate::frame::Shape;
use crate::journal::{self, Noted};
use crate::outcomes::{Outcomes, Taken};
use crate::wait::wait;

/// Outcomes that may be there before they are taken. Then no more targets are started.
const AHEAD: usize = 256;

/// The pauses between tries to stop or to end a run of a service, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where work is done.
#[derive(Clone)]
pub(crate) enum Backend {
    /// By this process, on hosts that it connects to.
    Hosts(Executor),
    /// By a service.
    Service(Box<Client>),
}

/// What is to be run.
pub(crate) struct Asked {
    pub(crate) request: RunRequest,
    /// What is recorded of it, and what it continues.
    pub(crate) noted: Noted,
    /// The one target, if it is known. A service finds it by its name.
    pub(crate) found: Option<Arc<Mutex<Target>>>,
}

impl Asked {
    /// Whether the run does something at its end when it is stopped: the teardown of a scenario.
    fn has_teardown(&self) -> bool {
        matches!(self.request.operation, OperationSpec::Scenario(_))
    }
}

/// A run under way. Dropping it ends the run at once.
#[pyclass(frozen)]
pub(crate) struct Run(Forked<Parts>);

struct Parts {
    spawner: Spawner,
    control: RunControl,
    has_teardown: bool,
    shared: Arc<Shared>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.control.abort.cancel();
    }
}

struct Shared {
    /// One reader at a time takes outcomes.
    outcomes: tokio::sync::Mutex<Receiver<Result<Outcome, OutcomeError>>>,
    /// Why there are no more outcomes, after those that came before.
    failed: Mutex<Option<OutcomeError>>,
    ending: Arc<Mutex<Ending>>,
    /// The columns of the outcomes.
    shape: Shape,
}

/// What is known of a run beside its outcomes.
#[derive(Default)]
struct Ending {
    /// Whether anything may have been sent to a target.
    has_begun: bool,
    has_ended: bool,
    statistics: Option<RunStatistics>,
    notices: Vec<String>,
    /// The number of targets that an earlier run has done.
    done_before: usize,
    /// Its number, where a service runs it.
    number: Option<u64>,
}

impl Ending {
    fn note(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Begun(start) => self.done_before = start.done_before,
            // Every target may have been started by then: no outcome says it.
            RunEvent::Stopping(StopReason::JournalFailed { error }) => {
                let said: Vec<_> = [&error.message].into_iter().chain(&error.causes).cloned().collect();
                self.notices.push(said.join(": "));
            }
            RunEvent::Ended(statistics) => {
                self.has_ended = true;
                self.statistics = Some((**statistics).clone());
            }
            _ => {}
        }
    }
}

/// Where events of a run go: those that are read from it are sent to its reader.
pub(crate) struct Sink<T> {
    pub(crate) sender: Sender<Result<T, OutcomeError>>,
    /// What the reader gets of an event, if anything.
    pub(crate) read: fn(RunEvent) -> Result<Option<T>, OutcomeError>,
    ending: Arc<Mutex<Ending>>,
}

impl<T> Sink<T> {
    pub(crate) fn new(
        sender: Sender<Result<T, OutcomeError>>,
        read: fn(RunEvent) -> Result<Option<T>, OutcomeError>,
    ) -> Self {
        Sink { sender, read, ending: Arc::default() }
    }

    /// Passes an event on. False if its reader has left, or the run is to end and nothing is read.
    async fn pass_on(&self, event: RunEvent, abort: &CancellationToken) -> bool {
        self.ending.lock().note(&event);
        let Some(item) = (self.read)(event).transpose() else { return true };
        tokio::select! {
            biased;
            sent = self.sender.send(item) => sent.is_ok(),
            () = abort.cancelled() => false,
        }
    }
}

/// How a run is ended: what ends it at once stops it too.
pub(crate) fn control(abort: CancellationToken) -> RunControl {
    RunControl { stop: abort.child_token(), abort }
}

/// Has a request run, and passes on what happens.
///
/// # Errors
/// The run could not be made, or was lost.
pub(crate) async fn drive<T>(
    backend: Backend,
    asked: Asked,
    control: RunControl,
    sink: &Sink<T>,
) -> Result<(), OutcomeError> {
    // On the heap, as the larger parts of them are: the futures around them are moved several times on the way to where they are polled.
    match backend {
        Backend::Hosts(executor) => Box::pin(on_hosts(executor, asked, control, sink)).await,
        Backend::Service(client) => Box::pin(in_service(*client, asked, control, sink)).await,
    }
}

/// The outcome of an event, if it is one.
fn outcome(event: RunEvent) -> Result<Option<Outcome>, OutcomeError> {
    match event {
        RunEvent::Finished(outcome) => Ok(Some(*outcome)),
        _ => Ok(None),
    }
}

/// Has a request run, and what is read of it passed to `Shared`.
fn driven(
    backend: Backend,
    asked: Asked,
    control: RunControl,
) -> (impl Future<Output = ()> + Send + use<>, Shared) {
    let (sender, receiver) = channel(AHEAD);
    let sink = Sink::new(sender, outcome);
    let (outcomes, failed) = (tokio::sync::Mutex::new(receiver), Mutex::default());
    let shape = Shape::of(&asked.request.operation);
    let shared = Shared { outcomes, failed, ending: sink.ending.clone(), shape };
    let driving = async move {
        if let Err(error) = drive(backend, asked, control, &sink).await {
            // Fails if the reader has left.
            let _unheard = sink.sender.send(Err(error)).await;
        }
    };
    (driving, shared)
}

/// Waits. If the run has a teardown, the first interrupt stops the run and the teardown is waited for; the second ends the wait.
fn until_interrupted<T>(
    has_teardown: bool,
    control: &RunControl,
    mut wait: impl FnMut() -> PyResult<T>,
) -> PyResult<T> {
    let interrupted = match wait() {
        Err(interrupted) if has_teardown => interrupted,
        waited => return waited,
    };
    control.stop.cancel();
    wait().and(Err(interrupted))
}

/// Has a request run on the hosts, and waits for all outcomes, in the order of reports. The run ends at once with `abort`, or if the
/// wait is interrupted (a scenario: with its teardown, or if it is interrupted again); the wait ends with `closed`.
pub(crate) fn run_on_hosts(
    py: Python<'_>,
    driver: &Driver,
    runs: &TaskTracker,
    executor: Executor,
    asked: Asked,
    abort: CancellationToken,
    closed: &CancellationToken,
) -> PyResult<Outcomes> {
    let (has_teardown, control) = (asked.has_teardown(), control(abort));
    let (driving, shared) = driven(Backend::Hosts(executor), asked, control.clone());
    let collected = async {
        tokio::select! {
            biased;
            ((), collected) = join(driving, shared.collect()) => collected,
            () = closed.cancelled() => Err(shared.failure(error::closed())),
        }
    };
    let mut collected = pin!(runs.track_future(collected));
    let collected = until_interrupted(has_teardown, &control, || driver.wait(py, collected.as_mut()))?;
    collected.map(Outcomes::from).map_err(|failure| error::failed(py, &failure))
}

impl Run {
    /// Begins a run. It ends at once with `abort`.
    pub(crate) fn begin(
        spawner: &Spawner,
        runs: &TaskTracker,
        backend: Backend,
        asked: Asked,
        abort: CancellationToken,
    ) -> Self {
        let (has_teardown, control) = (asked.has_teardown(), control(abort));
        let (driving, shared) = driven(backend, asked, control.clone());
        spawner.spawn(runs.track_future(driving));
        let shared = Arc::new(shared);
        Run(Forked::new(Parts { spawner: spawner.clone(), control, has_teardown, shared }))
    }
}

#[pymethods]
impl Run {
    /// Waits for all outcomes, in the order of reports.
    pub(crate) fn collect(&self, py: Python<'_>) -> PyResult<Outcomes> {
        let parts = self.0.get(py)?;
        let mut collected = pin!(Shared::collect(&parts.shared));
        let collected =
            until_interrupted(parts.has_teardown, &parts.control, || wait(py, collected.as_mut()));
        let collected = collected.inspect_err(|_| parts.control.abort.cancel())?;
        collected.map(Outcomes::from).map_err(|failure| error::failed(py, &failure))
    }

    /// Waits for the next outcomes; there are none at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Outcomes> {
        let parts = self.0.get(py)?;
        let next = wait(py, Shared::next(&parts.shared)).inspect_err(|_| parts.control.abort.cancel())?;
        next.map(Outcomes::from).map_err(|failure| error::failed(py, &failure))
    }

    /// As `collect`, for an event loop: the answer comes under this id.
    fn collect_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, shared) = (bridge.promise(id, Effect::Unknown), parts.shared.clone());
        parts
            .spawner
            .spawn(async move { promise.keep(Shared::collect(&shared).await.map(Answer::Outcomes)) });
        Ok(())
    }

    /// As `next`, for an event loop: the answer comes under this id.
    fn next_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, shared) = (bridge.promise(id, Effect::Unknown), parts.shared.clone());
        parts.spawner.spawn(async move { promise.keep(Shared::next(&shared).await.map(Answer::Outcomes)) });
        Ok(())
    }

    /// The number of the run in the service; none before it was begun there, and without a service.
    #[getter]
    fn run_number(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        Ok(self.0.get(py)?.shared.ending.lock().number)
    }

    /// What is known by now of how the run was planned, and of what went wrong with its journal.
    #[getter]
    fn notices(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.0.get(py)?.shared.ending.lock().notices.clone())
    }

    /// The number of targets that an earlier run has done, if it is known by now.
    #[getter]
    fn done_before(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.get(py)?.shared.ending.lock().done_before)
    }

    /// Starts no more targets, and ends what goes on without an end of its own, such as the capture of a console. Outcomes still come.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.control.stop.cancel();
        Ok(())
    }

    /// Ends the run at once: targets under way are cancelled.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.control.abort.cancel();
        Ok(())
    }
}

impl Shared {
    async fn collect(&self) -> Result<Taken, Failure> {
        let mut all = Vec::new();
        loop {
            let taken = self.next().await?;
            if taken.outcomes.is_empty() {
                all.sort_by(Outcome::report_order);
                return Ok(Taken { outcomes: all, ..taken });
            }
            all.extend(taken.outcomes);
        }
    }

    /// An error that comes when the run had begun says nothing of what was done.
    fn failure(&self, error: OutcomeError) -> Failure {
        let effect = if self.ending.lock().has_begun { Effect::Unknown } else { Effect::None };
        Failure { effect, ..Failure::from(error) }
    }

    async fn next(&self) -> Result<Taken, Failure> {
        let failure = |error| self.failure(error);
        let mut received = Vec::new();
        let mut outcomes = self.outcomes.lock().await;
        if let Some(error) = self.failed.lock().take() {
            return Err(failure(error));
        }
        outcomes.recv_many(&mut received, AHEAD).await;
        let outcomes = error::until_error(received, &self.failed).map_err(failure)?;
        let mut taken = Taken { outcomes, shape: self.shape, ..Taken::default() };
        if taken.outcomes.is_empty() {
            let has_ended = self.ending.lock().has_ended;
            if !has_ended {
                return Err(failure(error::closed()));
            }
            let ending = self.ending.lock();
            taken.statistics = ending.statistics.clone();
            taken.notices = ending.notices.clone();
            taken.done_before = ending.done_before;
            taken.number = ending.number;
        }
        Ok(taken)
    }
}

/// What a request would do, without doing it.
///
/// # Errors
/// There is no plan: the request is wrong, or the service does not answer.
pub(crate) async fn plan(
    backend: Backend,
    asked: Asked,
    control: RunControl,
) -> Result<PlanReport, OutcomeError> {
    match backend {
        Backend::Hosts(executor) => {
            Box::pin(planned(&executor, asked, &control)).await.map(|(plan, _)| plan.report())
        }
        Backend::Service(client) => {
            let RunRequest { targets, operation, policy, .. } = asked.request;
            let operation = Operation::prepare(operation).await?;
            let files = RunFiles::send(&client, &operation).await?;
            let request = RunRequest::new(targets, files.operation().clone(), policy);
            client.plan(&request).await.map_err(|error| error::of_client(&error))
        }
    }
}

/// The plan of a request on the hosts, with what records it.
async fn planned(
    executor: &Executor,
    Asked { request, noted, found }: Asked,
    control: &RunControl,
) -> Result<(Plan, journal::Open), OutcomeError> {
    let RunRequest { targets, operation, policy, .. } = request;
    // A VM that was found is not selected again.
    let selection = match found {
        Some(_) => Selection::default(),
        None => Selection::try_from(&targets).map_err(|error| error::of_selector(&error))?,
    };
    let operation = Box::pin(Operation::prepare(operation)).await?;
    let open = Box::pin(noted.read(&operation)).await?;
    let plan = match found {
        Some(found) => {
            let target = found.lock().clone();
            let plan = Box::pin(executor.plan_found(&target, operation, policy, control)).await;
            if let [now] = &plan.targets[..] {
                found.lock().clone_from(now);
            }
            plan
        }
        None => {
            let plan = Box::pin(executor.plan_until_stopped(&selection, operation, policy, control)).await;
            plan.map_err(|error| error::of_plan(&error))?
        }
    };
    Ok((open.left_of(plan), open))
}

/// Runs a request on the hosts, and passes on what happens.
async fn on_hosts<T>(
    executor: Executor,
    asked: Asked,
    control: RunControl,
    sink: &Sink<T>,
) -> Result<(), OutcomeError> {
    let (plan, open) = Box::pin(planned(&executor, asked, &control)).await?;
    // Where nothing is begun nothing is recorded.
    let is_idle = plan.matched_nothing() || control.stop.is_cancelled();
    let recorder: Option<Arc<dyn Recorder>> =
        if is_idle { None } else { Box::pin(open.begin(&plan)).await? };
    {
        let mut ending = sink.ending.lock();
        ending.notices = plan.notices.iter().map(ToString::to_string).collect();
        ending.has_begun = true;
    }
    // Dropping the run ends it.
    let mut run = executor.run_noted(plan, recorder, &control);
    loop {
        let event = tokio::select! {
            event = run.next() => event,
            () = sink.sender.closed() => return Ok(()),
        };
        let Some(event) = event else { return Ok(()) };
        if !sink.pass_on(event, &control.abort).await {
            return Ok(());
        }
    }
}

/// Has a request run by a service, and passes on what happens. If the service is lost, each target of which it has told nothing has an
/// outcome that says so.
async fn in_service<T>(
    client: Client,
    Asked { request, noted, .. }: Asked,
    control: RunControl,
    sink: &Sink<T>,
) -> Result<(), OutcomeError> {
    let resumed = noted.number()?;
    let operation = Operation::prepare(request.operation).await?;
    let planning = async {
        let mut files = RunFiles::send(&client, &operation).await?;
        let request = RunRequest { operation: files.operation().clone(), ..request };
        let plan = client.plan(&request).await.map_err(|error| error::of_client(&error))?;
        files.planned(&plan).await?;
        let request = RunRequest { operation: files.operation().clone(), ..request };
        Ok::<_, OutcomeError>((files, request, plan))
    };
    let (mut files, request, plan) = tokio::select! {
        planned = planning => planned?,
        // Nothing has begun.
        () = control.abort.cancelled() => return Err(error::closed()),
    };
    {
        let mut ending = sink.ending.lock();
        ending.notices.clone_from(&plan.notices);
        ending.has_begun = true;
    }
    // A start that was sent is waited for: the run is then ended by its number.
    let started = match resumed {
        Some(run) => client.resume(run, &request, &plan).await,
        None => client.start_planned(&request, &plan).await,
    };
    let begun = match started {
        Ok(begun) => begun,
        Err(error) if error.effect() != Effect::None && resumed.is_none() => {
            return lost(&error, Lost::AtStart, plan, &Told::default(), &control, sink).await;
        }
        Err(error) => {
            sink.ending.lock().has_begun = error.effect() != Effect::None;
            return Err(error::of_client(&error));
        }
    };
    let run = begun.id;
    sink.ending.lock().number = Some(run);
    let mut told = Told::default();
    let reading = async {
        let mut events = client.run_events_after(run, begun.resumed_after);
        loop {
            let mut event = match events.next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                // Of a run that is continued it is not known here which targets it still has.
                Err(error) if resumed.is_some() => return Err(error::of_client(&error)),
                Err(error @ ClientError::Interrupted { .. }) => {
                    return lost(&error, Lost::Interrupted(run), plan, &told, &control, sink).await;
                }
                Err(error) => return lost(&error, Lost::During(run), plan, &told, &control, sink).await,
            };
            if let RunEvent::Finished(outcome) = &event {
                told.add(outcome);
            }
            files.localise(&mut event).await;
            if !sink.pass_on(event, &control.abort).await {
                let _unheard = insist(&client, run, true).await;
                return Ok(());
            }
        }
    };
    // Whatever is being read or fetched, the service is told at once.
    tokio::select! {
        ended = reading => ended,
        () = tell(&client, run, &control, sink) => Ok(()),
    }
}

/// Passes the outcomes on of the targets of which a service that is lost has told none, and ends the run.
async fn lost<T>(
    error: &ClientError,
    how: Lost,
    plan: PlanReport,
    told: &Told,
    control: &RunControl,
    sink: &Sink<T>,
) -> Result<(), OutcomeError> {
    sink.ending.lock().notices.push(error.to_string());
    for outcome in told.untold(plan, how) {
        if !sink.pass_on(RunEvent::Finished(Box::new(outcome)), &control.abort).await {
            return Ok(());
        }
    }
    sink.ending.lock().has_ended = true;
    Ok(())
}

/// Tells the service to stop or to end a run when that is asked for. Returns when its reader has left.
async fn tell<T>(client: &Client, run: u64, control: &RunControl, sink: &Sink<T>) {
    let telling = async {
        control.stop.cancelled().await;
        tokio::select! {
            biased;
            () = control.abort.cancelled() => {}
            () = async {
                note(insist(client, run, false).await, run, sink);
                control.abort.cancelled().await;
            } => {}
        }
        note(insist(client, run, true).await, run, sink);
        pending::<()>().await;
    };
    tokio::select! {
        () = telling => {}
        () = sink.sender.closed() => {
            // There is no reader to tell whether it has ended.
            let _unheard = insist(client, run, true).await;
        }
    }
}

/// Stops a run, or ends it at once; tries again while that may still succeed. That the run has ended is no error.
async fn insist(client: &Client, run: u64, at_once: bool) -> Option<ClientError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let done = if at_once { client.abort(run).await } else { client.stop(run).await };
        match done {
            Ok(()) => return None,
            Err(ClientError::Refused(problem)) if problem.kind == ErrorKind::Conflict => return None,
            Err(error) if !error.is_temporary() || pause > LONGEST_PAUSE => return Some(error),
            Err(_) => sleep(pause).await,
        }
        pause = pause.saturating_mul(2);
    }
}

/// A run that could not be ended goes on in the service.
fn note<T>(failed: Option<ClientError>, run: u64, sink: &Sink<T>) {
    if let Some(error) = failed {
        sink.ending.lock().notices.push(format!("run {run} of the service was not ended: {error}"));
    }
}
