//! Durations and failures of calls, by host and operation.
//!
//! There is one series for each combination of host, operation and bucket. An operation is a name in the code, and a
//! host that was removed from the manager is dropped at the next scrape, so the number of series is bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atp_transport::{CallInfo, HostId, Interceptor, TransportError};
use parking_lot::{Mutex, RwLock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

/// The kind of failure of a call whose future was dropped before its end.
const ABANDONED: &str = "abandoned";

/// Durations of calls and kinds of their failures. Cheap to clone; clones share the data.
#[derive(Clone)]
pub(crate) struct CallMetrics {
    shared: Arc<Shared>,
}

struct Shared {
    /// Upper bounds, in seconds.
    buckets: Vec<f64>,
    hosts: RwLock<HashMap<HostId, Arc<Host>>>,
}

#[derive(Default)]
struct Host {
    operations: RwLock<BTreeMap<&'static str, Arc<Operation>>>,
}

struct Operation {
    durations: Histogram,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl CallMetrics {
    /// Creates empty metrics. `buckets` are the upper bounds of the histograms, in seconds.
    pub(crate) fn new(buckets: &[f64]) -> Self {
        let shared = Shared { buckets: buckets.to_vec(), hosts: RwLock::default() };
        CallMetrics { shared: Arc::new(shared) }
    }

    fn record(&self, call: &CallInfo<'_>, took: Duration, failure: Option<&'static str>) {
        let operation = self.operation(call.host, call.operation);
        operation.durations.observe(took.as_secs_f64());
        if let Some(kind) = failure {
            let mut failures = operation.failures.lock();
            *failures.entry(kind).or_default() += 1;
        }
    }

    /// Removes all hosts that are not in this set.
    pub(crate) fn keep(&self, hosts: &BTreeSet<HostId>) {
        let mut known = self.shared.hosts.write();
        known.retain(|host, _| hosts.contains(host));
    }

    fn operation(&self, host: &HostId, name: &'static str) -> Arc<Operation> {
        let host = self.host(host);
        // Nothing under these locks can panic half-way, so poisoned ones still guard sound data.
        let known = host.operations.read().get(name).cloned();
        known.unwrap_or_else(|| {
            let mut operations = host.operations.write();
            let new = || {
                let durations = Histogram::new(self.shared.buckets.iter().copied());
                Arc::new(Operation { durations, failures: Mutex::default() })
            };
            operations.entry(name).or_insert_with(new).clone()
        })
    }

    fn host(&self, host: &HostId) -> Arc<Host> {
        let known = self.shared.hosts.read().get(host).cloned();
        known.unwrap_or_else(|| {
            let mut hosts = self.shared.hosts.write();
            hosts.entry(host.clone()).or_default().clone()
        })
    }

    /// What was counted of these hosts.
    pub(crate) fn only(&self, hosts: &BTreeSet<HostId>) -> Self {
        let all = self.shared.hosts.read();
        let chosen =
            all.iter().filter(|(id, _)| hosts.contains(*id)).map(|(id, host)| (id.clone(), host.clone()));
        let shared = Shared { buckets: self.shared.buckets.clone(), hosts: RwLock::new(chosen.collect()) };
        CallMetrics { shared: Arc::new(shared) }
    }

    /// Everything that was counted, by host and operation.
    fn all(&self) -> BTreeMap<(HostId, &'static str), Arc<Operation>> {
        let hosts = self.shared.hosts.read();
        let mut all = BTreeMap::new();
        for (id, host) in hosts.iter() {
            let operations = host.operations.read();
            all.extend(operations.iter().map(|(name, operation)| ((id.clone(), *name), operation.clone())));
        }
        all
    }
}

impl Interceptor for CallMetrics {
    fn name(&self) -> Cow<'_, str> {
        "metrics".into()
    }

    fn after(&self, call: &CallInfo<'_>, took: Duration) {
        self.record(call, took, None);
    }

    fn on_error(&self, call: &CallInfo<'_>, took: Duration, error: &TransportError) {
        self.record(call, took, Some(error.kind().as_str()));
    }

    fn on_abandon(&self, call: &CallInfo<'_>, took: Duration) {
        self.record(call, took, Some(ABANDONED));
    }
}

impl Collector for CallMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.all();
        let help = "How long calls took, queueing included";
        let unit = Some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor("atp_call_duration", help, unit, MetricType::Histogram)?;
        for ((host, name), operation) in &all {
            let labels = [("host", host.as_str()), ("operation", *name)];
            operation.durations.encode(metric.encode_family(&labels)?)?;
        }
        let help = "Calls that failed, by kind";
        let mut metric = encoder.encode_descriptor("atp_call_failures", help, None, MetricType::Counter)?;
        for ((host, name), operation) in &all {
            let failures = operation.failures.lock().clone();
            for (kind, count) in failures {
                let labels = [("host", host.as_str()), ("operation", *name), ("kind", kind)];
                let none: Option<&Exemplar<NoLabelSet, u64>> = None;
                metric.encode_family(&labels)?.encode_counter(&count, none)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMetrics").finish_non_exhaustive()
    }
}
