//! Metrics as text, for Prometheus.

use std::collections::BTreeSet;
use std::fmt;

use atp_transport::{Connector, HostInfo, LibvirtConnector, TransportManager};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::calls::CallMetrics;
use crate::snapshot::Snapshot;

/// The media type of the text that is rendered.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The settings of the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct ExporterConfig {
    /// Upper bounds of the histograms of call durations, in seconds. Each bound adds a series for every host and
    /// operation.
    pub call_buckets: Vec<f64>,
}

impl Default for ExporterConfig {
    fn default() -> Self {
        ExporterConfig { call_buckets: vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0, 10.0, 30.0] }
    }
}

/// The metrics of a manager, including the durations of its calls. Cheap to clone.
pub struct Exporter<C: Connector = LibvirtConnector> {
    manager: TransportManager<C>,
    calls: CallMetrics,
}

impl<C: Connector> Exporter<C> {
    /// Observes the calls of `manager` from now on, as an [`Interceptor`](atp_transport::Interceptor). One exporter per
    /// manager is enough: each counts separately.
    pub fn new(manager: &TransportManager<C>, config: &ExporterConfig) -> Self {
        let calls = CallMetrics::new(&config.call_buckets);
        manager.add_interceptor(calls.clone());
        Exporter { manager: manager.clone(), calls }
    }

    /// The observed manager.
    pub fn manager(&self) -> &TransportManager<C> {
        &self.manager
    }

    /// All metrics, in the OpenMetrics text format. Takes a few microseconds per host, and sends nothing to the hosts.
    pub fn render(&self) -> String {
        text(self.collectors(|_| true))
    }

    /// As [`render`](Self::render), with metrics of the program's own at the end, and of the hosts only those that `is_shown`
    /// accepts.
    pub fn render_with(&self, own: impl Collector, is_shown: impl Fn(&HostInfo) -> bool) -> String {
        let mut collectors = self.collectors(is_shown);
        collectors.push(Box::new(own));
        text(collectors)
    }

    fn collectors(&self, is_shown: impl Fn(&HostInfo) -> bool) -> Vec<Box<dyn Collector>> {
        let pools = self.manager.pools();
        let hosts: BTreeSet<_> = pools.iter().map(|pool| pool.host_id().clone()).collect();
        self.calls.keep(&hosts);
        let shown: BTreeSet<_> =
            pools.iter().filter(|pool| is_shown(&pool.info())).map(|pool| pool.host_id().clone()).collect();
        let snapshot = Snapshot::of(&self.manager).only(&shown);
        let calls = if shown.len() == hosts.len() { self.calls.clone() } else { self.calls.only(&shown) };
        vec![Box::new(snapshot), Box::new(calls)]
    }
}

impl<C: Connector> Clone for Exporter<C> {
    fn clone(&self) -> Self {
        Exporter { manager: self.manager.clone(), calls: self.calls.clone() }
    }
}

impl<C: Connector> fmt::Debug for Exporter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("manager", &self.manager).finish_non_exhaustive()
    }
}

/// The metrics of a manager without an exporter: all except durations and failures by operation.
pub fn render<C: Connector>(manager: &TransportManager<C>) -> String {
    text(vec![Box::new(Snapshot::of(manager))])
}

fn text(collectors: Vec<Box<dyn Collector>>) -> String {
    let mut registry = Registry::default();
    collectors.into_iter().for_each(|collector| registry.register_collector(collector));
    let mut text = String::new();
    // Writing to a string fails only if a metric fails, and none of ours does.
    let _written = encode(&mut text, &registry);
    text
}
