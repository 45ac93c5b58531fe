//! Serves `/metrics` and `/healthz` over HTTP.

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

use crate::exporter::{Exporter, OPENMETRICS};

/// The settings of the HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The address and port; port 0 for any free port. By default only a loopback address: the pages name every host
    /// and need no authentication.
    pub listen: SocketAddr,
    /// The time for requests under way at shutdown; 5 s by default.
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

/// Why the endpoint cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: choose another address or port, or stop the program that uses this one")]
pub struct EndpointError {
    /// The address.
    pub listen: SocketAddr,
    /// The operating system's error.
    #[source]
    pub source: io::Error,
}

/// A bound socket for metrics and health.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    drain: Duration,
}

impl Endpoint {
    /// Binds the address.
    ///
    /// # Errors
    /// [`EndpointError`] if the address is in use or does not belong to this machine.
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

    /// Serves `GET /metrics`, the text of [`Exporter::render`], and `GET /healthz`, the fleet's health as JSON: 503 if
    /// the fleet is unavailable, 200 otherwise. Ends when `shutdown` completes and the requests under way are answered,
    /// or after [`drain`](EndpointConfig::drain).
    ///
    /// # Errors
    /// The socket failed.
    ///
    /// Cancel safe: the socket is closed.
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
            // Ends when the sender is dropped.
            let _stopped = stopped.await;
        });
        // A client that never ends its request must not delay the shutdown.
        tokio::select! {
            served = served.into_future() => served,
            () = bounded => Ok(()),
        }
    }
}

async fn metrics<C: Connector>(State(exporter): State<Exporter<C>>) -> Response {
    // For a thousand hosts this computes for some milliseconds.
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
