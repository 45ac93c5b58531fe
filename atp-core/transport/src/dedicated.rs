//! Links beside the pool, for what keeps one for as long as it lives: domain events, an open channel.
//!
//! On a lease of the pool these would starve other work, and a stream whose far end is not read would stop
//! everybody else's calls on its connection. Such links are opened through the same door as the pool's: one
//! attempt at a time, and the same backoff.

use std::sync::Arc;

use arc_swap::Guard;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backoff;
use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::context::HostContext;
use crate::error::{ConnectError, Result, TransportError};
use crate::host::HostId;

/// Opens links to one host that belong to nobody but their opener.
pub(crate) struct Dedicated<C: Connector> {
    host: Arc<HostContext<C>>,
    /// Cancelled when the host is removed.
    closing: CancellationToken,
}

impl<C: Connector> Dedicated<C> {
    pub(crate) fn new(host: Arc<HostContext<C>>, closing: CancellationToken) -> Self {
        Dedicated { host, closing }
    }

    pub(crate) fn host(&self) -> &HostId {
        &self.host.id
    }

    pub(crate) fn config(&self) -> Guard<Arc<TransportConfig>> {
        self.host.config()
    }

    /// Returns when the host has been removed.
    pub(crate) async fn removed(&self) {
        self.closing.cancelled().await;
    }

    /// Makes one attempt, after those of others and the backoff; `again` to open a link that was lost. Cancel safe.
    pub(crate) async fn open(&self, again: bool) -> Result<Arc<C::Link>, Arc<ConnectError>> {
        let opened = self.host.connect(again, false, || {}).await;
        opened.map(Arc::new).map_err(|failed| failed.error)
    }

    /// Makes one attempt, by `deadline`. Cancel safe.
    pub(crate) async fn open_by(&self, deadline: Instant) -> Result<Arc<C::Link>> {
        let host = || self.host.id.clone();
        let asked = Instant::now();
        let opened = tokio::select! {
            biased;
            () = self.removed() => return Err(TransportError::Closed { host: host() }),
            opened = timeout_at(deadline, self.open(false)) => opened,
        };
        match (opened, self.host.reconnect.last_error()) {
            (Ok(Ok(link)), _) => Ok(link),
            (Ok(Err(source)), _) | (Err(_), Some(source)) => {
                Err(TransportError::Connect { host: host(), source })
            }
            (Err(_), None) => Err(TransportError::CallTimeout {
                host: host(),
                operation: "virConnectOpen",
                after: asked.elapsed(),
                sent: false,
            }),
        }
    }

    /// Returns when the link is lost: it noticed by itself, or leaves a probe unanswered. Cancel safe.
    pub(crate) async fn lost(&self, link: &Arc<C::Link>) {
        let connector = &self.host.connector;
        let silence = async {
            loop {
                let interval = backoff::spread(self.config().heartbeat_interval);
                sleep(interval).await;
                let deadline = Instant::now() + self.config().heartbeat_timeout;
                let in_flight = self.host.calls.begin_probe(None, deadline);
                let probe = connector.probe(link, in_flight, deadline);
                if !matches!(timeout_at(deadline, probe).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        tokio::select! {
            () = connector.lost(link) => {}
            () = silence => {}
        }
    }

    /// Sets the pace of the next attempt, after a link that had been up since `opened`.
    pub(crate) fn note_loss(&self, opened: Instant) {
        self.host.reconnect.lost(&self.config(), opened.elapsed());
    }
}
