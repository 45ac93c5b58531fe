//! The watching of one host: a connection for it, opened again when it is lost.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout_at};

use super::feed::{Closes, Feed};
use super::{WatchItem, WatchOptions};
use crate::admission::calls::ConnectionCalls;
use crate::connection::unpooled::UnpooledLinks;
use crate::domain::DomainInfo;
use crate::engine::connector::LibvirtConnector;
use crate::engine::{Answer, LibvirtLink};
use crate::error::{ConnectError, ErrorKind};
use crate::sync::semaphore::Permit;

/// The watching of one host.
pub(super) struct Watch {
    host: UnpooledLinks<LibvirtConnector>,
    items: broadcast::Sender<WatchItem>,
    options: WatchOptions,
}

impl Watch {
    pub(super) fn new(
        host: UnpooledLinks<LibvirtConnector>,
        items: broadcast::Sender<WatchItem>,
        options: WatchOptions,
    ) -> Self {
        Watch { host, items, options }
    }

    /// Watches until the host is removed.
    pub(super) async fn run(self) {
        tokio::select! {
            biased;
            () = self.host.removed() => {}
            () = self.keep_watching() => {}
        }
        self.send(WatchItem::Removed { host: self.host.host().clone(), at: SystemTime::now() });
    }

    async fn keep_watching(&self) {
        let mut again = false;
        let mut reported = None;
        loop {
            match self.host.open(again).await {
                Ok(link) => {
                    let opened = Instant::now();
                    again = true;
                    match self.watch(&link, &mut reported).await {
                        Ok(()) => reported = None,
                        Err(error) => {
                            tracing::warn!(host = %self.host.host(), %error, "cannot watch domains");
                            self.unreachable(&Arc::new(error), &mut reported);
                        }
                    }
                    drop(link);
                    self.host.note_loss(opened);
                }
                Err(error) => self.unreachable(&error, &mut reported),
            }
        }
    }

    fn unreachable(&self, error: &Arc<ConnectError>, reported: &mut Option<ErrorKind>) {
        if reported.replace(error.kind) != Some(error.kind) {
            let (host, at) = (self.host.host().clone(), SystemTime::now());
            self.send(WatchItem::Unreachable { host, at, error: error.clone() });
        }
    }

    /// Watches over one connection until that is lost.
    async fn watch(
        &self,
        link: &Arc<LibvirtLink>,
        reported: &mut Option<ErrorKind>,
    ) -> Result<(), ConnectError> {
        let feed = Arc::new(Feed::new(self.host.host().clone(), self.items.clone(), self.options.buffer));
        let (sink, monitor) = (feed.clone(), self.options.monitor_events);
        let calls = ConnectionCalls::new(1);
        let domains = self
            .ask(&calls, reported, |place| link.watch_domains(place, sink, monitor))
            .await
            .map(by_name)?;
        feed.open(domains.clone());
        let _closes = Closes(&feed);
        let settle = async {
            sleep(self.options.settle).await;
            feed.hold();
            let now = self.ask(&calls, reported, |place| link.list_domains(place)).await.map(by_name)?;
            feed.open_settled(&domains, now);
            std::future::pending::<()>().await;
            Ok(())
        };
        tokio::select! {
            biased;
            () = self.host.lost(link, &calls) => Ok(()),
            failed = settle => failed,
        }
    }

    /// Makes a request on the connection, one at a time. One that is not answered in time is reported of, and waited for.
    async fn ask<T, F: Future<Output = Answer<T>>>(
        &self,
        calls: &Arc<ConnectionCalls>,
        reported: &mut Option<ErrorKind>,
        call: impl FnOnce(Permit) -> F,
    ) -> Result<T, ConnectError> {
        let place = calls.acquire().await;
        let deadline = Instant::now() + self.host.config().call_timeout;
        let mut call = std::pin::pin!(call(place));
        match timeout_at(deadline, &mut call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => {
                let what = "the daemon does not report events of its domains";
                Err(failure.into_connect_error(ErrorKind::ConnectFailed, what))
            }
            Err(_) => {
                let reason = "the daemon does not answer when asked for events";
                let silent = ConnectError::new(ErrorKind::ConnectTimeout, reason);
                self.unreachable(&Arc::new(silent.clone()), reported);
                // It holds a thread and the connection, and cannot be stopped, so no other is begun beside it. It
                // returns when the daemon answers, or the link is lost.
                let _late = call.await;
                Err(silent)
            }
        }
    }

    fn send(&self, item: WatchItem) {
        // Fails when nobody listens at the moment.
        let _unheard = self.items.send(item);
    }
}

fn by_name(mut domains: Vec<DomainInfo>) -> Vec<DomainInfo> {
    domains.sort_by(|one, other| one.name.cmp(&other.name));
    domains
}
