//! The lease of a connection.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::leases::LeaseKey;
use super::shared::PoolShared;
use crate::admission::calls::{InFlight, Lane};
use crate::connection::HostConnection;
use crate::connection::connector::{CallFailure, Connector};
use crate::error::Result;
use crate::execute::unanswered::Unanswered;

/// A connection on loan from its pool. It counts as one active use until it is dropped, which also happens
/// when the work panics or is cancelled.
///
/// Several leases may share one connection. The operations that libvirt offers are methods of
/// [`LibvirtConnection`](crate::LibvirtConnection).
pub struct PooledConnection<C: Connector> {
    pool: Arc<PoolShared<C>>,
    connection: Arc<HostConnection<C>>,
    key: LeaseKey,
    fresh: bool,
    deadline: Option<Instant>,
    unanswered: Option<Unanswered>,
    /// Which try of the work it is for, from 1.
    attempt: u32,
}

impl<C: Connector> PooledConnection<C> {
    /// For a use of the connection that has [begun](HostConnection::begin_use): the lease ends it.
    pub(crate) fn new(
        pool: Arc<PoolShared<C>>,
        connection: Arc<HostConnection<C>>,
        key: LeaseKey,
        now: Instant,
        validate_after: Duration,
    ) -> Self {
        let quiet_for = now.saturating_duration_since(connection.last_active());
        // A call in flight is a probe by itself, and the connection's own would have to wait for it.
        let fresh = quiet_for < validate_after || !connection.has_free_place();
        PooledConnection { pool, connection, key, fresh, deadline: None, unanswered: None, attempt: 1 }
    }

    /// Bounds every call made through this lease.
    pub(crate) fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Shows calls made through this lease that are not answered.
    pub(crate) fn watched_by(mut self, unanswered: &Option<Unanswered>) -> Self {
        self.unanswered.clone_from(unanswered);
        self
    }

    /// Says which try of some work the lease is for.
    pub(crate) fn for_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// When work on this lease has to be done. Every call ends by then. Without one, each call may take
    /// [`call_timeout`](crate::TransportConfig::call_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Runs one call over the link: the way for a [`Connector`] to give its leases methods.
    ///
    /// Waits for a place among the calls in flight, then hands the link to `start`, with the token that
    /// marks the call as under way; the token is dropped when the call is really over. `lane` is
    /// the queue the call stands in, for calls that may not overtake one another and may hang. While other calls take all
    /// places of the leased connection, the link may be that of another connection of the pool which has a free one.
    ///
    /// # Errors
    /// [`TransportError::CallTimeout`](crate::TransportError::CallTimeout) at the deadline at the latest: the
    /// lease's, or `call_timeout` from now. The connection becomes suspect with the call that is the
    /// `calls.suspect_after`th to overrun. A lost link is opened again.
    ///
    /// Cancel safe in that nothing leaks. A call that was handed to `start` goes on, its effect unknown.
    pub async fn call<T, F, Fut>(&self, operation: &'static str, lane: Option<Lane>, start: F) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
    {
        let deadline = self.call_deadline();
        // Boxed, and only where it is waited for: it is rarely needed, and would make the type of every call's future so deep
        // that the compiler refuses programs with few layers of their own.
        let elsewhere = || async move {
            let other: BoxFuture<'_, PooledConnection<C>> =
                Box::pin(self.pool.lease_with_place(self.key, deadline));
            other.await
        };
        let start = |link, mut in_flight: InFlight| {
            in_flight.unanswered = self.unanswered.as_ref().map(Unanswered::sent);
            start(link, in_flight)
        };
        let result = self.connection.call(operation, lane, self.attempt, deadline, start, elsewhere).await;
        self.pool.place_freed();
        result
    }

    /// When a call that starts now has to be done.
    pub(crate) fn call_deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + self.connection.config().call_timeout)
    }

    /// Whether the host answers over this connection: it is up, its socket is open, and a cheap real call
    /// is answered within [`heartbeat_timeout`](crate::TransportConfig::heartbeat_timeout).
    ///
    /// A connection that turns out dead is opened again by itself. Cancel safe.
    ///
    /// # Errors
    /// None at present; a `Result` because libvirt's own `virConnectIsAlive` can fail, and closures return one.
    pub async fn is_alive(&self) -> Result<bool> {
        let deadline = Instant::now() + self.connection.config().heartbeat_timeout;
        Ok(self.is_alive_by(self.deadline.unwrap_or(deadline)).await)
    }

    /// As [`is_alive`](Self::is_alive), by `deadline` at the latest.
    pub(crate) async fn is_alive_by(&self, deadline: Instant) -> bool {
        self.connection.is_alive_by(deadline).await
    }

    /// Whether the connection was heard of so lately that it needs no probing before it is lent.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }
}

impl<C: Connector> Deref for PooledConnection<C> {
    type Target = HostConnection<C>;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<C: Connector> Drop for PooledConnection<C> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.end_use(now);
        self.pool.give_back(&self.connection, self.key, now);
    }
}

impl<C: Connector> fmt::Debug for PooledConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection")
            .field("connection", &self.connection)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
