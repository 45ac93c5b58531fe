//! The state of a pool: its connections, its leases, who waits for one. All of it is behind one lock, and nothing
//! here waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::autoscale::{self, Load, Scaling};
use super::leases::Leases;
use super::snapshot::{Census, Snapshot};
use super::strategy::{self, Candidate};
use super::terms::Terms;
use super::wait_queue::WaitQueue;
use crate::connection::connector::Connector;
use crate::connection::{ConnectionState, HostConnection};
use crate::error::TransportError;
use crate::host::state::HostState;
use crate::observe::events::{GrowthReason, ReapReason, TransportEvent};
use crate::observe::latency::Latencies;
use crate::sync::weighted_turns::WeightedTurns;

pub(crate) struct PoolState<C: Connector> {
    pub(crate) connections: Vec<Arc<HostConnection<C>>>,
    pub(crate) leases: Leases,
    pub(crate) wait_queue: WaitQueue<C>,
    /// Calls on leases whose connection has no free place: each waits for a lease of one that has.
    pub(crate) unplaced: WaitQueue<C>,
    /// Where round robin goes on.
    turn: usize,
    /// Where weighted round robin goes on.
    weighted: WeightedTurns<u64>,
    /// How many connections there may be; changes by `resize`.
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// There are as many connections as there may be, and all are in service: those who wait can but wait.
    pub(crate) complete: bool,
    /// Takes no new work.
    pub(crate) draining: bool,
    /// How connections are lent; changes with the configuration.
    pub(crate) terms: Terms,
    /// What the last look at the load said.
    pub(crate) scaling: Scaling,
    /// The connection that was last opened because of the load, for no particular caller.
    opened_for_load: Option<u64>,
    /// A caller waited with no room to grow, since the last look at which no caller waited.
    at_limit: bool,
    pub(crate) waits: Latencies,
    pub(crate) uses: Latencies,
}

impl<C: Connector> PoolState<C> {
    pub(crate) fn new(min: usize, max: usize, terms: Terms) -> Self {
        PoolState {
            connections: Vec::new(),
            leases: Leases::default(),
            wait_queue: WaitQueue::default(),
            unplaced: WaitQueue::default(),
            turn: 0,
            weighted: WeightedTurns::default(),
            min,
            max,
            complete: false,
            draining: false,
            terms,
            scaling: Scaling::Keep,
            opened_for_load: None,
            at_limit: false,
            waits: Latencies::default(),
            uses: Latencies::default(),
        }
    }

    /// The connection for the next lease, if one can carry it. Its use has begun.
    ///
    /// A connection is lent no more often than it may have calls in flight: a lease beyond that could find
    /// every place taken by calls that hang. Only when the pool cannot grow, or takes long to, are
    /// connections lent up to the configured limit, and to a caller who has waited for as long; those first on which a
    /// call can be sent at once. For a call that waits for a place, only those.
    pub(crate) fn choose(&mut self, asked: Instant, for_call: bool) -> Option<Arc<HostConnection<C>>> {
        let Terms { most, soft_max, grow_patience, .. } = self.terms;
        loop {
            let own_place = |connection: &HostConnection<C>| {
                let full = for_call && !connection.has_free_place();
                if full { 0 } else { soft_max.min(connection.max_in_flight()) }
            };
            let mut at = self.choose_below(own_place);
            if at.is_none() && most > soft_max && (asked.elapsed() >= grow_patience || !self.grows()) {
                at = self.choose_below(|connection| if connection.has_free_place() { most } else { 0 });
                if at.is_none() && !for_call {
                    at = self.choose_below(|_| most);
                }
            }
            let at = at?;
            self.turn = at + 1;
            let connection = self.connections.get(at)?;
            if connection.begin_use() {
                return Some(connection.clone());
            }
        }
    }

    /// Begins another use of a connection, unless it has as many as it may have calls in flight.
    pub(crate) fn use_again(&self, connection: &HostConnection<C>) -> bool {
        connection.load() < self.terms.soft_max.min(connection.max_in_flight()) && connection.begin_use()
    }

    /// Where the connection is that the strategy picks among those with fewer leases than it has `room` for.
    fn choose_below(&mut self, room: impl Fn(&HostConnection<C>) -> usize + Copy) -> Option<usize> {
        let soft_max = self.terms.soft_max;
        let (before, after) = self.connections.split_at(self.turn.min(self.connections.len()));
        let (before, after) = (before.iter().enumerate(), (self.turn..).zip(after));
        let candidates = after.chain(before).filter_map(|(index, connection)| {
            let (uses, room) = (connection.load(), room(connection));
            let (id, weight) = (connection.connection_id(), soft_max.min(connection.max_in_flight()));
            (uses < room && connection.is_usable()).then(|| Candidate {
                index,
                id,
                weight,
                uses,
                free: room - uses,
            })
        });
        strategy::choose(self.terms.strategy, candidates, &mut self.weighted, fastrand::f64)
    }

    /// Why waiting is of no use: there are connections, and all of them have given up.
    pub(crate) fn fail_fast(&self, host: &HostState<C>) -> Option<TransportError> {
        let mut open = self.in_service().peekable();
        open.peek()?;
        let source = host.reconnect.last_error()?;
        open.all(|connection| connection.gave_up())
            .then(|| TransportError::Connect { host: host.id.clone(), source })
    }

    /// Whether a further connection can be had before long.
    fn grows(&self) -> bool {
        let grow_patience = self.terms.grow_patience;
        let (mut opening, mut delayed) = (false, false);
        for connection in self.in_service().filter(|c| !c.is_usable()) {
            if connection.gave_up() || connection.down_for() >= grow_patience {
                delayed = true;
            } else {
                opening = true;
            }
        }
        opening || (!delayed && self.in_service().count() < self.max)
    }

    /// Looks at the load anew.
    pub(crate) fn look_at_load(&mut self, host: &HostState<C>) {
        self.at_limit &= !self.wait_queue.is_empty();
        let soft_max = self.terms.soft_max;
        let load = |c: &Arc<HostConnection<C>>| Load { uses: c.load(), places: soft_max.min(c.places()) };
        let loads: Vec<Load> = self.in_service().map(load).collect();
        self.scaling = autoscale::decide(loads.into_iter(), &host.config().pool);
    }

    /// The event to emit when a caller has begun to wait: that the pool cannot grow, if it has not been emitted.
    pub(crate) fn newly_at_limit(&mut self) -> Option<TransportEvent> {
        if self.at_limit || self.in_service().count() < self.max {
            return None;
        }
        self.at_limit = true;
        let active_uses = self.leases.count();
        Some(TransportEvent::PoolLimitReached { max_connections: self.max, active_uses })
    }

    /// Why another connection should be opened now, if one should: below the minimum always; beyond it for those who wait,
    /// or one at a time because of the load, and none while the host cannot be reached. As many are opened side by side as
    /// those who wait need, when one is open already, which shows that the host is well.
    pub(crate) fn wants_more(&self) -> Option<GrowthReason> {
        let count = self.in_service().count();
        if count < self.min {
            return Some(GrowthReason::Minimum);
        }
        // Calls have a lease: a place that comes free soon is as good as a further connection.
        let is_long = |asked: Instant| asked.elapsed() >= self.terms.grow_patience;
        let unplaced = if self.unplaced.first_asked().is_some_and(is_long) { self.unplaced.len() } else { 0 };
        let waiting = self.wait_queue.len() + unplaced;
        let wanted = match (waiting, self.scaling) {
            (1.., _) => GrowthReason::Waiting,
            (0, Scaling::Grow) => GrowthReason::Load,
            (0, _) => return None,
        };
        // Those there may have room for who waits, when it is known how many calls they allow.
        if wanted == GrowthReason::Waiting
            && self.in_service().filter(|connection| connection.may_bear_more()).count() > 0
        {
            return None;
        }
        let (mut connected, mut opening, mut places) = (0, 0, 0);
        for connection in self.in_service() {
            match connection.state() {
                ConnectionState::Connected => {
                    connected += 1;
                    places = places.max(connection.places());
                }
                ConnectionState::Idle | ConnectionState::Connecting => opening += 1,
                _ => return None,
            }
        }
        let most = match wanted {
            GrowthReason::Waiting if connected > 0 => {
                waiting.div_ceil(places.min(self.terms.soft_max).max(1)).min(self.terms.max_opening)
            }
            _ => 1,
        };
        (count < self.max && opening < most).then_some(wanted)
    }

    /// A connection was opened: whether the load asks for a further one is seen at the next look.
    pub(crate) fn has_grown(&mut self, by: &HostConnection<C>) {
        if self.scaling == Scaling::Grow {
            self.scaling = Scaling::Keep;
            self.opened_for_load = Some(by.connection_id());
        }
    }

    /// The connections to close or to let run out now, worst first, and why.
    pub(crate) fn surplus(&mut self, host: &HostState<C>) -> Vec<(Arc<HostConnection<C>>, ReapReason)> {
        let config = host.config();
        let pool = &config.pool;
        let count = self.in_service().count();
        let (over_min, over_max) = (count.saturating_sub(self.min), count.saturating_sub(self.max));
        let mut idle: Vec<_> = self.in_service().filter(|c| c.is_settled_and_idle()).cloned().collect();
        idle.sort_by_key(|connection| connection.last_used());
        let mut surplus: Vec<_> = idle
            .iter()
            .filter(|c| c.last_used().elapsed() >= pool.idle_timeout)
            .take(over_min)
            .map(|c| (c.clone(), ReapReason::Idle))
            .collect();
        // What waits to be opened for somebody who has been served meanwhile needs not be opened at all.
        if !self.is_waited_for() {
            let for_load = |c: &&Arc<HostConnection<C>>| self.opened_for_load == Some(c.connection_id());
            let needless = self.in_service().filter(|c| c.waits_its_turn() && !for_load(c)).take(over_min);
            surplus.extend(needless.map(|c| (c.clone(), ReapReason::NotNeeded)));
        }
        if surplus.is_empty() && self.scaling == Scaling::Shrink && over_min > 0 {
            // One at a look, and none that was in use since the last.
            let unused = |c: &&Arc<HostConnection<C>>| c.last_used().elapsed() >= pool.maintenance_interval;
            surplus.extend(idle.iter().find(unused).map(|c| (c.clone(), ReapReason::LowLoad)));
            self.scaling = Scaling::Keep;
        }
        if surplus.len() < over_max {
            // The pool was made smaller: those in use run out.
            let mut rest: Vec<_> =
                self.in_service().filter(|c| !surplus.iter().any(|(s, _)| Arc::ptr_eq(s, c))).collect();
            rest.sort_by_key(|connection| connection.active_uses());
            let more: Vec<_> = rest.into_iter().take(over_max - surplus.len()).cloned().collect();
            surplus.extend(more.into_iter().map(|c| (c, ReapReason::OverMaximum)));
        }
        surplus
    }

    /// When those who wait for a connection to open should rather share one that is in use.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        let grow_patience = self.terms.grow_patience;
        let queues = [&self.wait_queue, &self.unplaced];
        let first = queues.into_iter().filter_map(WaitQueue::first_asked).min()?.elapsed();
        let opening = self.in_service().filter(|c| !c.is_usable()).map(|c| c.down_for());
        let longest = opening.chain([first]).filter(|waited| *waited < grow_patience).max()?;
        Some(Instant::now() + (grow_patience - longest))
    }

    /// Whether a caller waits for a lease, or a call for a place.
    pub(crate) fn is_waited_for(&self) -> bool {
        !(self.wait_queue.is_empty() && self.unplaced.is_empty())
    }

    /// The connections that count against the maximum.
    pub(crate) fn in_service(&self) -> impl Iterator<Item = &Arc<HostConnection<C>>> {
        use ConnectionState::{Closed, Draining, Suspect};
        self.connections.iter().filter(|c| !matches!(c.state(), Suspect | Draining | Closed))
    }

    /// Lets go of connections that have ended, and looks whether the pool is complete. To be called after
    /// every change of a connection's state.
    pub(crate) fn sweep(&mut self) {
        self.connections.retain(|connection| connection.state() != ConnectionState::Closed);
        let all_usable = || self.connections.iter().all(|connection| connection.is_usable());
        self.complete = self.connections.len() >= self.max && all_usable();
    }

    pub(crate) fn census(&self) -> Census {
        let (leases, waiting) = (self.leases.count(), self.wait_queue.len());
        let mut census = Census { leases, waiting, max: self.max, ..Census::default() };
        self.connections.iter().for_each(|connection| census.add(connection));
        census
    }

    /// Copies what the statistics are made of. Leases that are out for longer than `report_after` count as long held; 0
    /// for none.
    pub(crate) fn snapshot(&self, report_after: Duration) -> Snapshot {
        let long_held = match report_after {
            Duration::ZERO => 0,
            limit => self.leases.long_held(limit, Instant::now()),
        };
        Snapshot {
            census: self.census(),
            long_held,
            strategy: self.terms.strategy,
            waits: self.waits.clone(),
            uses: self.uses.clone(),
        }
    }
}
