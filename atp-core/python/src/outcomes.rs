//! Outcomes, as Python reads them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_array::RecordBatch;
use atp_api::{Data, OutcomeError, RunStatistics};
use atp_executor::{Html, Junit, Target};
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
    /// The number of targets that an earlier run has done.
    pub(crate) done_before: usize,
    /// The number of the run in the service that ran it.
    pub(crate) number: Option<u64>,
    /// Their columns.
    pub(crate) shape: Shape,
}

/// Outcomes, in an order.
#[pyclass(frozen, module = "atp_libvirt._native")]
pub(crate) struct Outcomes {
    outcomes: Vec<Arc<atp_api::Outcome>>,
    statistics: Option<RunStatistics>,
    notices: Vec<String>,
    done_before: usize,
    number: Option<u64>,
    shape: Shape,
    /// Made when it is first asked for: readers without copies then share its buffers.
    frame: OnceLock<RecordBatch>,
}

impl From<Taken> for Outcomes {
    fn from(taken: Taken) -> Self {
        let Taken { outcomes, statistics, notices, done_before, number, shape } = taken;
        let outcomes = outcomes.into_iter().map(Arc::new).collect();
        Outcomes { outcomes, statistics, notices, done_before, number, shape, frame: OnceLock::new() }
    }
}

/// Outcomes as they pass between processes.
#[derive(Serialize, Deserialize)]
struct Whole<O> {
    outcomes: Vec<O>,
    statistics: Option<RunStatistics>,
    notices: Vec<String>,
    done_before: usize,
    number: Option<u64>,
    shape: Shape,
}

/// Outcomes of which no run is known, as JSON that makes [`Outcomes`] again.
pub(crate) fn settled(outcomes: Vec<atp_api::Outcome>, shape: Shape) -> Result<String, OutcomeError> {
    let (statistics, notices) = (None, Vec::new());
    json::text(&Whole { outcomes, statistics, notices, done_before: 0, number: None, shape })
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
        let Whole { outcomes, statistics, notices, done_before, number, shape } = whole;
        Ok(Outcomes::from(Taken { outcomes, statistics, notices, done_before, number, shape }))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let own = slf.get();
        let whole = Whole {
            outcomes: own.outcomes.iter().map(|outcome| &**outcome).collect(),
            statistics: own.statistics.clone(),
            notices: own.notices.clone(),
            done_before: own.done_before,
            number: own.number,
            shape: own.shape,
        };
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
        let (shape, number, notices) = (self.shape, self.number, Vec::new());
        let frame = OnceLock::new();
        Ok(Outcomes { outcomes, statistics: None, notices, done_before: 0, number, shape, frame })
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

    #[getter]
    fn done_before(&self) -> usize {
        self.done_before
    }

    #[getter]
    fn run_number(&self) -> Option<u64> {
        self.number
    }

    /// The text of a JUnit file with these outcomes, in a suite of this title.
    fn junit(&self, py: Python<'_>, title: Option<&str>) -> String {
        py.detach(|| {
            let mut junit = Junit::new(&self.title(title));
            self.outcomes.iter().for_each(|outcome| junit.take(outcome));
            format!("{}{}", Junit::DECLARATION, junit.text(self.took()))
        })
    }

    /// The text of an HTML page of this title with these outcomes. Links to evidence lead from this path.
    fn html(&self, py: Python<'_>, path: PathBuf, title: Option<&str>) -> String {
        py.detach(|| {
            let mut html = Html::new(&path, &self.title(title));
            self.outcomes.iter().for_each(|outcome| html.take(outcome, None));
            format!("{}{}", Html::DECLARATION, html.text(self.took()))
        })
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

impl Outcomes {
    /// The title of a report: the scenario's name, or the operation's, unless one is given.
    fn title(&self, given: Option<&str>) -> String {
        let own = || match self.outcomes.first().map(|outcome| (&outcome.data, &outcome.op)) {
            Some((Some(Data::Scenario(report)), _)) => report.scenario.clone(),
            Some((_, op)) => op.to_string(),
            None => "no targets".to_owned(),
        };
        given.map_or_else(own, str::to_owned)
    }

    /// How long the run took; of a part of its outcomes, the longest of these.
    fn took(&self) -> Duration {
        let longest = || self.outcomes.iter().map(|outcome| outcome.duration_ms).max();
        let run = self.statistics.as_ref().map(|statistics| statistics.duration_ms);
        Duration::from_millis(run.or_else(longest).unwrap_or_default())
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
    fn is_from_earlier_run(&self) -> bool {
        self.0.from_earlier_run
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
