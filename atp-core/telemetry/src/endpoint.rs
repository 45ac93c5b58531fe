//! `/metrics` and `/healthz` over HTTP.

use std::future::{Future, IntoFuture as _};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use atp_transport::{Connector, HealthState};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::exporter::Exporter;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics and health are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The address and port; port 0 for any that is free. By default this machine's own only: what is served names
    /// every host, and asks nobody who they are.
    pub listen: SocketAddr,
    /// How long requests under way may take to end at shutdown; 5 s by default.
    pub drain: Duration,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        EndpointConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
            drain: Duration::from_secs(5),
        }
    }
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: choose another address or port, or end what holds this one")]
pub struct EndpointError {
    /// Where.
    pub listen: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A socket that metrics and health are to be served on.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    drain: Duration,
}

impl Endpoint {
    /// Takes the address.
    ///
    /// # Errors
    /// [`EndpointError`], when the address is taken or not this machine's.
    pub async fn bind(config: &EndpointConfig) -> Result<Self, EndpointError> {
        let listen = config.listen;
        let failed = |source| EndpointError { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Endpoint { listener, address, drain: config.drain })
    }

    /// The address, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `GET /metrics`, what [`Exporter::render`] writes, and `GET /healthz`, the fleet's health as JSON: 503
    /// when the fleet is unavailable, 200 otherwise. Ends when `shutdown` does and the requests under way are answered, or
    /// have had [`drain`](EndpointConfig::drain) to be.
    ///
    /// # Errors
    /// When the socket fails.
    ///
    /// Cancel safe in that the socket is closed.
    pub async fn serve<C: Connector>(
        self,
        exporter: Exporter<C>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics::<C>))
            .route("/healthz", get(health::<C>))
            .with_state(exporter);
        let (stop, stopped) = oneshot::channel::<()>();
        let bounded = async move {
            shutdown.await;
            drop(stop);
            tokio::time::sleep(self.drain).await;
        };
        let served = axum::serve(self.listener, router).with_graceful_shutdown(async {
            // Ends with the sender.
            let _stopped = stopped.await;
        });
        // A client that never ends its request must not hold up the end.
        tokio::select! {
            served = served.into_future() => served,
            () = bounded => Ok(()),
        }
    }
}

async fn metrics<C: Connector>(State(exporter): State<Exporter<C>>) -> Response {
    // A thousand hosts take some milliseconds of computing.
    match tokio::task::spawn_blocking(move || exporter.render()).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn health<C: Connector>(State(exporter): State<Exporter<C>>) -> Response {
    let health = exporter.manager().health();
    let status = match health.state {
        HealthState::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    match serde_json::to_string(&health) {
        Ok(json) => (status, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
