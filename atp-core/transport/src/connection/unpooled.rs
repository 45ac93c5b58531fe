//! Links beside the pool, for what keeps one for as long as it lives: domain events, an open channel.
//!
//! On a lease of the pool these would starve other work, and a stream whose far end is not read would stop
//! all other calls on its connection. Such links are opened through the same gate as the pool's: one
//! attempt at a time, and the same backoff.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admission::calls::ConnectionCalls;
use crate::config::TransportConfig;
use crate::connection::connector::Connector;
use crate::error::{ConnectError, ErrorKind, Result, TransportError};
use crate::host::HostId;
use crate::host::state::HostState;
use crate::sync::backoff;

/// Opens links to one host that belong to their opener alone.
pub(crate) struct UnpooledLinks<C: Connector> {
    host: Arc<HostState<C>>,
    /// Cancelled when the host is removed.
    closing: CancellationToken,
}

impl<C: Connector> UnpooledLinks<C> {
    pub(crate) fn new(host: Arc<HostState<C>>, closing: CancellationToken) -> Self {
        UnpooledLinks { host, closing }
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

    /// Returns when the link is lost: it noticed by itself, or leaves a probe unanswered. A probe is a call as others are:
    /// while a permit of `calls` is out, there is none. Cancel safe.
    pub(crate) async fn lost(&self, link: &Arc<C::Link>, calls: &Arc<ConnectionCalls>) {
        let connector = &self.host.connector;
        let silence = async {
            loop {
                sleep(probe_interval(&self.config())).await;
                // What is under way on it is its probe.
                let Some(place) = calls.try_acquire() else { continue };
                let deadline = Instant::now() + self.config().heartbeat_timeout;
                let in_flight = self.host.calls.begin_probe(calls, place, deadline);
                let probe = connector.probe(link, in_flight, deadline);
                match timeout_at(deadline, probe).await {
                    Ok(Ok(())) => {}
                    // That threads lack here says nothing of the host.
                    Ok(Err(error)) if error.kind == ErrorKind::ThreadsExhausted => {}
                    Ok(Err(_)) | Err(_) => return,
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

/// How long such a link may be quiet before it is probed. A daemon that passes calls on to another one, as virtproxyd does to
/// virtqemud, answers pings while that one hangs: it is noticed in the time in which keepalive notices a daemon that hangs itself.
fn probe_interval(config: &TransportConfig) -> Duration {
    let TransportConfig { keepalive, heartbeat_interval, heartbeat_timeout, .. } = config;
    if keepalive.interval.is_zero() {
        return backoff::spread(*heartbeat_interval);
    }
    let within = (keepalive.interval * keepalive.count).saturating_sub(*heartbeat_timeout);
    within.clamp(keepalive.interval, (*heartbeat_interval).max(keepalive.interval))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;
    use crate::admission::calls::InFlight;
    use crate::connection::reconnect::ConnectAttempt;
    use crate::host::HostInfo;
    use crate::manager::TransportManager;

    #[test]
    fn a_probe_that_fails_is_as_quick_as_keepalive() {
        let mut config = TransportConfig::default();
        assert_eq!(probe_interval(&config) + config.heartbeat_timeout, Duration::from_secs(25));
        config.heartbeat_timeout = Duration::from_secs(60);
        assert_eq!(probe_interval(&config), config.keepalive.interval);
        config.heartbeat_interval = Duration::from_secs(1);
        assert_eq!(probe_interval(&config), config.keepalive.interval);
        config.keepalive.interval = Duration::ZERO;
        assert!(probe_interval(&config) < Duration::from_secs(2));
    }

    /// Counts the probes of links that never fail.
    #[derive(Default)]
    struct Probed(AtomicUsize);

    impl Connector for Probed {
        type Link = ();

        fn validate(&self, _: &HostInfo) -> Result<(), String> {
            Ok(())
        }

        async fn connect(&self, _: &HostInfo, _: ConnectAttempt) -> Result<(), ConnectError> {
            Ok(())
        }

        async fn probe(&self, _: &Arc<()>, _: InFlight, _: Instant) -> Result<(), ConnectError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn is_open(&self, _: &()) -> bool {
            true
        }
    }

    /// Never answers.
    struct Silent;

    impl Connector for Silent {
        type Link = ();

        fn validate(&self, _: &HostInfo) -> Result<(), String> {
            Ok(())
        }

        async fn connect(&self, _: &HostInfo, attempt: ConnectAttempt) -> Result<(), ConnectError> {
            attempt.waits_for(ConnectError::new(ErrorKind::HostUnreachable, "silent"));
            std::future::pending().await
        }

        async fn probe(&self, _: &Arc<()>, _: InFlight, _: Instant) -> Result<(), ConnectError> {
            Ok(())
        }

        fn is_open(&self, _: &()) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_attempt_waited_for_is_the_reason_if_it_waited_for_long() {
        let mut config = TransportConfig::default();
        config.pool.min_connections_per_host = 0;
        let manager = TransportManager::with_connector(config, Silent);
        manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
        let dedicated = manager.pool("h1").unwrap().dedicated();
        let kind = async |millis| {
            let deadline = Instant::now() + Duration::from_millis(millis);
            dedicated.open_by(deadline).await.unwrap_err().kind()
        };
        assert_eq!(kind(10).await, ErrorKind::CallTimeout);
        assert_eq!(kind(3000).await, ErrorKind::HostUnreachable);
        // It is the latest that is known.
        assert_eq!(kind(10).await, ErrorKind::HostUnreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_not_probed_beside_a_call_under_way() {
        let mut config = TransportConfig::default();
        config.pool.min_connections_per_host = 0;
        let manager = TransportManager::with_connector(config, Probed::default());
        manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
        let dedicated = manager.pool("h1").unwrap().dedicated();
        let link = dedicated.open(false).await.unwrap();
        let (calls, hour) = (ConnectionCalls::new(1), Duration::from_secs(3600));
        let probes = || manager.connector().0.load(Ordering::SeqCst);

        let call = calls.acquire().await;
        assert!(timeout(hour, dedicated.lost(&link, &calls)).await.is_err());
        assert_eq!(probes(), 0);
        drop(call);
        assert!(timeout(hour, dedicated.lost(&link, &calls)).await.is_err());
        assert!(probes() > 1);
    }
}
