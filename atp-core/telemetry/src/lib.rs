//! Monitoring of the transport: metrics, a health endpoint, traces.
//!
//! The data comes from the public interface of [`atp_transport`]: statistics, health, events, and the calls that pass
//! its interceptors. Work does not need this crate, and this crate cannot block work.
//!
//! [`render`] writes the metrics of a [`TransportManager`](atp_transport::TransportManager) as text for Prometheus. An
//! [`Exporter`] adds the durations of calls, by host and operation, which are only known if every call is observed.
//!
//! ```
//! use atp_telemetry::{Exporter, ExporterConfig};
//! use atp_transport::{HostInfo, TransportConfig, TransportManager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> atp_transport::Result<()> {
//! let mut config = TransportConfig::default();
//! config.pool.max_connections_per_host = 1;
//! let manager = TransportManager::new(config);
//! let exporter = Exporter::new(&manager, &ExporterConfig::default());
//! manager.add_host(HostInfo::from_uri("demo", "test:///default")).await?;
//! manager.execute_on_host("demo", |conn| async move { conn.hostname().await }).await?;
//! let text = exporter.render();
//! assert!(text.contains(r#"atp_connections{host="demo",state="idle"} 1"#));
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `http`, an `Endpoint` serves that text at `/metrics`, and the fleet's health at `/healthz`. With
//! the feature `otel`, `Traces` sends the spans of work and calls to an OpenTelemetry collector.
//!
//! `configs/prometheus` and `configs/grafana` contain alerts and a dashboard. `docs/operations.md` explains each metric
//! and what to do about it.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | scrape | one reading of all metrics by Prometheus |
//! | metric, series | a measured value; one series of it for each combination of labels, such as host and operation |
//! | snapshot | the state of a manager and its hosts at the time of a scrape |
//! | interceptor | an observer that every call passes (see `atp-transport`) |
//! | span, trace | the record of one piece of work or call; a trace is a span with all spans inside it |
//! | fleet | all hosts of a manager |

mod calls;
mod exporter;
mod snapshot;

#[cfg(feature = "http")]
mod endpoint;
#[cfg(feature = "otel")]
mod traces;

#[cfg(feature = "http")]
pub use endpoint::{Endpoint, EndpointConfig, EndpointError};
pub use exporter::{Exporter, ExporterConfig, OPENMETRICS, render};
#[cfg(feature = "otel")]
pub use traces::{Traces, TracesConfig, TracesError};
