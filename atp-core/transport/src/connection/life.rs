//! The life of a connection: one task opens it, watches over it, and opens it again.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{ConnectionState, HostConnection};
use crate::connection::connector::Connector;
use crate::connection::reconnect::FailedAttempt;
use crate::error::ConnectError;
use crate::observe::events::{LossCause, TransportEvent};
use crate::sync::panics::contained;

/// What ends a link's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkFault {
    Lost(LossCause),
    /// With the operation that overran, where its caller was there to see it.
    Suspect(Option<&'static str>),
    Retired,
}

/// The end of a connection's life.
struct Ends<'a, C: Connector>(&'a HostConnection<C>);

impl<C: Connector> Drop for Ends<'_, C> {
    fn drop(&mut self) {
        self.0.disconnected();
        self.0.enter(ConnectionState::Closed);
    }
}

impl<C: Connector> HostConnection<C> {
    /// Drives the connection until it closes. To be run as a task.
    pub(crate) async fn drive(self: Arc<Self>) {
        // However the task ends, the connection ends: nothing else would wake the callers that wait for it.
        let _ends = Ends(&self);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {}
            () = self.live() => {}
        }
    }

    async fn live(&self) {
        let id = &self.host.id;
        let mut first = true;
        let mut waiting = ConnectionState::Connecting;
        let mut attempt = 1;
        let mut last_error: Option<Arc<ConnectError>> = None;
        loop {
            self.enter(waiting);
            match (waiting, &last_error) {
                (ConnectionState::Reconnecting { attempt }, error) => self.emit_reconnecting(attempt, error),
                (ConnectionState::Failed, Some(error)) => self.host.emit(TransportEvent::Failed {
                    connection: self.id,
                    kind: error.kind,
                    error: error.to_string(),
                }),
                _ => {}
            }
            let mut began = Instant::now();
            let on_start = || {
                began = Instant::now();
                self.core.lock().attempting = true;
                if waiting == ConnectionState::Failed {
                    self.enter(ConnectionState::Reconnecting { attempt: 1 });
                    self.emit_reconnecting(1, &last_error);
                }
            };
            let result = self.host.connect(!first, first, on_start).await;
            self.core.lock().attempting = false;
            match result {
                Err(FailedAttempt { error, next }) => {
                    tracing::debug!(host = %id, attempt, %error, "cannot connect");
                    self.host.heard_of_attempt(began, &error);
                    waiting = match next {
                        Some(next) => {
                            attempt = next;
                            ConnectionState::Reconnecting { attempt }
                        }
                        None => {
                            tracing::warn!(host = %id, %error, "host failed");
                            self.core.lock().gave_up = true;
                            ConnectionState::Failed
                        }
                    };
                    last_error = Some(error);
                }
                Ok(link) => {
                    // That a further connection opens at once says little of a host that leaves calls unanswered;
                    // that it can be connected to again says a lot.
                    if waiting != ConnectionState::Connecting {
                        self.host.heard_of_reconnect();
                    }
                    self.connected(link, first);
                    (first, last_error) = (false, None);
                    match self.watch().await {
                        LinkFault::Suspect(operation) => {
                            tracing::warn!(host = %id, operation, "a call hangs; its connection is replaced");
                            let stuck_calls = self.host.calls.stuck();
                            let connection = self.id;
                            self.host.emit(TransportEvent::Suspect { connection, operation, stuck_calls });
                            self.host.look_at_stuck_calls();
                            return self.run_out(ConnectionState::Suspect).await;
                        }
                        LinkFault::Retired => return self.run_out(ConnectionState::Draining).await,
                        LinkFault::Lost(cause) => {
                            let up_for = self.lost(cause);
                            if !self.host.config().auto_reconnect {
                                return;
                            }
                            attempt = self.host.reconnect.lost(&self.host.config(), up_for);
                            waiting = ConnectionState::Reconnecting { attempt };
                        }
                    }
                }
            }
        }
    }

    /// Waits, out of service, for the last lease and the last call to end, or for the link to be lost under them.
    async fn run_out(&self, state: ConnectionState) {
        self.usable.store(false, Ordering::SeqCst);
        self.enter(state);
        let is_loss = |trouble| matches!(trouble, LinkFault::Lost(_));
        let lost = tokio::select! {
            // A connection that is closed and lost at the same moment is reported as lost.
            biased;
            () = self.link_lost() => LossCause::Closed,
            LinkFault::Lost(cause) = self.reported(is_loss) => cause,
            () = self.unused() => return,
        };
        self.lost(lost);
    }

    /// Returns when the last lease and the last call have ended.
    async fn unused(&self) {
        while self.uses.load(Ordering::SeqCst) > 0 {
            self.unused.notified().await;
        }
        self.activity.close();
        self.activity.wait().await;
    }

    /// Probes a quiet link, until there is trouble with it. A probe under way holds up no other trouble.
    async fn watch(&self) -> LinkFault {
        tokio::select! {
            biased;
            trouble = self.reported(|_| true) => trouble,
            () = self.link_lost() => LinkFault::Lost(LossCause::Closed),
            () = self.overrun() => LinkFault::Suspect(None),
            () = self.silence() => LinkFault::Lost(LossCause::ProbeFailed),
            never = self.measure() => match never {},
        }
    }

    /// Finds out how many calls its link allows, when more are wanted. One that does not tell in time allows what is known then, and
    /// callers that wait get a further one before the time at which connections are shared.
    async fn measure(&self) -> Infallible {
        while !self.measured.load(Ordering::Acquire) {
            self.calls.more_wanted().await;
            let Some(link) = self.link() else { break };
            let patience = self.host.config().pool.grow_patience / 2;
            let limit = if patience.is_zero() { self.host.config().heartbeat_timeout } else { patience };
            let connector = &self.host.connector;
            let max_in_flight =
                match timeout(limit, contained(async { connector.measure(&link).await })).await {
                    Ok(Ok(max_in_flight)) => max_in_flight,
                    Ok(Err(_panic)) => 1,
                    Err(_) => connector.max_in_flight(&link),
                };
            self.set_max_in_flight(max_in_flight, true);
            (self.on_change)();
        }
        std::future::pending().await
    }

    fn set_max_in_flight(&self, calls: usize, measured: bool) {
        self.max_in_flight.store(calls.max(1), Ordering::Relaxed);
        self.calls.resize(self.max_calls());
        self.measured.store(measured, Ordering::Release);
    }

    /// Returns when the link has noticed by itself that it is lost.
    async fn link_lost(&self) {
        let Some(link) = self.link() else { return };
        // A connector that panics knows as little of the link as one whose link is gone.
        let _panicked = contained(async { self.host.connector.lost(&link).await }).await;
    }

    /// Returns when somebody has reported trouble of this kind.
    async fn reported(&self, kind: impl Fn(LinkFault) -> bool) -> LinkFault {
        loop {
            if let Some(trouble) = self.core.lock().trouble.filter(|trouble| kind(*trouble)) {
                return trouble;
            }
            self.trouble.notified().await;
        }
    }

    /// Drops a link that was lost, and emits an event; returns how long it had been up.
    fn lost(&self, cause: LossCause) -> Duration {
        let up_for = self.disconnected();
        tracing::info!(host = %self.host.id, ?cause, ?up_for, "connection lost");
        self.host.emit(TransportEvent::Lost { connection: self.id, cause, up_for });
        up_for
    }

    fn connected(&self, link: C::Link, first: bool) {
        let now = Instant::now();
        let connector = &self.host.connector;
        self.set_max_in_flight(connector.max_in_flight(&link), connector.is_measured(&link));
        let down_for = {
            let mut core = self.core.lock();
            core.link = Some(Arc::new(link));
            core.trouble = None;
            core.connected_at = now;
            core.gave_up = false;
            if !first {
                core.reconnects += 1;
            }
            self.last_active.set(now);
            self.usable.store(!self.closing.is_cancelled(), Ordering::Release);
            core.down_since.elapsed()
        };
        tracing::debug!(host = %self.host.id, "connected");
        self.enter(ConnectionState::Connected);
        let connection = self.id;
        if !first {
            self.host.counters.reconnected();
        }
        self.host.emit(match first {
            true => TransportEvent::Connected { connection },
            false => TransportEvent::Recovered { connection, down_for },
        });
    }

    fn emit_reconnecting(&self, attempt: u32, last_error: &Option<Arc<ConnectError>>) {
        let error = last_error.as_ref().map(ToString::to_string);
        self.host.emit(TransportEvent::Reconnecting { connection: self.id, attempt, error });
    }

    /// Drops the link; returns how long it had been up.
    fn disconnected(&self) -> Duration {
        let mut core = self.core.lock();
        if self.usable.swap(false, Ordering::AcqRel) {
            core.down_since = Instant::now();
        }
        let (link, up_for) = (core.link.take(), core.connected_at.elapsed());
        drop(core);
        // How a link is closed is the connector's business, which has none under our lock.
        drop(link);
        up_for
    }

    /// Ends the connection when it has no lease left; it gets no new ones. Returns false if something else was
    /// about to end it already.
    pub(crate) fn retire(&self) -> bool {
        self.usable.store(false, Ordering::Release);
        let mut core = self.core.lock();
        if core.link.is_some() {
            let ends_anyway = core.trouble.is_some();
            core.trouble.get_or_insert(LinkFault::Retired);
            self.trouble.notify_one();
            !ends_anyway
        } else {
            let ends_anyway = self.closing.is_cancelled();
            self.closing.cancel();
            !ends_anyway
        }
    }

    /// Reports a fault of a link to the driving task, unless that link has been replaced since.
    pub(super) fn report(&self, trouble: LinkFault, link: &Arc<C::Link>) {
        let mut core = self.core.lock();
        let is_loss = matches!(trouble, LinkFault::Lost(_));
        // A link that is out of service can still be lost.
        if core.has(link) && (core.trouble.is_none() || is_loss) {
            core.trouble = Some(trouble);
            if is_loss {
                // Calls on leases that are out wait for the next link from now on.
                core.link = None;
            }
            if self.usable.swap(false, Ordering::AcqRel) {
                core.down_since = Instant::now();
            }
            self.trouble.notify_one();
        }
    }

    fn enter(&self, state: ConnectionState) {
        self.state.send_replace(state);
        (self.on_change)();
    }
}
