//! What the pool, its keeper, its connections and its leases share, and how leases are granted and taken back.

use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::PooledConnection;
use super::leases::LeaseKey;
use super::state::PoolState;
use super::wait_queue::Grant;
use crate::connection::HostConnection;
use crate::connection::connector::Connector;
use crate::error::TransportError;
use crate::host::state::HostState;
use crate::pool::stats::PoolStats;

/// What the pool, its keeper, its connections and its leases share.
pub(crate) struct PoolShared<C: Connector> {
    pub(super) host: Arc<HostState<C>>,
    pub(super) state: Mutex<PoolState<C>>,
    /// Wakes the keeper.
    pub(super) attention: Notify,
    /// Wakes the tasks that wait for leases to come back.
    pub(super) returned: Notify,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// How many calls wait for a place.
    pub(super) unplaced: AtomicUsize,
}

impl<C: Connector> PoolShared<C> {
    pub(super) fn lend(
        self: &Arc<Self>,
        state: &mut PoolState<C>,
        connection: Arc<HostConnection<C>>,
        waited: Duration,
        now: Instant,
        taken_at: &'static Location<'static>,
    ) -> PooledConnection<C> {
        state.waits.record(waited);
        let key = state.leases.take(now, taken_at);
        PooledConnection::new(self.clone(), connection, key, now, state.terms.validate_after)
    }

    /// Takes a lease back. Neither blocks nor spawns: it runs when a lease is dropped.
    pub(crate) fn give_back(
        self: &Arc<Self>,
        connection: &Arc<HostConnection<C>>,
        key: LeaseKey,
        now: Instant,
    ) {
        let mut state = self.state();
        if let Some(held_for) = state.leases.give_back(key, now) {
            state.uses.record(held_for);
        }
        if state.draining {
            self.returned.notify_waiters();
        }
        if !state.is_waited_for() {
            return;
        }
        // Nothing else came free, or the waiting callers would have it: the first of them gets what came back.
        if state.complete
            && state.unplaced.is_empty()
            && state.use_again(connection)
            && let Some(waiter) = state.wait_queue.pop()
        {
            let waited = now - waiter.ticket.asked;
            let lease = self.lend(&mut state, connection.clone(), waited, now, waiter.taken_at);
            drop(state);
            // A lease whose caller has left is dropped here, and goes to the next.
            let _unclaimed = waiter.grant.send(Ok(lease));
        } else {
            drop(state);
            self.serve();
        }
    }

    /// Grants leases to those who wait, as far as there is room, and has the keeper see to the rest. Neither
    /// blocks nor spawns.
    pub(super) fn serve(self: &Arc<Self>) {
        let mut state = self.state();
        let unclaimed = self.grant(&mut state);
        drop(state);
        // A lease whose caller had left is given back here, outside the lock that this takes.
        drop(unclaimed);
        self.attention.notify_one();
    }

    /// A call on a lease has ended: its place may be another's, whose own connection has none.
    pub(super) fn place_freed(self: &Arc<Self>) {
        if self.unplaced.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    /// Grants leases to those who wait, as far as there is room; returns those whose callers had left.
    #[must_use = "leases are given back when dropped, which takes the lock"]
    pub(super) fn grant(self: &Arc<Self>, state: &mut PoolState<C>) -> Vec<Grant<C>> {
        let now = Instant::now();
        let mut unclaimed = Vec::new();
        state.sweep();
        // Those who have a lease already began before those who wait for one.
        while let Some(waiter) = state.unplaced.pop() {
            let Some(connection) = state.choose(waiter.ticket.asked, true) else {
                state.unplaced.put_back(waiter);
                break;
            };
            let lease = self.lend(state, connection, now - waiter.ticket.asked, now, waiter.taken_at);
            if let Err(result) = waiter.grant.send(Ok(lease)) {
                unclaimed.push(result);
            }
        }
        while let Some(waiter) = state.wait_queue.pop() {
            let result = if let Some(connection) = state.choose(waiter.ticket.asked, false) {
                Ok(self.lend(state, connection, now - waiter.ticket.asked, now, waiter.taken_at))
            } else if let Some(error) = state.fail_fast(&self.host) {
                Err(Box::new(error))
            } else {
                state.wait_queue.put_back(waiter);
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
            if self.state().leases.count() == 0 {
                return;
            }
            returned.await;
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        let report_after = self.host.config().pool.report_leases_after;
        let snapshot = self.state().snapshot(report_after);
        snapshot.stats(&self.host)
    }

    pub(super) fn closed(&self) -> TransportError {
        TransportError::Closed { host: self.host.id.clone() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PoolState<C>> {
        self.state.lock()
    }
}
