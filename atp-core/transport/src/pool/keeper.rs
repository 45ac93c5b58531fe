//! The keeper: the one task of a pool that opens and closes connections, whenever something changes and now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};

use super::leases::LongHeld;
use super::shared::PoolShared;
use crate::connection::HostConnection;
use crate::connection::connector::Connector;
use crate::observe::call_counters::CallCounts;
use crate::observe::events::{ReapReason, TransportEvent};

/// Keeps a pool until that is closed.
pub(super) async fn keep<C: Connector>(shared: Arc<PoolShared<C>>) {
    let interval = || shared.host.config().pool.maintenance_interval;
    let mut tick = every(interval());
    let mut looked = Instant::now();
    loop {
        if tick.period() != interval() {
            tick = every(interval());
        }
        let patience_ends = shared.state().patience_ends();
        let look_every = shared.host.config().health.interval;
        tokio::select! {
            // Attention may be called for all the time, and must not keep the rest from its turn.
            biased;
            () = shared.closing.cancelled() => return,
            _ = tick.tick() => shared.look_around(),
            () = sleep_until(looked + look_every), if !look_every.is_zero() => {
                shared.look_at_health();
                looked = Instant::now();
                continue;
            }
            () = sleep_until(patience_ends.unwrap_or_else(Instant::now)), if patience_ends.is_some() => {}
            () = shared.attention.notified() => {}
        }
        shared.maintain();
    }
}

fn every(period: Duration) -> Interval {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

impl<C: Connector> PoolShared<C> {
    /// Opens and closes connections until their number is right. Runs in the keeper's task only.
    fn maintain(self: &Arc<Self>) {
        let mut state = self.state();
        // First those who can be served: a connection is opened only for somebody who still waits then.
        let unclaimed = self.grant(&mut state);
        let (mut opened, mut events) = (Vec::new(), Vec::new());
        if !state.draining {
            while let Some(reason) = state.wants_more() {
                let connection = self.open();
                state.connections.push(connection.clone());
                state.has_grown(&connection);
                let connections = state.in_service().count();
                let id = connection.connection_id();
                events.push(TransportEvent::PoolGrown { connection: id, reason, connections });
                opened.push(connection);
            }
            for (connection, reason) in state.surplus(&self.host) {
                tracing::debug!(host = %self.host.id, ?reason, "closing a connection");
                if connection.retire() {
                    let connection = connection.connection_id();
                    events.push(TransportEvent::PoolReaped { connection, reason });
                }
            }
        }
        drop(state);
        drop(unclaimed);
        // Events of a connection come after the one that it was opened.
        events.into_iter().for_each(|event| self.host.emit(event));
        for connection in opened {
            self.tasks.spawn(connection.drive());
        }
    }

    /// Looks after what only time changes. Runs in the keeper's task only.
    fn look_around(self: &Arc<Self>) {
        self.host.calls.tidy();
        let now = Instant::now();
        let mut state = self.state();
        state.look_at_load(&self.host);
        let limit = self.host.config().pool.report_leases_after;
        let long_held = if limit.is_zero() { Vec::new() } else { state.leases.newly_long_held(limit, now) };
        let outlived = state.connections.iter().filter(|c| c.has_outlived(now));
        let expired: Vec<_> = outlived.filter(|c| c.retire()).map(|c| c.connection_id()).collect();
        drop(state);
        for LongHeld { held_for, taken_at } in long_held {
            tracing::warn!(
                host = %self.host.id, ?held_for, %taken_at, "a lease has been held for a long time; was it forgotten?"
            );
            self.host.emit(TransportEvent::LeaseHeldLong { held_for, taken_at: taken_at.to_string() });
        }
        for connection in expired {
            tracing::debug!(host = %self.host.id, connection, "replacing an old connection");
            self.host.emit(TransportEvent::PoolReaped { connection, reason: ReapReason::Expired });
        }
        self.host.look_at_stuck_calls();
    }

    /// Assesses the host's health, and emits an event if it has changed. Runs in the keeper's task only.
    fn look_at_health(&self) {
        let PoolShared { host, .. } = self;
        let vitals = |lately: CallCounts| {
            let state = self.state();
            let (census, unshared) = (state.census(), state.terms.soft_max);
            drop(state);
            census.vitals(unshared, host, &lately)
        };
        let changed = host.health.look(&host.counters.now(), &host.config().health, vitals);
        if let Some(event) = changed {
            host.emit(event);
        }
        host.health.look_at_fleet();
    }

    fn open(self: &Arc<Self>) -> Arc<HostConnection<C>> {
        let pool = Arc::downgrade(self);
        let on_change = move || {
            if let Some(pool) = pool.upgrade() {
                pool.serve();
            }
        };
        HostConnection::new(self.host.clone(), &self.closing, on_change)
    }
}
