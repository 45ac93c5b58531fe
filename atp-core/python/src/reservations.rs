//! Reservations of VMs: in the file that `atp reserve` uses too, under its lock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use atp_api::{ErrorKind, OutcomeError};
use atp_executor::{Candidate, ReservationError, Reservations, Reserved};
use pyo3::prelude::*;
use uuid::Uuid;

use crate::error;
use crate::feed::text;

/// How long another process may have the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a signal may wait for its handler.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Reserves VMs, each given as host, name and UUID. Returns the reservations as JSON, or else how many are free.
#[pyfunction]
pub(crate) fn reserve(
    py: Python<'_>,
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
    match under_lock(py, |until| file.reserve(&candidates, count, owner, time, until))? {
        Reserved::Granted(granted) => Ok((Some(text(&granted).map_err(raised)?), count)),
        Reserved::TooFew { free } => Ok((None, free)),
    }
}

/// Ends reservations of an owner: those of these UUIDs, or all. Returns them as JSON.
#[pyfunction]
pub(crate) fn release(
    py: Python<'_>,
    file: PathBuf,
    owner: &str,
    uuids: Option<Vec<String>>,
) -> PyResult<String> {
    let file = Reservations::at(file);
    let released = under_lock(py, |until| {
        let chooses = |one: &atp_executor::Reservation| {
            uuids.as_ref().is_none_or(|uuids| uuids.contains(&one.uuid.to_string()))
        };
        file.release(owner, chooses, until)
    })?;
    text(&released).map_err(|error| error::exception(py, &error))
}

/// Tries again while another process has the lock. Handlers of signals run meanwhile.
fn under_lock<T: Send>(
    py: Python<'_>,
    work: impl Fn(Instant) -> Result<T, ReservationError> + Sync,
) -> PyResult<T> {
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
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
