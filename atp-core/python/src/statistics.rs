//! Statistics of VMs, as Python reads them.

use std::sync::{Arc, OnceLock};

use arrow_array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use arrow_schema::ArrowError;
use atp_api::{StatisticsRound, VmStatistics};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::frame::{self, words};

/// Samples of VMs, of one round or of several: a table.
#[pyclass(frozen)]
pub(crate) struct Statistics {
    rows: Vec<Arc<Row>>,
    /// Made when it is first asked for: readers without copies then share its buffers.
    frame: OnceLock<RecordBatch>,
}

/// A VM in a round.
struct Row {
    at_ms: u64,
    vm: VmStatistics,
}

#[pymethods]
impl Statistics {
    /// The samples of rounds, each as JSON.
    #[new]
    fn new(py: Python<'_>, rounds: Vec<String>) -> PyResult<Self> {
        let read = || {
            let mut rows = Vec::new();
            for round in rounds {
                let StatisticsRound { at_ms, vms, .. } = serde_json::from_str(&round)?;
                rows.extend(vms.into_iter().map(|vm| Arc::new(Row { at_ms, vm })));
            }
            Ok::<_, serde_json::Error>(rows)
        };
        let rows = py.detach(read).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Statistics { rows, frame: OnceLock::new() })
    }

    fn __len__(&self) -> usize {
        self.rows.len()
    }

    /// A sample, as JSON.
    fn item(&self, index: usize) -> PyResult<String> {
        let row = self.row(index)?;
        serde_json::to_string(&row.vm).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Those at these indices.
    fn select(&self, indices: Vec<usize>) -> PyResult<Statistics> {
        let rows = indices.into_iter().map(|index| self.row(index).cloned()).collect::<PyResult<_>>()?;
        Ok(Statistics { rows, frame: OnceLock::new() })
    }

    /// The frame as a stream of the Arrow C data interface.
    #[pyo3(signature = (requested_schema=None))]
    fn arrow_stream<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        frame::stream(py, &self.frame, || columns(&self.rows), requested_schema)
    }
}

impl Statistics {
    fn row(&self, index: usize) -> PyResult<&Arc<Row>> {
        self.rows.get(index).ok_or_else(|| PyIndexError::new_err("no sample of this index"))
    }
}

/// The columns and their order are a contract, written down in `docs/python.md`: columns are only added, at the end.
fn columns(rows: &[Arc<Row>]) -> Result<RecordBatch, ArrowError> {
    fn column<A: FromIterator<T> + arrow_array::Array + 'static, T>(
        rows: &[Arc<Row>],
        value: impl Fn(&VmStatistics) -> T,
    ) -> ArrayRef {
        Arc::new(rows.iter().map(|row| value(&row.vm)).collect::<A>())
    }
    let counts = |value: fn(&VmStatistics) -> Option<u64>| column::<UInt64Array, _>(rows, value);
    let rates = |value: fn(&VmStatistics) -> Option<f64>| column::<Float64Array, _>(rows, value);
    let at = rows.iter().map(|row| i64::try_from(row.at_ms).ok()).collect::<TimestampMillisecondArray>();
    let vms = || rows.iter().map(|row| &row.vm);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("at", Arc::new(at.with_timezone("UTC"))),
        ("host", Arc::new(words(vms().map(|vm| Some(vm.host.as_str())))?)),
        ("vm", Arc::new(vms().map(|vm| Some(vm.vm.as_str())).collect::<StringArray>())),
        ("uuid", column::<StringArray, _>(rows, |vm| Some(vm.uuid.to_string()))),
        ("state", Arc::new(words(vms().map(|vm| Some(vm.state.as_str())))?)),
        ("stale_ms", counts(|vm| vm.stale.as_ref()?.for_ms)),
        ("error_kind", Arc::new(words(vms().map(|vm| Some(vm.stale.as_ref()?.error.kind.as_str())))?)),
        ("vcpus", column::<UInt32Array, _>(rows, |vm| vm.cpu.vcpus)),
        ("cpu_time_ns", counts(|vm| vm.cpu.time_ns)),
        ("cpu_percent", rates(|vm| vm.cpu.percent)),
        ("memory_kib", counts(|vm| vm.memory.current_kib)),
        ("resident_kib", counts(|vm| vm.memory.resident_kib)),
        ("usable_kib", counts(|vm| vm.memory.usable_kib)),
        ("read_bytes_per_second", rates(|vm| vm.disk_rates().0)),
        ("write_bytes_per_second", rates(|vm| vm.disk_rates().1)),
        ("rx_bytes_per_second", rates(|vm| vm.network_rates().0)),
        ("tx_bytes_per_second", rates(|vm| vm.network_rates().1)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}
