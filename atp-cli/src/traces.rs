//! Spans of `atp serve` for an OpenTelemetry collector.

use crate::console::Further;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::verbs::Command;

/// The spans that are sent to a collector, if one is set.
pub(crate) struct Spans {
    #[cfg(feature = "otel")]
    traces: Option<atp_telemetry::Traces>,
}

/// The spans of a command: those of the service, if its settings name a collector.
///
/// # Errors
/// The address cannot be used, or this program was built without traces.
#[cfg(feature = "otel")]
pub(crate) fn of(command: &Command, settings: &Settings) -> Result<Spans, Problem> {
    use atp_telemetry::{Traces, TracesConfig};

    let serve = &settings.serve;
    if !matches!(command, Command::Serve(_)) || serve.traces.is_empty() {
        return Ok(Spans { traces: None });
    }
    let config = TracesConfig {
        endpoint: serve.traces.clone(),
        sampled_share: serve.traces_share,
        ..TracesConfig::default()
    };
    match Traces::new(&config) {
        Ok(traces) => Ok(Spans { traces: Some(traces) }),
        Err(error) => {
            let problem = Problem::new(format!("serve.traces: {error}"));
            Err(match std::error::Error::source(&error) {
                Some(source) => problem.because(source),
                None => problem,
            })
        }
    }
}

#[cfg(all(feature = "serve", not(feature = "otel")))]
pub(crate) fn of(_: &Command, settings: &Settings) -> Result<Spans, Problem> {
    if settings.serve.traces.is_empty() {
        return Ok(Spans {});
    }
    let problem = Problem::new("serve.traces is set, and this program was built without traces");
    Err(problem.hint("build atp with the feature `otel`, or remove the setting"))
}

#[cfg(not(feature = "serve"))]
pub(crate) fn of(_: &Command, _: &Settings) -> Result<Spans, Problem> {
    Ok(Spans {})
}

impl Spans {
    /// Passes them on from what is logged: the transport's and the service's.
    pub(crate) fn layer(&self) -> Option<Further> {
        #[cfg(feature = "otel")]
        {
            use tracing::level_filters::LevelFilter;
            use tracing_subscriber::filter::Targets;
            use tracing_subscriber::layer::Layer as _;

            const SPANS: [&str; 2] = ["atp_serve", "atp_transport"];
            let targets = Targets::new().with_targets(SPANS.map(|target| (target, LevelFilter::DEBUG)));
            self.traces.as_ref().map(|traces| traces.layer().with_filter(targets).boxed())
        }
        #[cfg(not(feature = "otel"))]
        None
    }

    /// Sends the last ones. Blocks for some seconds at most.
    ///
    /// # Errors
    /// The collector has not taken them.
    pub(crate) fn end(self) -> Result<(), Problem> {
        #[cfg(feature = "otel")]
        if let Some(traces) = self.traces {
            return traces.shutdown().map_err(|error| {
                let problem = Problem::new(error.to_string());
                match std::error::Error::source(&error) {
                    Some(source) => problem.because(source),
                    None => problem,
                }
            });
        }
        Ok(())
    }
}
