//! Reservations of VMs: in the file that `atp reserve` uses too, under its lock; or in the service.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use atp_api::serve::{ReleaseRequest, ReserveAnswer, ReserveRequest};
use atp_api::{ErrorKind, OutcomeError, Targets};
use atp_client::{Client, ClientError};
use atp_executor::{Candidate, Reservation, ReservationError, Reservations, Reserved, Selection, Selector};
use atp_transport::HostInfo;
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use crate::driver::Spawner;
use crate::error::{self, Failure};
use crate::forked::Forked;
use crate::json::text;

/// How long another process may have the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for what is released when the interpreter ends: its threads all do that at once.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a signal may wait for its handler.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the interpreter ends.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Has nothing wait for a lock any more, as the interpreter ends.
pub(crate) fn end_waits() {
    IS_ENDING.store(true, Ordering::Release);
}

/// Reserves VMs, each given as host, name and UUID, for a fleet that is not `closed`. Returns the reservations as JSON, or else how
/// many are free.
pub(crate) fn reserve(
    py: Python<'_>,
    closed: &CancellationToken,
    file: PathBuf,
    candidates: Vec<(String, String, String)>,
    count: usize,
    owner: &str,
    seconds: f64,
) -> PyResult<(Option<String>, usize)> {
    let raised = |error: OutcomeError| error::exception(py, &error);
    let candidates: Result<Vec<_>, _> = candidates.into_iter().map(candidate).collect();
    let candidates = candidates.map_err(raised)?;
    let time =
        Duration::try_from_secs_f64(seconds).map_err(|error| raised(error::invalid(error.to_string())))?;
    let file = Reservations::at(file);
    let work = |until| match closed.is_cancelled() {
        true => Ok(None),
        false => file.reserve(&candidates, count, owner, time, until).map(Some),
    };
    match under_lock(py, work)?.ok_or_else(|| raised(error::closed()))? {
        Reserved::Granted(granted) => Ok((Some(text(&granted).map_err(raised)?), count)),
        Reserved::TooFew { free } => Ok((None, free)),
    }
}

/// Ends reservations of an owner: those of these VMs, each given as host and UUID, or all. Returns them as JSON.
#[pyfunction]
pub(crate) fn release(
    py: Python<'_>,
    file: PathBuf,
    owner: &str,
    vms: Option<Vec<(String, String)>>,
) -> PyResult<String> {
    release_where(py, file, owner, |one| {
        let is_one =
            |(host, uuid): &(String, String)| one.host.as_str() == host && one.uuid.to_string() == *uuid;
        vms.as_ref().is_none_or(|vms| vms.iter().any(is_one))
    })
}

/// As `release`, of the VMs that selectors match by the names that they were reserved under.
pub(crate) fn release_selected(
    py: Python<'_>,
    file: PathBuf,
    owner: &str,
    selectors: Vec<String>,
    hosts: &[HostInfo],
) -> PyResult<String> {
    let targets = Targets { selectors, ..Targets::default() };
    let selection =
        Selection::try_from(&targets).map_err(|error| error::exception(py, &error::of_selector(&error)))?;
    release_where(py, file, owner, |one| {
        // A host that is no longer in the settings has its id.
        let unknown = HostInfo::new(one.host.as_str(), one.host.as_str());
        let host = hosts.iter().find(|host| host.id == one.host.as_str()).unwrap_or(&unknown);
        selection.includes(host, &one.vm)
    })
}

fn release_where(
    py: Python<'_>,
    file: PathBuf,
    owner: &str,
    chooses: impl Fn(&Reservation) -> bool + Sync,
) -> PyResult<String> {
    let file = Reservations::at(file);
    let released = under_lock(py, |until| file.release(owner, &chooses, until))?;
    text(&released).map_err(|error| error::exception(py, &error))
}

/// The reservations in a file that have not ended, as JSON.
#[pyfunction]
pub(crate) fn reservations(py: Python<'_>, file: PathBuf) -> PyResult<String> {
    let listed = py.detach(|| Reservations::at(file).list());
    let listed = listed.map_err(|error| of_reservations(&error)).and_then(|listed| text(&listed));
    listed.map_err(|error| error::exception(py, &error))
}

/// What a service answered to a request for VMs. Dropping it gives back what was reserved, as nobody knows of it.
pub(crate) struct Granted {
    client: Client,
    spawner: Spawner,
    /// None when it was taken.
    answer: Option<ReserveAnswer>,
    /// A fleet that is closed waits for its end.
    under_way: TaskTrackerToken,
}

impl Granted {
    /// Asks a service for VMs.
    ///
    /// # Errors
    /// It refused, or did not answer: VMs may be reserved then, until their time ends.
    pub(crate) async fn ask(
        client: Client,
        request: ReserveRequest,
        spawner: Spawner,
        runs: TaskTracker,
    ) -> Result<Self, Failure> {
        let began = SystemTime::now();
        let answer = client.reserve(&request).await.map_err(|error| of_service(&error))?;
        let granted = Granted { client, spawner, answer: Some(answer), under_way: runs.token() };
        // This process may have been stopped before it read the answer.
        if granted.has_vms() && began.elapsed().unwrap_or_default() >= request.time {
            let late = "the reservations ended before their answer was read";
            let error = OutcomeError::new(ErrorKind::RequestTimeout, late).retryable();
            return Err(error.with_hint("reserve again").into());
        }
        Ok(granted)
    }

    fn has_vms(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.reservations.is_empty())
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let Some(first) = answer.reservations.first() else { return };
        let owner = first.owner.clone();
        let selector = |one: &Reservation| Selector::of_vm(&one.host, &one.vm).to_string();
        let selectors = answer.reservations.iter().map(selector).collect();
        let (client, under_way) = (self.client.clone(), self.under_way.clone());
        self.spawner.spawn(async move {
            // If it fails, they end with their time.
            let _released = release_in_service(&client, owner, selectors).await;
            drop(under_way);
        });
    }
}

/// What a service answered, until it is taken.
#[pyclass(frozen)]
pub(crate) struct Claim(Forked<Mutex<Granted>>);

impl From<Granted> for Claim {
    fn from(granted: Granted) -> Self {
        Claim(Forked::new(Mutex::new(granted)))
    }
}

#[pymethods]
impl Claim {
    /// Takes the answer, as JSON: what it has reserved is the caller's now.
    fn take(&self, py: Python<'_>) -> PyResult<String> {
        let answer = self.0.get(py)?.lock().answer.take();
        text(&answer).map_err(|error| error::exception(py, &error))
    }
}

/// Ends reservations of an owner in a service: of the VMs that selectors match, or all. Returns them as JSON.
///
/// # Errors
/// It refused, or did not answer: they may have ended then.
pub(crate) async fn release_in_service(
    client: &Client,
    owner: String,
    selectors: Vec<String>,
) -> Result<String, Failure> {
    let released = client.release(&ReleaseRequest { owner, selectors }).await;
    Ok(text(&released.map_err(|error| of_service(&error))?)?)
}

fn of_service(error: &ClientError) -> Failure {
    Failure { effect: error.effect(), ..Failure::from(error::of_client(error)) }
}

/// Tries again while another process has the lock. Handlers of signals run meanwhile.
fn under_lock<T: Send>(
    py: Python<'_>,
    work: impl Fn(Instant) -> Result<T, ReservationError> + Sync,
) -> PyResult<T> {
    let mut end = Instant::now() + LOCK_TIMEOUT;
    loop {
        // Fleets are closed by then, so that what is reserved for them ends by itself.
        if IS_ENDING.load(Ordering::Acquire) {
            end = end.min(Instant::now() + LAST_TIMEOUT);
        }
        match py.detach(|| work(end.min(Instant::now() + SIGNAL_INTERVAL))) {
            Err(ReservationError::Locked { .. }) if Instant::now() < end => py.check_signals()?,
            done => return done.map_err(|error| error::exception(py, &of_reservations(&error))),
        }
    }
}

fn candidate((host, vm, uuid): (String, String, String)) -> Result<Candidate, OutcomeError> {
    let host = host.parse().map_err(|_| error::invalid(format!("{host} is no host")))?;
    let uuid = Uuid::parse_str(&uuid).map_err(|error| error::invalid(error.to_string()))?;
    // Of VMs that share a UUID, one at a time is given.
    Ok(Candidate { host, vm, uuid, is_copy: false })
}

fn of_reservations(error: &ReservationError) -> OutcomeError {
    let (is_retryable, hint) = match error {
        ReservationError::Filesystem { .. } => {
            (false, "name a file on a local disk of the machine that all jobs run on")
        }
        ReservationError::Invalid { .. } => (false, "name another file; nothing was written to this one"),
        ReservationError::Locked { .. } => {
            (true, "look for a process that is stopped while it has the file open: `fuser FILE.lock`")
        }
        ReservationError::Late { .. } => (true, "reserve again"),
        _ => (false, "check the path and its permissions"),
    };
    OutcomeError { retryable: is_retryable, ..OutcomeError::of(ErrorKind::LocalFileError, error) }
        .with_hint(hint)
}
