//! What the pool, its keeper, its connections and its leases share, and how leases are granted and taken back.

use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::PooledConnection;
use super::leases::LeaseKey;
use super::line::Grant;
use super::members::Members;
use crate::connection::HostConnection;
use crate::connector::Connector;
use crate::context::HostContext;
use crate::error::TransportError;
use crate::stats::PoolStats;

/// What the pool, its keeper, its connections and its leases share.
pub(crate) struct Shared<C: Connector> {
    pub(super) host: Arc<HostContext<C>>,
    pub(super) members: Mutex<Members<C>>,
    /// Wakes the keeper.
    pub(super) attention: Notify,
    /// Wakes whoever waits for leases to come back.
    pub(super) returned: Notify,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl<C: Connector> Shared<C> {
    pub(super) fn lend(
        self: &Arc<Self>,
        members: &mut Members<C>,
        connection: Arc<HostConnection<C>>,
        waited: Duration,
        now: Instant,
        taken_at: &'static Location<'static>,
    ) -> PooledConnection<C> {
        members.waits.record(waited);
        let key = members.leases.take(now, taken_at);
        PooledConnection::new(self.clone(), connection, key, now, members.terms.validate_after)
    }

    /// Takes a lease back. Neither blocks nor spawns: it runs when a lease is dropped.
    pub(crate) fn give_back(
        self: &Arc<Self>,
        connection: &Arc<HostConnection<C>>,
        key: LeaseKey,
        now: Instant,
    ) {
        let mut members = self.members();
        if let Some(held_for) = members.leases.give_back(key, now) {
            members.uses.record(held_for);
        }
        if members.draining {
            self.returned.notify_waiters();
        }
        if members.line.is_empty() {
            return;
        }
        // Nothing else came free, or those who wait would have it: whoever is first gets what came back.
        if members.complete
            && members.use_again(connection)
            && let Some(waiter) = members.line.pop()
        {
            let waited = now - waiter.ticket.asked;
            let lease = self.lend(&mut members, connection.clone(), waited, now, waiter.taken_at);
            drop(members);
            // A lease nobody claims is dropped here, and goes to the next.
            let _unclaimed = waiter.grant.send(Ok(lease));
        } else {
            drop(members);
            self.serve();
        }
    }

    /// Grants leases to those who wait, as far as there is room, and has the keeper see to the rest. Neither
    /// blocks nor spawns.
    pub(super) fn serve(self: &Arc<Self>) {
        let mut members = self.members();
        let unclaimed = self.grant(&mut members);
        drop(members);
        // A lease nobody claimed is given back here, outside the lock it takes to do so.
        drop(unclaimed);
        self.attention.notify_one();
    }

    /// Grants leases to those who wait, as far as there is room; returns those whose callers had left.
    #[must_use = "leases are given back when dropped, which takes the lock"]
    pub(super) fn grant(self: &Arc<Self>, members: &mut Members<C>) -> Vec<Grant<C>> {
        let now = Instant::now();
        let mut unclaimed = Vec::new();
        members.sweep();
        while let Some(waiter) = members.line.pop() {
            let result = if let Some(connection) = members.choose(waiter.ticket.asked) {
                Ok(self.lend(members, connection, now - waiter.ticket.asked, now, waiter.taken_at))
            } else if let Some(error) = members.hopeless(&self.host) {
                Err(Box::new(error))
            } else {
                members.line.put_back(waiter);
                break;
            };
            if let Err(result) = waiter.grant.send(result) {
                unclaimed.push(result);
            }
        }
        unclaimed
    }

    /// Returns when there is no lease left.
    pub(super) async fn drained(&self) {
        loop {
            let mut returned = pin!(self.returned.notified());
            returned.as_mut().enable();
            if self.members().leases.count() == 0 {
                return;
            }
            returned.await;
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        let report_after = self.host.config().pool.report_leases_after;
        let snapshot = self.members().snapshot(report_after);
        snapshot.stats(&self.host)
    }

    pub(super) fn closed(&self) -> TransportError {
        TransportError::Closed { host: self.host.id.clone() }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members<C>> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
