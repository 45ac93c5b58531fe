//! What the service counts of itself, as metrics beside those of the hosts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atp_api::ErrorKind;
use parking_lot::Mutex;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

/// Upper bounds of the durations of requests, seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0];

/// Counters of the service.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    refused: Mutex<BTreeMap<ErrorKind, u64>>,
    /// By route and method: paths of the table and words of a few methods, so there is an end to them.
    requests: Mutex<BTreeMap<(String, &'static str), Requests>>,
    connections: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Requests {
    by_status: BTreeMap<u16, u64>,
    durations: Histogram,
}

/// A connection counts for as long as this is held.
#[derive(Debug)]
pub(crate) struct Connection {
    all: Arc<AtomicU64>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request that was refused before it came to its handler.
    pub(crate) fn refused(&self, kind: ErrorKind) {
        *self.refused.lock().entry(kind).or_default() += 1;
    }

    /// Counts a request to a route that was answered, at least the head of the answer.
    pub(crate) fn answered(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let mut requests = self.requests.lock();
        let new = || Requests { by_status: BTreeMap::new(), durations: Histogram::new(BUCKETS) };
        let of_route = requests.entry((route.to_owned(), method)).or_insert_with(new);
        *of_route.by_status.entry(status).or_default() += 1;
        of_route.durations.observe(took.as_secs_f64());
    }

    /// Counts a connection.
    pub(crate) fn connection(&self) -> Connection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connection { all: Arc::clone(&self.connections) }
    }

    /// Connections now.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Writes what is counted of requests.
    pub(crate) fn encode_requests(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let none: Option<&Exemplar<NoLabelSet, u64>> = None;

        let help = "Requests, by route, method and status";
        let mut metric = encoder.encode_descriptor("atp_http_requests", help, None, MetricType::Counter)?;
        let requests = self.requests.lock();
        for ((route, method), of_route) in requests.iter() {
            for (status, count) in &of_route.by_status {
                let labels = [("route", route.as_str()), ("method", method), ("status", &status.to_string())];
                metric.encode_family(&labels)?.encode_counter(count, none)?;
            }
        }
        let (help, unit) = ("The time from a request to the head of its answer", Some(&Unit::Seconds));
        let mut metric =
            encoder.encode_descriptor("atp_http_request_duration", help, unit, MetricType::Histogram)?;
        for ((route, method), of_route) in requests.iter() {
            let labels = [("route", route.as_str()), ("method", *method)];
            of_route.durations.encode(metric.encode_family(&labels)?)?;
        }
        drop(requests);

        let help = "Requests that were refused before anything was done, by kind";
        let mut metric = encoder.encode_descriptor("atp_http_refused", help, None, MetricType::Counter)?;
        for (kind, count) in self.refused.lock().iter() {
            metric.encode_family(&[("kind", kind.as_str())])?.encode_counter(count, none)?;
        }
        Ok(())
    }
}
