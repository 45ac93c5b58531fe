//! Outcomes as columns: a record batch of Apache Arrow.
//!
//! The columns and their order are a contract, written down in `docs/python.md`: columns are only added, at the end of their part.

use std::sync::{Arc, OnceLock};

use arrow_array::builder::{StringBuilder, StringDictionaryBuilder};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, RecordBatch, RecordBatchIterator,
    UInt32Array, UInt64Array,
};
use arrow_schema::ArrowError;
use atp_api::domain::DomainInfo;
use atp_api::{Data, ExecReport, HostReport, OperationSpec, Outcome, OutcomeError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use serde::{Deserialize, Serialize};

/// What columns outcomes have beside those of all: it depends on the operation alone, and not on what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// What was listed.
    Domain,
    /// All that is known of a VM.
    Vm,
    /// The state that a VM is left in.
    State,
    /// A process.
    Exec,
    /// A host.
    Host,
    /// JSON.
    #[default]
    Other,
}

impl Shape {
    pub(crate) fn of(operation: &OperationSpec) -> Self {
        match operation {
            OperationSpec::VmList => Shape::Domain,
            OperationSpec::VmInfo => Shape::Vm,
            OperationSpec::Lifecycle(_) | OperationSpec::SnapshotRevert(_) => Shape::State,
            OperationSpec::Exec(_) => Shape::Exec,
            OperationSpec::HostCheck => Shape::Host,
            _ => Shape::Other,
        }
    }
}

/// The columns of these outcomes: those that all have, then those of what their operation yields.
pub(crate) fn of(shape: Shape, outcomes: &[Arc<Outcome>]) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns { outcomes, columns: Vec::new() };
    columns.words("host", |outcome| outcome.host.as_ref().map(|host| host.as_str()))?;
    columns.texts("vm", |outcome| outcome.vm.clone())?;
    columns.texts("uuid", |outcome| outcome.uuid.map(|uuid| uuid.to_string()))?;
    columns.words("op", |outcome| Some(&outcome.op))?;
    columns.words("status", |outcome| Some(outcome.status.as_str()))?;
    columns.words("effect", |outcome| Some(outcome.effect.as_str()))?;
    columns.add("attempts", outcomes.iter().map(|outcome| outcome.attempts).collect::<UInt32Array>());
    columns.add("duration_ms", outcomes.iter().map(|outcome| outcome.duration_ms).collect::<UInt64Array>());
    columns.words("error_kind", |outcome| Some(outcome.error.as_ref()?.kind.into()))?;
    columns
        .texts("error", |outcome| outcome.error.as_ref().map(|error| OutcomeError::clone(error).message))?;
    let retryable = outcomes.iter().map(|outcome| outcome.error.as_ref().map(|error| error.retryable));
    columns.add("retryable", retryable.collect::<BooleanArray>());
    columns.texts("hint", |outcome| Some(outcome.error.as_ref()?.hint.as_ref()?.to_string()))?;

    match shape {
        Shape::Domain => columns.domain()?,
        Shape::Vm => {
            columns.domain()?;
            columns.data()?;
        }
        Shape::State => columns.state()?,
        Shape::Exec => columns.exec()?,
        Shape::Host => columns.host()?,
        Shape::Other => columns.data()?,
    }
    RecordBatch::try_from_iter_with_nullable(
        columns.columns.into_iter().map(|(name, column)| (name, column, true)),
    )
}

/// A column of few words that are repeated.
pub(crate) fn words<'a>(
    words: impl Iterator<Item = Option<&'a str>>,
) -> Result<DictionaryArray<Int32Type>, ArrowError> {
    let mut column = StringDictionaryBuilder::<Int32Type>::new();
    for word in words {
        match word {
            Some(word) => drop(column.append(word)?),
            None => column.append_null(),
        }
    }
    Ok(column.finish())
}

/// A frame as a stream of the Arrow C data interface. It is made when it is first asked for. A schema that is asked for is not
/// converted to, as the interface allows.
pub(crate) fn stream<'py>(
    py: Python<'py>,
    frame: &OnceLock<RecordBatch>,
    make: impl FnOnce() -> Result<RecordBatch, ArrowError> + Send,
    requested_schema: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let _not_converted = requested_schema;
    let made = py.detach(|| match frame.get() {
        Some(frame) => Ok(frame.clone()),
        // Another thread may have been faster; its frame is the same, and is the one that is shared.
        None => make().map(|made| frame.get_or_init(|| made).clone()),
    });
    let made = made.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    let schema = made.schema();
    let reader = RecordBatchIterator::new([Ok(made)], schema);
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), c"arrow_array_stream")
}

struct Columns<'a> {
    outcomes: &'a [Arc<Outcome>],
    columns: Vec<(&'static str, ArrayRef)>,
}

impl<'a> Columns<'a> {
    fn add(&mut self, name: &'static str, column: impl arrow_array::Array + 'static) {
        self.columns.push((name, Arc::new(column)));
    }

    /// A column of texts of which most differ.
    ///
    /// # Errors
    /// They are larger than a column can be.
    fn texts(
        &mut self,
        name: &'static str,
        value: impl Fn(&'a Outcome) -> Option<String>,
    ) -> Result<(), ArrowError> {
        let mut column = StringBuilder::new();
        for outcome in self.outcomes {
            let value = value(outcome);
            let more = value.as_ref().map_or(0, String::len);
            if i32::try_from(column.values_slice().len() + more).is_err() {
                let large = format!("the column {name} has more than 2 GiB of text: select fewer outcomes");
                return Err(ArrowError::InvalidArgumentError(large));
            }
            column.append_option(value);
        }
        self.add(name, column.finish());
        Ok(())
    }

    /// A column of few words that are repeated.
    fn words(
        &mut self,
        name: &'static str,
        value: impl Fn(&'a Outcome) -> Option<&'a str>,
    ) -> Result<(), ArrowError> {
        let column = words(self.outcomes.iter().map(|outcome| value(outcome)))?;
        self.add(name, column);
        Ok(())
    }

    fn state(&mut self) -> Result<(), ArrowError> {
        self.words("state", |outcome| match &outcome.data {
            Some(Data::Lifecycle { state }) => Some(state.as_str()),
            _ => domain(outcome).map(|domain| domain.state.as_str()),
        })
    }

    /// What listings yield.
    fn domain(&mut self) -> Result<(), ArrowError> {
        let outcomes = self.outcomes;
        self.state()?;
        self.texts("reason", |outcome| domain(outcome)?.reason.map(|reason| reason.to_string()))?;
        self.add("vcpus", outcomes.iter().map(|outcome| domain(outcome)?.vcpus).collect::<UInt32Array>());
        let memory = outcomes.iter().map(|outcome| domain(outcome)?.memory_kib);
        self.add("memory_kib", memory.collect::<UInt64Array>());
        let most = outcomes.iter().map(|outcome| domain(outcome)?.max_memory_kib);
        self.add("max_memory_kib", most.collect::<UInt64Array>());
        Ok(())
    }

    /// What processes in guests yield.
    fn exec(&mut self) -> Result<(), ArrowError> {
        let outcomes = self.outcomes;
        self.add(
            "exit_code",
            outcomes.iter().map(|outcome| exec(outcome)?.exit_code).collect::<Int32Array>(),
        );
        self.add("signal", outcomes.iter().map(|outcome| exec(outcome)?.signal).collect::<Int32Array>());
        self.texts("stdout", |outcome| Some(exec(outcome)?.stdout.lossy_text().into_owned()))?;
        self.texts("stderr", |outcome| Some(exec(outcome)?.stderr.lossy_text().into_owned()))
    }

    /// What checks of hosts yield.
    fn host(&mut self) -> Result<(), ArrowError> {
        let outcomes = self.outcomes;
        self.texts("hostname", |outcome| Some(host(outcome)?.hostname.clone()))?;
        self.texts("daemon_version", |outcome| Some(host(outcome)?.daemon_version.to_string()))?;
        self.words("hypervisor", |outcome| Some(&host(outcome)?.hypervisor))?;
        self.texts("hypervisor_version", |outcome| Some(host(outcome)?.hypervisor_version.to_string()))?;
        let latency = outcomes.iter().map(|outcome| Some(host(outcome)?.latency_ms));
        self.add("latency_ms", latency.collect::<Float64Array>());
        let domains = outcomes.iter().map(|outcome| u64::try_from(host(outcome)?.domains).ok());
        self.add("domains", domains.collect::<UInt64Array>());
        let connect = outcomes.iter().map(|outcome| Some(host(outcome)?.connect_ms));
        self.add("connect_ms", connect.collect::<Float64Array>());
        let active = outcomes.iter().map(|outcome| u64::try_from(host(outcome)?.active_domains).ok());
        self.add("active_domains", active.collect::<UInt64Array>());
        Ok(())
    }

    /// What is yielded, as JSON.
    fn data(&mut self) -> Result<(), ArrowError> {
        self.texts("data", |outcome| serde_json::to_string(outcome.data.as_ref()?).ok())
    }
}

fn domain(outcome: &Outcome) -> Option<&DomainInfo> {
    match outcome.data.as_ref()? {
        Data::Domain(domain) => Some(domain),
        Data::Vm(report) => Some(&report.details.info),
        _ => None,
    }
}

fn exec(outcome: &Outcome) -> Option<&ExecReport> {
    match outcome.data.as_ref()? {
        Data::Exec(report) => Some(report),
        _ => None,
    }
}

fn host(outcome: &Outcome) -> Option<&HostReport> {
    match outcome.data.as_ref()? {
        Data::Host(report) => Some(report),
        _ => None,
    }
}
