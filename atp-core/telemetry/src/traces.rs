//! Sends spans of work and calls to an OpenTelemetry collector.

use std::fmt;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// The settings of the trace export.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    /// The collector's address for traces: OTLP over HTTP, with protobuf.
    pub endpoint: String,
    /// The name of the program at the collector.
    pub service_name: String,
    /// The share of traces that are sent; 0 to 1. A trace is sent as a whole or not at all.
    pub sampled_share: f64,
    /// How often spans are sent.
    pub interval: Duration,
    /// The longest time for one export.
    pub timeout: Duration,
    /// The most spans kept for the next export. Further ones are dropped, because work never waits for the collector.
    pub max_queue: usize,
}

impl Default for TracesConfig {
    fn default() -> Self {
        TracesConfig {
            endpoint: "http://127.0.0.1:4318/v1/traces".to_owned(),
            service_name: "atp".to_owned(),
            sampled_share: 1.0,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            max_queue: 4096,
        }
    }
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracesError {
    /// The exporter cannot be created.
    #[error("cannot send spans to {endpoint}: check the address of the collector")]
    Exporter {
        /// The address.
        endpoint: String,
        /// The reason.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The last spans could not be sent.
    #[error("the last spans were not sent to the collector")]
    Shutdown(#[source] opentelemetry_sdk::error::OTelSdkError),
}

/// Sends the spans of a program to a collector, from a separate thread.
///
/// ```no_run
/// use atp_telemetry::{Traces, TracesConfig};
/// use tracing_subscriber::layer::SubscriberExt;
/// use tracing_subscriber::util::SubscriberInitExt;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let traces = Traces::new(&TracesConfig::default())?;
/// tracing_subscriber::registry().with(traces.layer()).try_init()?;
/// // … the program …
/// traces.shutdown()?;
/// # Ok(())
/// # }
/// ```
///
/// The transport's spans have the level `DEBUG`: `execute` for each attempt of work on a host (with `host` and
/// `attempt`), and in it a `call` for each call (with `host`, `operation` and `connection`).
#[derive(Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    timeout: Duration,
}

impl Traces {
    /// Creates the exporter. It does not connect yet.
    ///
    /// # Errors
    /// [`TracesError::Exporter`] if the address is invalid.
    pub fn new(config: &TracesConfig) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.endpoint)
            .with_timeout(config.timeout)
            .build()
            .map_err(|source| TracesError::Exporter { endpoint: config.endpoint.clone(), source })?;
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(config.interval)
            .with_max_queue_size(config.max_queue)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sampled_share))))
            .with_resource(Resource::builder().with_service_name(config.service_name.clone()).build())
            .build();
        Ok(Traces { provider, timeout: config.timeout })
    }

    /// The layer that passes spans on, for the program's subscriber of `tracing`.
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("atp"))
    }

    /// Sends the remaining spans, and ends. Blocks for at most the configured timeout.
    ///
    /// # Errors
    /// [`TracesError::Shutdown`] if the collector did not accept the last spans.
    pub fn shutdown(self) -> Result<(), TracesError> {
        self.provider.shutdown_with_timeout(self.timeout).map_err(TracesError::Shutdown)
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}
