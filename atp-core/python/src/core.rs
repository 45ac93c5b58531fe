//! A fleet: its hosts or its service, and the threads that work for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use atp_api::{
    Effect, OperationSpec, OutcomeError, PlanReport, Policy, RunEvent, RunRequest, StateFilter, Targets,
};
use atp_client::{Client, ClientOptions, VmDevice};
use atp_executor::{Executor, Scenario};
use atp_settings::mask_uri;
use atp_transport::TransportManager;
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{Answer, Bridge};
use crate::driver::Driver;
use crate::error::{self, Failure};
use crate::feed::{self, Feed};
use crate::forked::Forked;
use crate::frame::Shape;
use crate::journal::Noted;
use crate::json;
use crate::outcomes::{self, Found, Outcomes};
use crate::pipe::{self, Opening, Pipe, Way};
use crate::reservations::{self, Claim, Granted};
use crate::run::{self, Asked, Backend, Run, Sink, control, drive, run_on_hosts};
use crate::settings::{self, Chosen, Settings};
use crate::wait::wait;

/// How long runs are given to end when the fleet is closed: their outcomes are taken, and a service is told.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How long hosts are given to take leave. A daemon logs an error for each client that leaves without it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// A fleet: hosts that this process connects to, or a service that does.
#[pyclass(frozen, weakref)]
pub(crate) struct Core(Forked<Parts>);

struct Parts {
    /// None when the fleet is closed.
    driver: Mutex<Option<Arc<Driver>>>,
    backend: Backend,
    manager: Option<TransportManager>,
    policy: Policy,
    /// The file of reservations that the settings name.
    reservations: Option<PathBuf>,
    /// Ends all runs.
    abort: CancellationToken,
    /// Ends what still waits when the fleet is closed.
    closed: CancellationToken,
    /// The runs.
    runs: TaskTracker,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.abort.cancel();
        let Some(driver) = self.driver.get_mut().take() else { return };
        self.runs.close();
        if !self.runs.is_empty() {
            // As when it is closed, runs are given time to tell a service of their end. Nothing waits for it.
            let (spawner, runs) = (driver.spawner().clone(), self.runs.clone());
            spawner.spawn(async move {
                let _have_ended = timeout(END_TIMEOUT, runs.wait()).await;
                drop(driver);
            });
        }
    }
}

impl Parts {
    fn new(
        driver: Driver,
        backend: Backend,
        manager: Option<TransportManager>,
        policy: Policy,
        reservations: Option<PathBuf>,
    ) -> Forked<Self> {
        let driver = Mutex::new(Some(Arc::new(driver)));
        let (abort, closed, runs) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        Forked::new(Parts { driver, backend, manager, policy, reservations, abort, closed, runs })
    }

    /// What is to be run: a request, as JSON, and its one target if that is known.
    fn asked(&self, py: Python<'_>, request: &str, found: Option<&Found>) -> PyResult<Asked> {
        let (request, noted) =
            read_request(request, &self.policy).map_err(|error| error::exception(py, &error))?;
        Ok(Asked { request, noted, found: found.map(|found| found.0.clone()) })
    }

    /// Plans a request, as JSON, when it is awaited. The plan, and its settled outcomes, are JSON.
    fn planning(
        &self,
        py: Python<'_>,
        request: &str,
    ) -> PyResult<impl Future<Output = Result<Vec<String>, OutcomeError>> + Send + use<>> {
        let asked = self.asked(py, request, None)?;
        let is_service = matches!(self.backend, Backend::Service(_));
        asked.noted.check_for_plan(is_service).map_err(|error| error::exception(py, &error))?;
        let (backend, shape) = (self.backend.clone(), Shape::of(&asked.request.operation));
        let (control, closed) = (control(self.abort.child_token()), self.closed.clone());
        Ok(async move {
            let planned = tokio::select! {
                planned = run::plan(backend, asked, control) => planned?,
                () = closed.cancelled() => return Err(error::closed()),
            };
            let PlanReport { settled, .. } = &planned;
            Ok(vec![json::text(&planned)?, outcomes::settled(settled.clone(), shape)?])
        })
    }

    /// # Errors
    /// The fleet is closed.
    fn driver(&self, py: Python<'_>) -> PyResult<Arc<Driver>> {
        let driver = self.driver.lock().clone();
        driver.ok_or_else(|| error::exception(py, &error::closed()))
    }

    /// # Errors
    /// The fleet has hosts, and no service.
    fn client(&self, py: Python<'_>) -> PyResult<Client> {
        match &self.backend {
            Backend::Service(client) => Ok((**client).clone()),
            Backend::Hosts(_) => Err(error::exception(py, &error::invalid("the fleet has no service"))),
        }
    }

    /// Asks which hosts there are, when it is awaited. They are JSON.
    fn hosts(&self) -> impl Future<Output = Result<String, OutcomeError>> + Send + use<> {
        let here = self.manager.as_ref().map(views);
        let (backend, closed) = (self.backend.clone(), self.closed.clone());
        async move {
            let Backend::Service(client) = backend else { return json::text(&here) };
            tokio::select! {
                hosts = client.hosts(&[]) => json::text(&hosts.map_err(|error| error::of_client(&error))?),
                () = closed.cancelled() => Err(error::closed()),
            }
        }
    }

    /// Ends all runs and closes all connections.
    fn close(&self) {
        self.abort.cancel();
        let Some(driver) = self.driver.lock().take() else { return };
        self.runs.close();
        // What has not ended by then is left, as are connections.
        let _have_ended = driver.block_on(async { timeout(END_TIMEOUT, self.runs.wait()).await });
        if let Some(manager) = &self.manager {
            let closing = async { timeout(CLOSE_TIMEOUT, manager.close(Duration::ZERO)).await };
            let _is_drained = driver.block_on(closing);
        }
        self.closed.cancel();
    }

    /// Opens the console of this alias of a VM, by default the first, or the channel of this name, when it is awaited.
    fn opening(
        &self,
        py: Python<'_>,
        found: &Found,
        device: Option<String>,
        channel: Option<String>,
        force: bool,
        limit: Option<f64>,
    ) -> PyResult<impl Future<Output = Result<Pipe, Failure>> + Send + use<>> {
        let way = match (&self.backend, &self.manager) {
            (Backend::Hosts(_), Some(manager)) => Way::Hosts(manager.clone()),
            _ => Way::Service(Box::new(self.client(py)?)),
        };
        let device = channel.map_or(VmDevice::Console(device), VmDevice::Channel);
        let limit = pipe::duration(py, limit)?.unwrap_or(self.policy.timeout);
        let opening = Opening { way, target: found.0.lock().clone(), device, force, limit };
        let (spawner, runs) = (self.driver(py)?.spawner().clone(), self.runs.clone());
        let (abort, end) = (self.abort.clone(), self.abort.child_token());
        Ok(async move {
            tokio::select! {
                opened = opening.open(spawner, runs, end) => opened,
                () = abort.cancelled() => Err(error::closed().into()),
            }
        })
    }

    /// Asks the service for free VMs, when it is awaited.
    fn reserving(
        &self,
        py: Python<'_>,
        request: &str,
    ) -> PyResult<impl Future<Output = Result<Granted, Failure>> + Send + use<>> {
        let request = serde_json::from_str(request);
        let request = request.map_err(|error| error::exception(py, &error::invalid(error.to_string())))?;
        Ok(Granted::ask(self.client(py)?, request, self.driver(py)?.spawner().clone(), self.runs.clone()))
    }
}

impl Core {
    /// Waits for an answer of the service. Closing the fleet gives it a moment to come.
    fn ask<T: Send + 'static>(
        &self,
        py: Python<'_>,
        asking: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> PyResult<T> {
        let parts = self.0.get(py)?;
        let (sender, receiver) = oneshot::channel();
        let answering = async move {
            // Fails if the caller was interrupted.
            let _unheard = sender.send(asking.await);
        };
        parts.driver(py)?.spawner().spawn(parts.runs.track_future(answering));
        let closed = || Failure { effect: Effect::Unknown, ..Failure::from(error::closed()) };
        let answer = wait(py, receiver)?.unwrap_or_else(|_| Err(closed()));
        answer.map_err(|failure| error::failed(py, &failure))
    }
}

#[pymethods]
impl Core {
    /// The fleet of settings: hosts that this process connects to, or the service that they name. `values` is JSON: pairs of a path
    /// and a value.
    #[staticmethod]
    fn of_settings(
        py: Python<'_>,
        file: Option<PathBuf>,
        with_own_files: bool,
        has_hosts: bool,
        variables: Vec<(String, String)>,
        values: &str,
    ) -> PyResult<Self> {
        let open = || {
            let values = serde_json::from_str(values).map_err(|error| error::invalid(error.to_string()))?;
            let given = settings::Given { file, with_own_files, has_hosts, variables, values };
            let Settings { backend, policy, reservations } = Settings::load(given)?;
            let fleet = match backend {
                Chosen::Service(options) => return service(options, policy),
                Chosen::Hosts(fleet) => *fleet,
            };
            let driver = Driver::new()?;
            let manager = TransportManager::new(fleet.config.clone());
            let applied = {
                let _runtime = driver.handle().enter();
                manager.apply(fleet)
            };
            applied.map_err(|error| OutcomeError::of(error.kind(), &error))?;
            let backend = Backend::Hosts(Executor::new(manager.clone()));
            Ok::<_, OutcomeError>(Core(Parts::new(driver, backend, Some(manager), policy, reservations)))
        };
        py.detach(open).map_err(|error| error::exception(py, &error))
    }

    /// A fleet that a service works on.
    #[staticmethod]
    fn of_service(py: Python<'_>, url: &str, token: &str, ca_file: Option<PathBuf>) -> PyResult<Self> {
        let options = ClientOptions::new(url, token);
        let options = match ca_file {
            Some(file) => options.with_ca_file(file),
            None => options,
        };
        py.detach(|| service(options, Policy::default())).map_err(|error| error::exception(py, &error))
    }

    /// Whether a service does the work.
    #[getter]
    fn is_service(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(matches!(self.0.get(py)?.backend, Backend::Service(_)))
    }

    /// Starts a run of a request, as JSON, on its one target if that is known. Its policy has only what differs from the fleet's.
    #[pyo3(signature = (request, found=None))]
    fn start(&self, py: Python<'_>, request: &str, found: Option<&Found>) -> PyResult<Run> {
        let parts = self.0.get(py)?;
        let driver = parts.driver(py)?;
        let asked = parts.asked(py, request, found)?;
        let (backend, abort) = (parts.backend.clone(), parts.abort.child_token());
        Ok(Run::begin(driver.spawner(), &parts.runs, backend, asked, abort))
    }

    /// As `start`, and waits for all outcomes, in the order of reports.
    #[pyo3(signature = (request, found=None))]
    fn run(&self, py: Python<'_>, request: &str, found: Option<&Found>) -> PyResult<Outcomes> {
        let parts = self.0.get(py)?;
        let Backend::Hosts(executor) = &parts.backend else {
            return self.start(py, request, found)?.collect(py);
        };
        let driver = parts.driver(py)?;
        let asked = parts.asked(py, request, found)?;
        let abort = parts.abort.child_token();
        run_on_hosts(py, &driver, &parts.runs, executor.clone(), asked, abort, &parts.closed)
    }

    /// What a request, as JSON, would do: the plan and its settled outcomes, as JSON.
    fn plan(&self, py: Python<'_>, request: &str) -> PyResult<Vec<String>> {
        let parts = self.0.get(py)?;
        let planned = parts.driver(py)?.wait(py, Box::pin(parts.planning(py, request)?))?;
        planned.map_err(|error| error::exception(py, &error))
    }

    /// As `plan`, for an event loop: the answer comes under this id.
    fn plan_into(&self, py: Python<'_>, request: &str, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (planning, promise) = (parts.planning(py, request)?, bridge.promise(id, Effect::None));
        parts.driver(py)?.spawner().spawn(async move {
            promise.keep(planning.await.map(Answer::Texts).map_err(Failure::from));
        });
        Ok(())
    }

    /// Begins to watch VMs, for so many milliseconds if they are given. `targets` are JSON.
    #[pyo3(signature = (targets, monitor_events, limit_ms=None))]
    fn watch(
        &self,
        py: Python<'_>,
        targets: &str,
        monitor_events: bool,
        limit_ms: Option<u64>,
    ) -> PyResult<Feed> {
        let parts = self.0.get(py)?;
        let (driver, end) = (parts.driver(py)?, parts.abort.child_token());
        let (backend, targets) = (parts.backend.clone(), read_targets(py, targets)?);
        let until = end.clone();
        Ok(Feed::begin(driver.spawner(), end, feed::AHEAD, |sender| async move {
            let watching = feed::watch(backend, targets, monitor_events, until, sender);
            match limit_ms.map(Duration::from_millis) {
                Some(limit) => timeout(limit, watching).await.unwrap_or(Ok(())),
                None => watching.await,
            }
        }))
    }

    /// Begins to measure VMs, every so many milliseconds. `targets` are JSON.
    fn sample(&self, py: Python<'_>, targets: &str, interval_ms: u64) -> PyResult<Feed> {
        let parts = self.0.get(py)?;
        let (driver, end) = (parts.driver(py)?, parts.abort.child_token());
        let (backend, targets) = (parts.backend.clone(), read_targets(py, targets)?);
        let (until, interval) = (end.clone(), Duration::from_millis(interval_ms));
        Ok(Feed::begin(driver.spawner(), end, feed::ROUNDS_AHEAD, |sender| {
            feed::sample(backend, targets, interval, until, sender)
        }))
    }

    /// Starts a run of a request, as JSON, whose lines of consoles are wanted, and its outcomes.
    fn lines(&self, py: Python<'_>, request: &str) -> PyResult<Feed> {
        let parts = self.0.get(py)?;
        let (driver, end) = (parts.driver(py)?, parts.abort.child_token());
        let asked = parts.asked(py, request, None)?;
        let (backend, abort, runs) = (parts.backend.clone(), end.clone(), parts.runs.clone());
        let work = move |sender| {
            runs.track_future(
                async move { drive(backend, asked, control(abort), &Sink::new(sender, line)).await },
            )
        };
        Ok(Feed::begin(driver.spawner(), end, feed::AHEAD, work))
    }

    /// Opens the console of this alias of a VM, by default the first, or the channel of this name, within so many seconds.
    #[pyo3(signature = (found, device, channel, force, limit))]
    fn open(
        &self,
        py: Python<'_>,
        found: &Found,
        device: Option<String>,
        channel: Option<String>,
        force: bool,
        limit: Option<f64>,
    ) -> PyResult<Pipe> {
        let opening = self.0.get(py)?.opening(py, found, device, channel, force, limit)?;
        self.ask(py, opening)
    }

    /// As `open`, for an event loop: the answer comes under this id.
    #[expect(clippy::too_many_arguments, reason = "those of `open`, and where the answer goes")]
    fn open_into(
        &self,
        py: Python<'_>,
        found: &Found,
        device: Option<String>,
        channel: Option<String>,
        force: bool,
        limit: Option<f64>,
        bridge: &Bridge,
        id: u64,
    ) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let opening = parts.opening(py, found, device, channel, force, limit)?;
        let promise = bridge.promise(id, Effect::None);
        let answering = async move {
            promise.keep(opening.await.map(|pipe| Answer::made(|py| Ok(Py::new(py, pipe)?.into_any()))))
        };
        parts.driver(py)?.spawner().spawn(parts.runs.track_future(answering));
        Ok(())
    }

    /// The hosts, as JSON.
    fn hosts(&self, py: Python<'_>) -> PyResult<String> {
        let parts = self.0.get(py)?;
        let hosts = parts.driver(py)?.wait(py, parts.hosts())?;
        hosts.map_err(|error| error::exception(py, &error))
    }

    /// As `hosts`, for an event loop: the answer comes under this id.
    fn hosts_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, hosts) = (bridge.promise(id, Effect::None), parts.hosts());
        parts.driver(py)?.spawner().spawn(async move {
            let hosts = hosts.await.map(|hosts| Answer::Texts(vec![hosts]));
            promise.keep(hosts.map_err(Failure::from));
        });
        Ok(())
    }

    /// Asks the service for free VMs. `request` is JSON.
    fn reserve(&self, py: Python<'_>, request: &str) -> PyResult<Claim> {
        let asking = self.0.get(py)?.reserving(py, request)?;
        self.ask(py, asking).map(Claim::from)
    }

    /// As `reserve`, for an event loop: the answer comes under this id.
    fn reserve_into(&self, py: Python<'_>, request: &str, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let asking = parts.reserving(py, request)?;
        let promise = bridge.promise(id, Effect::Unknown);
        let answering = async move { promise.keep(asking.await.map(Answer::Reserved)) };
        parts.driver(py)?.spawner().spawn(parts.runs.track_future(answering));
        Ok(())
    }

    /// Ends reservations of an owner in the service: of the VMs that selectors match, or all. Returns them as JSON.
    fn release(&self, py: Python<'_>, owner: String, selectors: Vec<String>) -> PyResult<String> {
        let client = self.0.get(py)?.client(py)?;
        let asking = async move { reservations::release_in_service(&client, owner, selectors).await };
        self.ask(py, asking)
    }

    /// The reservations that the service has, as JSON.
    fn reservations(&self, py: Python<'_>) -> PyResult<String> {
        let client = self.0.get(py)?.client(py)?;
        let asking = async move {
            let listed = client.reservations().await.map_err(|error| error::of_client(&error))?;
            Ok(json::text(&listed)?)
        };
        self.ask(py, asking)
    }

    /// The file of reservations that the settings name.
    fn reservations_file(&self, py: Python<'_>) -> PyResult<Option<PathBuf>> {
        Ok(self.0.get(py)?.reservations.clone())
    }

    /// As `reserve`, in a file: VMs, each given as host, name and UUID. Returns the reservations as JSON, or else how many are free.
    fn reserve_in_file(
        &self,
        py: Python<'_>,
        file: PathBuf,
        candidates: Vec<(String, String, String)>,
        count: usize,
        owner: &str,
        seconds: f64,
    ) -> PyResult<(Option<String>, usize)> {
        let closed = &self.0.get(py)?.abort;
        reservations::reserve(py, closed, file, candidates, count, owner, seconds)
    }

    /// As `release`, in a file.
    fn release_in_file(
        &self,
        py: Python<'_>,
        file: PathBuf,
        owner: &str,
        selectors: Vec<String>,
    ) -> PyResult<String> {
        let hosts = self.0.get(py)?.manager.as_ref().map(TransportManager::hosts).unwrap_or_default();
        reservations::release_selected(py, file, owner, selectors, &hosts)
    }

    /// Ends all runs and closes all connections.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let parts = self.0.get(py)?;
        py.detach(|| parts.close());
        Ok(())
    }

    /// Closes many at once, in the time that one takes, as the interpreter ends.
    #[staticmethod]
    fn close_all(py: Python<'_>, cores: Vec<Py<Core>>) {
        let all: Vec<&Parts> = cores.iter().filter_map(|core| core.get().0.get(py).ok()).collect();
        py.detach(|| {
            all.iter().for_each(|parts| parts.abort.cancel());
            reservations::end_waits();
            thread::scope(|scope| {
                for parts in all {
                    // Without a thread for it, it is left.
                    let _closing = thread::Builder::new().spawn_scoped(scope, || parts.close());
                }
            });
        });
    }
}

/// A fleet that a service works on.
fn service(options: ClientOptions, policy: Policy) -> Result<Core, OutcomeError> {
    let client = Client::new(options).map_err(|error| error::of_client(&error))?;
    Ok(Core(Parts::new(Driver::new()?, Backend::Service(Box::new(client)), None, policy, None)))
}

/// Targets, from JSON.
fn read_targets(py: Python<'_>, targets: &str) -> PyResult<Targets> {
    serde_json::from_str(targets).map_err(|error| error::exception(py, &error::invalid(error.to_string())))
}

/// A line of a console, or the outcome of a capture, as JSON.
fn line(event: RunEvent) -> Result<Option<String>, OutcomeError> {
    match event {
        RunEvent::Console { .. } | RunEvent::Finished(_) => json::text(&event).map(Some),
        _ => Ok(None),
    }
}

/// A request of this package, which has looked at its fields but for those of the operation: `operate` has it from its caller. Its
/// policy has only what differs.
#[derive(Deserialize)]
struct Given {
    targets: Targets,
    operation: Value,
    #[serde(default)]
    policy: Map<String, Value>,
    #[serde(default)]
    noted: Noted,
}

fn read_request(request: &str, policy: &Policy) -> Result<(RunRequest, Noted), OutcomeError> {
    let invalid = |error: serde_json::Error| error::invalid(error.to_string());
    let Given { targets, operation, policy: differing, noted } =
        serde_json::from_str(request).map_err(invalid)?;
    let operation: OperationSpec =
        atp_api::read_request(&operation).map_err(|error| error::invalid(error.to_string()))?;
    let mut policy = policy.clone();
    if !differing.is_empty() {
        let mut whole = serde_json::to_value(policy).map_err(invalid)?;
        if let Some(whole) = whole.as_object_mut() {
            whole.extend(differing);
        }
        policy = serde_json::from_value(whole).map_err(invalid)?;
    }
    let mut request = RunRequest::new(targets, operation, policy);
    target_scenario(&mut request)?;
    Ok((request, noted))
}

/// A scenario for which no targets are given has those of its file.
fn target_scenario(request: &mut RunRequest) -> Result<(), OutcomeError> {
    let OperationSpec::Scenario(spec) = &request.operation else { return Ok(()) };
    let targets = &mut request.targets;
    if targets.selectors.is_empty() {
        let selection = Scenario::prepare(spec)?.selection()?;
        targets.selectors = selection.selectors.iter().map(ToString::to_string).collect();
        targets.exclude.extend(selection.exclude.iter().map(ToString::to_string));
        if targets.state == StateFilter::Any {
            targets.state = selection.state;
        }
        for label in selection.labels {
            targets.labels.entry(label.key).or_insert(label.value);
        }
    }
    Ok(())
}

/// The hosts that this process connects to, in the words of the service.
fn views(manager: &TransportManager) -> Value {
    let health = manager.health();
    let view = |host: atp_transport::HostInfo| {
        let state = health.hosts.iter().find(|(id, _)| id.as_str() == host.id);
        json!({
            "id": host.id,
            "uri": mask_uri(&host.effective_uri()),
            "groups": host.groups,
            "labels": host.labels,
            "health": state.map(|(_, health)| json!({"state": health.state.to_string(), "reason": health.reason.to_string()})),
        })
    };
    manager.hosts().into_iter().map(view).collect()
}
