//! Whether the service lives, whether it is ready, and its metrics.

use std::fmt;

use atp_api::{ErrorKind, VmStatistics};
use atp_telemetry::OPENMETRICS;
use atp_transport::HostInfo;
use axum::Extension;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use serde_json::json;

use crate::auth::{Access, Caller, has_verb, may_see_host, may_see_vm};
use crate::body::{answer, answer_with};
use crate::cluster::Cluster;
use crate::problem::Refusal;
use crate::route::{Content, Route};
use crate::state::Service;
use crate::usage;
use crate::vm_metrics::VmMetrics;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/healthz", Access::Open, alive)
            .about("Answers 200 as long as the service lives.")
            .answers::<serde_json::Value>(200),
        Route::new(Method::GET, "/readyz", Access::Open, ready)
            .about("Answers 200 when the service takes work, and 503 when it ends.")
            .answers::<serde_json::Value>(200),
        Route::new(Method::GET, "/metrics", Access::Metrics, metrics)
            .about("Metrics of the hosts and of the service, for Prometheus.")
            .answers_with(200, Some(Content::of("application/openmetrics-text"))),
    ]
}

async fn alive() -> Response {
    answer(&json!({"status": "ok"}))
}

async fn ready(State(service): State<Service>) -> Response {
    if service.stopping().is_cancelled() {
        return Refusal::new(ErrorKind::ServiceStopping, "the service ends").into_response();
    }
    answer_with(StatusCode::OK, &json!({"status": "ok"}))
}

/// A caller is known unless metrics are public, and sees the hosts and VMs of its token; what VMs use only with the verb for it.
async fn metrics(State(service): State<Service>, caller: Option<Extension<Caller>>) -> Response {
    let most = service.config().vm_metrics;
    let is_shown = |host: &HostInfo, vm: &VmStatistics| {
        caller.as_ref().is_none_or(|caller| may_see_vm(&caller.token, host, &vm.vm))
    };
    let may_see_usage = caller.as_ref().is_none_or(|caller| has_verb(&caller.token, "stats"));
    let vms = match most {
        0 => None,
        _ if !may_see_usage => None,
        most => Some(VmMetrics::of(usage::of_all(&service, is_shown).await, most)),
    };
    // For a thousand hosts this computes for some milliseconds.
    let text = tokio::task::spawn_blocking(move || {
        let is_shown =
            |host: &HostInfo| caller.as_ref().is_none_or(|caller| may_see_host(&caller.token, host));
        service.exporter().render_with(ServiceMetrics(service.clone(), vms), is_shown)
    })
    .await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => Refusal::new(ErrorKind::Panicked, "the metrics cannot be written").into_response(),
    }
}

/// The metrics of a service, read when they are encoded.
#[derive(Debug)]
struct ServiceMetrics(Service, Option<VmMetrics>);

impl Collector for ServiceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let service = &self.0;
        let metrics = service.metrics();
        let none: Option<&Exemplar<NoLabelSet, u64>> = None;

        let mut metric = encoder.encode_descriptor("atp_build", "The version", None, MetricType::Gauge)?;
        metric.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1)?;

        metrics.encode_requests(&mut encoder)?;

        for (name, help, count) in [
            ("atp_http_connections", "Connections of clients", metrics.connections()),
            ("atp_http_streams", "Streams of events that are open", service.limits().streams() as u64),
            ("atp_events_kept", "Events kept for streams that resume", service.events().counts().0 as u64),
            (
                "atp_cache_entries",
                "Listings, statistics and screens that are kept",
                service.cache_counts().entries as u64,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
        }

        for (name, help, count) in service.cluster().map(Cluster::gauges).into_iter().flatten() {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
        }

        if let Some(vms) = &self.1 {
            vms.encode(&mut encoder)?;
        }

        let help = "Questions for listings, statistics and screens, by how they were answered";
        let mut metric = encoder.encode_descriptor("atp_cache_requests", help, None, MetricType::Counter)?;
        let counts = service.cache_counts();
        for (result, count) in [
            ("hit", counts.hits),
            ("miss", counts.misses),
            ("shared", counts.shared),
            ("stale", counts.stale),
        ] {
            metric.encode_family(&[("result", result)])?.encode_counter(&count, none)?;
        }
        Ok(())
    }
}
