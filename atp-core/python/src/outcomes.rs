//! Outcomes, as Python reads them.

use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use atp_api::{Data, RunStatistics};
use atp_executor::Target;
use parking_lot::Mutex;
use pyo3::exceptions::{PyIndexError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Shape};
use crate::{error, json};

/// A VM that was found, as it was when it was looked at last: work on it alone need not look for it.
#[pyclass(frozen)]
pub(crate) struct Found(pub(crate) Arc<Mutex<Target>>);

/// Outcomes that were taken from a run.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) outcomes: Vec<atp_api::Outcome>,
    /// The numbers of the run, if it has ended.
    pub(crate) statistics: Option<RunStatistics>,
    /// What is to be known about how the run was planned.
    pub(crate) notices: Vec<String>,
    /// Their columns.
    pub(crate) shape: Shape,
}

/// Outcomes, in an order.
#[pyclass(frozen, module = "atp_libvirt._native")]
pub(crate) struct Outcomes {
    outcomes: Vec<Arc<atp_api::Outcome>>,
    statistics: Option<RunStatistics>,
    notices: Vec<String>,
    shape: Shape,
    /// Made when it is first asked for: readers without copies then share its buffers.
    frame: OnceLock<RecordBatch>,
}

impl From<Taken> for Outcomes {
    fn from(taken: Taken) -> Self {
        let Taken { outcomes, statistics, notices, shape } = taken;
        let outcomes = outcomes.into_iter().map(Arc::new).collect();
        Outcomes { outcomes, statistics, notices, shape, frame: OnceLock::new() }
    }
}

/// Outcomes as they pass between processes.
#[derive(Serialize, Deserialize)]
struct Whole<O> {
    outcomes: Vec<O>,
    statistics: Option<RunStatistics>,
    notices: Vec<String>,
    shape: Shape,
}

/// What makes a value again in another process: its class, and its JSON.
type Reduced<'py> = (Bound<'py, PyType>, (String,));

#[pymethods]
impl Outcomes {
    /// Outcomes of another process.
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<Self> {
        let whole = serde_json::from_str(text)
            .map_err(|error| error::exception(py, &error::invalid(error.to_string())))?;
        let Whole { outcomes, statistics, notices, shape } = whole;
        Ok(Outcomes::from(Taken { outcomes, statistics, notices, shape }))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let Outcomes { outcomes, statistics, notices, shape, .. } = slf.get();
        let outcomes = outcomes.iter().map(|outcome| &**outcome).collect();
        let whole =
            Whole { outcomes, statistics: statistics.clone(), notices: notices.clone(), shape: *shape };
        let text = json::text(&whole).map_err(|error| error::exception(slf.py(), &error))?;
        Ok((slf.get_type(), (text,)))
    }

    fn __len__(&self) -> usize {
        self.outcomes.len()
    }

    fn item(&self, index: usize) -> PyResult<Outcome> {
        let outcome =
            self.outcomes.get(index).ok_or_else(|| PyIndexError::new_err("no outcome of this index"))?;
        Ok(Outcome(outcome.clone()))
    }

    /// Those at these indices.
    fn select(&self, indices: Vec<usize>) -> PyResult<Outcomes> {
        let outcome = |index: usize| self.item(index).map(|outcome| outcome.0);
        let outcomes = indices.into_iter().map(outcome).collect::<PyResult<_>>()?;
        let (shape, notices) = (self.shape, Vec::new());
        Ok(Outcomes { outcomes, statistics: None, notices, shape, frame: OnceLock::new() })
    }

    /// The indices of those that succeeded, or of the others.
    fn indices(&self, is_success: bool) -> Vec<usize> {
        let wanted =
            |(_, outcome): &(usize, &Arc<atp_api::Outcome>)| outcome.status.is_success() == is_success;
        self.outcomes.iter().enumerate().filter(wanted).map(|(index, _)| index).collect()
    }

    /// The numbers of the run, as JSON.
    #[getter]
    fn statistics(&self) -> Option<String> {
        serde_json::to_string(self.statistics.as_ref()?).ok()
    }

    #[getter]
    fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    /// The frame as a stream of the Arrow C data interface.
    #[pyo3(signature = (requested_schema=None))]
    fn arrow_stream<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        frame::stream(py, &self.frame, || frame::of(self.shape, &self.outcomes), requested_schema)
    }
}

/// The result of one target.
#[pyclass(frozen, module = "atp_libvirt._native")]
pub(crate) struct Outcome(Arc<atp_api::Outcome>);

#[pymethods]
impl Outcome {
    /// An outcome of another process.
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<Self> {
        let outcome = serde_json::from_str(text);
        let outcome = outcome.map_err(|error| error::exception(py, &error::invalid(error.to_string())))?;
        Ok(Outcome(Arc::new(outcome)))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        Ok((slf.get_type(), (slf.get().json()?,)))
    }

    #[getter]
    fn host(&self) -> Option<&str> {
        self.0.host.as_ref().map(|host| host.as_str())
    }

    #[getter]
    fn vm(&self) -> Option<&str> {
        self.0.vm.as_deref()
    }

    #[getter]
    fn uuid(&self) -> Option<String> {
        self.0.uuid.map(|uuid| uuid.to_string())
    }

    #[getter]
    fn found_on(&self) -> Option<&str> {
        self.0.found_on.as_ref().map(|host| host.as_str())
    }

    #[getter]
    fn op(&self) -> &str {
        &self.0.op
    }

    #[getter]
    fn status(&self) -> &'static str {
        self.0.status.as_str()
    }

    #[getter]
    fn is_success(&self) -> bool {
        self.0.status.is_success()
    }

    #[getter]
    fn effect(&self) -> &'static str {
        self.0.effect.as_str()
    }

    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    #[getter]
    fn duration_ms(&self) -> u64 {
        self.0.duration_ms
    }

    /// The VM that a listing has found, for calls that work on it alone.
    fn found(&self) -> Option<Found> {
        let (Some(host), Some(Data::Domain(domain))) = (&self.0.host, &self.0.data) else { return None };
        let target = Target { host: host.clone(), domain: Some(domain.clone()) };
        Some(Found(Arc::new(Mutex::new(target))))
    }

    /// What the operation yielded, as JSON.
    #[getter]
    fn data(&self) -> Option<String> {
        serde_json::to_string(self.0.data.as_ref()?).ok()
    }

    /// What went wrong, as JSON.
    #[getter]
    fn error(&self) -> Option<String> {
        serde_json::to_string(self.0.error.as_ref()?).ok()
    }

    /// All of it, as JSON.
    fn json(&self) -> PyResult<String> {
        serde_json::to_string(&*self.0).map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }
}
