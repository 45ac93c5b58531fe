//! What the transport does, for those who watch over it: metrics, a health endpoint, traces.
//!
//! All of it is made from what [`atp_transport`] tells everybody: statistics, health, events, and the calls that pass
//! its interceptors. Nothing here is needed to do work, and nothing here can hold work up.
//!
//! [`render`] writes the numbers of a [`TransportManager`](atp_transport::TransportManager) as text that Prometheus
//! reads. An [`Exporter`] adds how long calls took, by host and operation, which only somebody who watches every call
//! can know.
//!
//! ```
//! use atp_telemetry::{Exporter, ExporterConfig};
//! use atp_transport::{HostInfo, TransportConfig, TransportManager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> atp_transport::Result<()> {
//! let manager = TransportManager::new(TransportConfig::default());
//! let exporter = Exporter::new(&manager, &ExporterConfig::default());
//! manager.add_host(HostInfo::from_uri("demo", "test:///default")).await?;
//! manager.execute_on_host("demo", |conn| async move { conn.hostname().await }).await?;
//! let text = exporter.render();
//! assert!(text.contains(r#"atp_connections{host="demo",state="idle"} 1"#));
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `http`, an `Endpoint` serves that text at `/metrics`, and the fleet's health at `/healthz`. With the
//! feature `otel`, `Traces` sends the spans of work and calls to an OpenTelemetry collector.
//!
//! `configs/prometheus` and `configs/grafana` have what reads the metrics, and `docs/operations.md` says what each of
//! them means and what to do about it.

mod calls;
mod exporter;
mod snapshot;

#[cfg(feature = "http")]
mod endpoint;
#[cfg(feature = "otel")]
mod traces;

#[cfg(feature = "http")]
pub use endpoint::{Endpoint, EndpointConfig, EndpointError};
pub use exporter::{Exporter, ExporterConfig, render};
#[cfg(feature = "otel")]
pub use traces::{Traces, TracesConfig, TracesError};
