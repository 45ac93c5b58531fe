//! How a caller gets a lease: at once, or by waiting in line, and with proof that the connection still answers.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::ConnectionPool;
use super::lease::PooledConnection;
use super::leases::LeaseKey;
use super::shared::PoolShared;
use super::wait_queue::{Grant, Ticket};
use crate::connection::connector::Connector;
use crate::error::{AcquireStage, Result, TransportError};
use crate::observe::events::TransportEvent;

/// The answer to a caller who asks for a lease.
enum LeaseRequest<'a, C: Connector> {
    Granted(PooledConnection<C>),
    Refused(TransportError),
    Waiting(oneshot::Receiver<Grant<C>>, Place<'a, C>),
}

/// A caller's place in line, given up when the caller goes away.
struct Place<'a, C: Connector> {
    shared: &'a PoolShared<C>,
    ticket: Ticket,
}

/// The place in line of a call that waits for a place on a connection.
struct Unplaced<'a, C: Connector> {
    shared: &'a PoolShared<C>,
    ticket: Ticket,
}

impl<C: Connector> Drop for Unplaced<'_, C> {
    fn drop(&mut self) {
        self.shared.state().unplaced.leave(self.ticket);
        self.shared.unplaced.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<C: Connector> Drop for Place<'_, C> {
    fn drop(&mut self) {
        self.shared.state().wait_queue.leave(self.ticket);
    }
}

impl<C: Connector> ConnectionPool<C> {
    /// Lends a connection, as [`acquire`](Self::acquire) does, within the configured
    /// [`acquire_timeout`](crate::PoolConfig::acquire_timeout).
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire). Cancel safe as that is.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<C>>> + Send {
        let taken_at = Location::caller();
        async move {
            let asked = Instant::now();
            match self.shared.ask(asked, asked, taken_at) {
                // As in `acquire_from`; how long to wait is looked up for those who have to.
                LeaseRequest::Granted(lease) if lease.is_fresh() => Ok(lease),
                answer => {
                    let acquire_timeout = self.shared.host.config().pool.acquire_timeout;
                    self.wait_and_validate(answer, asked, asked + acquire_timeout, taken_at).await
                }
            }
        }
    }

    /// Lends a connection, as soon as one can carry another lease, and by `deadline` at the latest.
    ///
    /// # Errors
    /// [`TransportError::Connect`] at once when the host counts as failed; [`TransportError::AcquireTimeout`]
    /// with what was being waited for; [`TransportError::Closed`].
    ///
    /// Cancel safe: the place in line is given up, and a lease that was on its way goes to the next.
    #[track_caller]
    pub fn acquire(&self, deadline: Instant) -> impl Future<Output = Result<PooledConnection<C>>> + Send {
        let taken_at = Location::caller();
        async move { self.acquire_from(Instant::now(), deadline, taken_at).await }
    }

    /// For a caller who asked at some moment: its place in line goes by that.
    pub(crate) async fn acquire_from(
        &self,
        asked: Instant,
        deadline: Instant,
        taken_at: &'static Location<'static>,
    ) -> Result<PooledConnection<C>> {
        match self.shared.ask(asked, asked, taken_at) {
            // What most get: it goes straight to the caller, for each further hand it passes through costs.
            LeaseRequest::Granted(lease) if lease.is_fresh() => Ok(lease),
            answer => self.wait_and_validate(answer, asked, deadline, taken_at).await,
        }
    }

    /// What comes of asking where it takes more than being granted a lease: a wait, or the proof that a connection
    /// which was quiet for long still answers.
    async fn wait_and_validate(
        &self,
        mut answer: LeaseRequest<'_, C>,
        asked: Instant,
        deadline: Instant,
        taken_at: &'static Location<'static>,
    ) -> Result<PooledConnection<C>> {
        loop {
            let lease = match answer {
                LeaseRequest::Granted(lease) => lease,
                LeaseRequest::Refused(error) => return Err(error),
                LeaseRequest::Waiting(granted, place) => self.granted(granted, place, deadline).await?,
            };
            if lease.is_fresh() || lease.is_alive_by(deadline).await {
                return Ok(lease);
            }
            drop(lease);
            if Instant::now() >= deadline {
                return Err(self.shared.timed_out(asked, Some(AcquireStage::Validating)));
            }
            // A caller whose connection turns out dead keeps the place it got by asking first.
            answer = self.shared.ask(asked, Instant::now(), taken_at);
        }
    }

    /// Waits for what comes to a place in line.
    async fn granted(
        &self,
        mut granted: oneshot::Receiver<Grant<C>>,
        place: Place<'_, C>,
        deadline: Instant,
    ) -> Result<PooledConnection<C>> {
        match timeout_at(deadline, &mut granted).await {
            Ok(Ok(result)) => {
                // Served, and so out of the line already; the place holds nothing to free.
                std::mem::forget(place);
                result.map_err(|error| *error)
            }
            Ok(Err(_)) => Err(self.shared.closed()),
            // A grant may have come in the same instant; it is in the channel then.
            Err(_) => match granted.try_recv() {
                Ok(result) => result.map_err(|error| *error),
                Err(_) => Err(self.shared.timed_out(place.ticket.asked, None)),
            },
        }
    }
}

impl<C: Connector> PoolShared<C> {
    /// Lends a connection on which a call can be sent at once, as soon as there is one, to a lease whose own connection has
    /// no free place. Never returns if there is none: the caller has its own deadline. Cancel safe.
    pub(super) async fn lease_with_place(
        self: &Arc<Self>,
        key: LeaseKey,
        deadline: Instant,
    ) -> PooledConnection<C> {
        let asked = Instant::now();
        loop {
            let granted = self.wait_for_place(key, asked).await;
            if let Some(lease) = granted
                && (lease.is_fresh() || lease.is_alive_by(deadline).await)
            {
                return lease;
            }
        }
    }

    async fn wait_for_place(self: &Arc<Self>, key: LeaseKey, asked: Instant) -> Option<PooledConnection<C>> {
        let (granted, _place) = {
            let mut state = self.state();
            let taken_at = state.leases.taken_at(key).unwrap_or_else(|| Location::caller());
            let (ticket, granted) = state.unplaced.join(asked, taken_at);
            self.unplaced.fetch_add(1, Ordering::SeqCst);
            (granted, Unplaced { shared: self, ticket })
        };
        // There may be one now, and if not, the keeper is to open one.
        self.serve();
        match granted.await {
            Ok(granted) => granted.ok(),
            // The pool is gone, and with it the connection that the call waits for too.
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks for a lease `now`, with the place in line of one who `asked` at some moment.
    fn ask(
        self: &Arc<Self>,
        asked: Instant,
        now: Instant,
        taken_at: &'static Location<'static>,
    ) -> LeaseRequest<'_, C> {
        let mut state = self.state();
        if state.draining {
            return LeaseRequest::Refused(self.closed());
        }
        if state.wait_queue.first_asked().is_none_or(|first| first > asked)
            && let Some(connection) = state.choose(asked, false)
        {
            return LeaseRequest::Granted(self.lend(&mut state, connection, now - asked, now, taken_at));
        }
        let complete = state.complete;
        if !complete && let Some(error) = state.fail_fast(&self.host) {
            return LeaseRequest::Refused(error);
        }
        let (ticket, granted) = state.wait_queue.join(asked, taken_at);
        let limit = state.newly_at_limit();
        drop(state);
        if let Some(limit) = limit {
            self.host.emit(limit);
        }
        if !complete {
            self.attention.notify_one();
        }
        LeaseRequest::Waiting(granted, Place { shared: self, ticket })
    }

    /// The error for a caller whose time has run out at this stage; by default it stood in line.
    fn timed_out(&self, asked: Instant, stage: Option<AcquireStage>) -> TransportError {
        let stats = self.stats();
        let stage = stage.unwrap_or(match stats.idle_connections + stats.active_connections {
            0 => AcquireStage::Connecting,
            _ => AcquireStage::AllInUse,
        });
        let waited = asked.elapsed();
        let is_patient = waited >= self.host.config().health.min_wait;
        self.host.counters.acquire_timed_out(stage == AcquireStage::AllInUse && is_patient);
        self.host.emit(TransportEvent::AcquireTimedOut { stage, waited });
        let error = TransportError::AcquireTimeout {
            host: self.host.id.clone(),
            stage,
            waited,
            source: self.host.reconnect.last_error().filter(|_| stage == AcquireStage::Connecting),
            stats: Box::new(stats),
        };
        self.host.heard_of_acquire(asked, &error);
        error
    }
}
