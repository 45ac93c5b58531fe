//! What all connections of one host share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::admission::breaker::{Breaker, Change, OpenShare};
use crate::admission::calls::HostCalls;
use crate::admission::interceptor::Interceptors;
use crate::admission::rate_limit::RateLimit;
use crate::config::TransportConfig;
use crate::connection::connector::Connector;
use crate::connection::reconnect::Reconnect;
use crate::execute::budget::RetryBudget;
use crate::host::{HostId, HostInfo};
use crate::observe::call_counters::CallCounters;
use crate::observe::events::{EventBus, TransportEvent};
use crate::observe::health::{FleetWatch, HostHealth};
use crate::sync::rate_limiter::RateLimiter;

pub(crate) struct HostState<C> {
    pub(crate) id: HostId,
    /// What is known of the host, and its configuration: both change while work runs.
    info: ArcSwap<HostInfo>,
    config: ArcSwap<TransportConfig>,
    pub(crate) connector: Arc<C>,
    pub(crate) calls: Arc<HostCalls>,
    pub(crate) reconnect: Reconnect,
    pub(crate) counters: CallCounters,
    pub(crate) health: HostHealth,
    /// One for all hosts.
    events: Arc<EventBus>,
    /// The event that the limit on hung calls is reached has been emitted.
    stuck_cap_told: AtomicBool,
    pub(crate) breaker: Breaker,
    /// One chain for all hosts.
    pub(crate) interceptors: Arc<Interceptors>,
    pub(crate) rate_limit: RateLimit,
    pub(crate) retry_budget: RetryBudget,
}

/// What all hosts share.
pub(crate) struct FleetShared {
    /// Of the attempts to open lost connections.
    pub(crate) pace: Arc<RateLimiter>,
    pub(crate) events: Arc<EventBus>,
    /// Of the fleet as a whole.
    pub(crate) health: Arc<FleetWatch>,
    /// Of the breakers that may be open at once.
    pub(crate) open_share: Arc<OpenShare>,
    pub(crate) interceptors: Arc<Interceptors>,
}

impl<C: Connector> HostState<C> {
    pub(crate) fn new(
        id: HostId,
        info: HostInfo,
        config: TransportConfig,
        connector: Arc<C>,
        common: &FleetShared,
    ) -> Arc<Self> {
        let calls = HostCalls::new(&config.calls, &config.reconnect);
        let reconnect = Reconnect::new(common.pace.clone());
        let (events, host) = (common.events.clone(), id.clone());
        let on_change = move |change: &Change| events.emit(Some(&host), change.event());
        let breaker = Breaker::new(common.open_share.clone(), on_change);
        let rate_limit = RateLimit::new(&config.rate_limit);
        let (info, config) = (ArcSwap::from_pointee(info), ArcSwap::from_pointee(config));
        let stuck_cap_told = AtomicBool::new(false);
        Arc::new(HostState {
            id,
            info,
            config,
            connector,
            calls,
            reconnect,
            counters: CallCounters::default(),
            health: HostHealth::new(common.health.clone()),
            breaker,
            interceptors: common.interceptors.clone(),
            rate_limit,
            retry_budget: RetryBudget::default(),
            events: common.events.clone(),
            stuck_cap_told,
        })
    }

    /// Emits an event about this host. Not to be called under a lock.
    pub(crate) fn emit(&self, what: TransportEvent) {
        self.events.emit(Some(&self.id), what);
    }

    /// Emits an event, once, when the limit on hung calls is reached.
    pub(crate) fn look_at_stuck_calls(&self) {
        let (stuck_calls, cap) = (self.calls.stuck(), self.config().calls.max_unproven_per_host);
        let reached = stuck_calls >= cap;
        if self.stuck_cap_told.swap(reached, Ordering::Relaxed) != reached && reached {
            self.emit(TransportEvent::StuckCapReached { stuck_calls, cap });
        }
    }

    /// What is known of the host now.
    pub(crate) fn info(&self) -> Arc<HostInfo> {
        self.info.load_full()
    }

    /// The configuration as it is now, to be looked at; `Guard::into_inner` makes of it what can be kept.
    pub(crate) fn config(&self) -> Guard<Arc<TransportConfig>> {
        self.config.load()
    }

    /// Has what is known of the host, and its configuration, be these from now on. Calls of this must not overlap.
    pub(crate) fn reconfigure(&self, info: HostInfo, config: TransportConfig) {
        self.calls.reconfigure(&config.calls, &config.reconnect);
        self.rate_limit.reconfigure(&config.rate_limit);
        self.info.store(Arc::new(info));
        self.config.store(Arc::new(config));
    }
}
