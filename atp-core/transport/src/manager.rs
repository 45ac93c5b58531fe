//! All hosts: added, removed, counted. How work is run on them stands in `execute/`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::admission::interceptor::Interceptor;
use crate::config::TransportConfig;
use crate::connection::connector::Connector;
use crate::engine::connector::LibvirtConnector;
use crate::error::{Result, TransportError};
use crate::execute::pick::Turns;
use crate::host::state::{FleetShared, HostState};
use crate::host::{HostId, HostInfo};
use crate::observe::events::{EventBus, EventKind, EventStream, TransportEvent};
use crate::observe::health::{FleetHealth, FleetWatch};
use crate::pool::ConnectionPool;
use crate::pool::stats::PoolStats;
use crate::sync::rate_limiter::RateLimiter;

/// Every host of a fleet, with a pool of connections to each.
///
/// Cheap to clone; clones are the same manager. See the [crate's front page](crate) for an example.
pub struct TransportManager<C: Connector = LibvirtConnector> {
    shared: Arc<ManagerShared<C>>,
}

struct ManagerShared<C: Connector> {
    connector: Arc<C>,
    common: FleetShared,
    /// Whose turn it is in each group.
    turns: Mutex<HashMap<String, Turns>>,
    state: RwLock<State<C>>,
}

/// What changes: hosts come and go, and the configuration with them.
pub(crate) struct State<C: Connector> {
    /// The configuration of the hosts that have none of their own.
    pub(crate) config: TransportConfig,
    pub(crate) hosts: BTreeMap<HostId, Arc<ConnectionPool<C>>>,
}

impl TransportManager<LibvirtConnector> {
    /// A manager of libvirt hosts, with none in it yet.
    ///
    /// The configuration is checked when the first host is added; check it earlier with
    /// [`TransportConfig::validate`].
    pub fn new(config: TransportConfig) -> Self {
        let connector = LibvirtConnector::new(&config);
        TransportManager::with_connector(config, connector)
    }
}

impl<C: Connector> TransportManager<C> {
    /// A manager of hosts that `connector` reaches.
    pub fn with_connector(config: TransportConfig, connector: C) -> Self {
        let pace = Arc::new(RateLimiter::new(config.reconnect.max_per_second.into(), 1));
        let events = Arc::new(EventBus::new(&config.events));
        let health = Arc::new(FleetWatch::new(&config.health, events.clone()));
        let (open_share, interceptors) = (Arc::default(), Arc::default());
        let common = FleetShared { pace, events, health, open_share, interceptors };
        let state = RwLock::new(State { config, hosts: BTreeMap::new() });
        TransportManager {
            shared: Arc::new(ManagerShared {
                connector: Arc::new(connector),
                common,
                turns: Mutex::default(),
                state,
            }),
        }
    }

    /// Registers a host and starts opening its minimum of connections in the background.
    ///
    /// A host that is down is no error here: work sent to it waits for the connection under its own deadline.
    ///
    /// # Errors
    /// [`TransportError::InvalidHostId`], [`TransportError::InvalidUri`], [`TransportError::DuplicateHost`],
    /// and [`TransportError::Config`] when the manager's configuration, or the host's own, is not valid.
    ///
    /// Cancel safe: does not wait for anything.
    pub async fn add_host(&self, info: HostInfo) -> Result<()> {
        let mut state = self.state_mut();
        state.config.validate()?;
        if let Some(own) = &info.config {
            state.config.validate_for_host(own)?;
        }
        let id: HostId = info.id.parse()?;
        if let Err(reason) = self.shared.connector.validate(&info) {
            return Err(TransportError::InvalidUri { host: id, reason });
        }
        if state.hosts.contains_key(&id) {
            return Err(TransportError::DuplicateHost { host: id });
        }
        self.open_pool(&mut state, id, info);
        Ok(())
    }

    /// Makes the pool of a host that was checked.
    pub(crate) fn open_pool(&self, state: &mut State<C>, id: HostId, info: HostInfo) {
        let config = self.config_of(state, &info);
        let connector = self.shared.connector.clone();
        // Emitted before the events of the host's pool.
        self.emit(&id, TransportEvent::HostAdded);
        let context = HostState::new(id.clone(), info, config, connector, &self.shared.common);
        state.hosts.insert(id, Arc::new(ConnectionPool::new(context)));
    }

    /// The configuration a host goes by.
    pub(crate) fn config_of(&self, state: &State<C>, info: &HostInfo) -> TransportConfig {
        self.shared.connector.adapt(info, info.config.as_ref().unwrap_or(&state.config).clone())
    }

    /// Takes over a common configuration that was checked.
    pub(crate) fn adopt(&self, state: &mut State<C>, config: TransportConfig) {
        self.shared.connector.configure(&config);
        self.shared.common.pace.set(config.reconnect.max_per_second.into(), 1);
        self.shared.common.health.configure(&config.health);
        state.config = config;
    }

    /// Takes a host out. New work for it fails at once; work under way has
    /// [`drain_timeout`](crate::PoolConfig::drain_timeout) to end, then its connections are closed.
    ///
    /// # Errors
    /// [`TransportError::UnknownHost`].
    ///
    /// Cancel safe: the host is out at once; when cancelled, its connections close once no work run on it is left, and nobody
    /// who holds its [pool](Self::pool).
    pub async fn remove_host(&self, id: &str) -> Result<()> {
        let removed = {
            let mut state = self.state_mut();
            let removed = state.hosts.remove(id);
            if let Some(pool) = &removed {
                // Before anybody can add it again.
                self.emit(pool.host_id(), TransportEvent::HostRemoved);
            }
            removed
        };
        let pool = removed.ok_or_else(|| TransportError::UnknownHost { host: id.to_owned() })?;
        drain(pool).await;
        Ok(())
    }

    /// As [`add_interceptor`](Self::add_interceptor), when the manager is made.
    pub fn with_interceptor(self, interceptor: impl Interceptor) -> Self {
        self.add_interceptor(interceptor);
        self
    }

    /// Puts an interceptor around each call that is made from now on, behind those that are there.
    pub fn add_interceptor(&self, interceptor: impl Interceptor) {
        self.shared.common.interceptors.add(Arc::new(interceptor));
    }

    /// How often interceptors have panicked.
    pub fn interceptor_panics(&self) -> u64 {
        self.shared.common.interceptors.panics()
    }

    /// The ids of all hosts, in order.
    pub(crate) fn ids(&self) -> Vec<HostId> {
        self.state().hosts.keys().cloned().collect()
    }

    /// The configuration of the hosts that have none of their own.
    pub fn config(&self) -> TransportConfig {
        self.state().config.clone()
    }

    /// The hosts, by id.
    pub fn hosts(&self) -> Vec<HostInfo> {
        self.state().hosts.values().map(|pool| HostInfo::clone(&pool.info())).collect()
    }

    /// The pools of all hosts, by their ids.
    pub fn pools(&self) -> Vec<Arc<ConnectionPool<C>>> {
        self.state().hosts.values().cloned().collect()
    }

    /// The pool of a host.
    ///
    /// # Errors
    /// [`TransportError::UnknownHost`].
    pub fn pool(&self, id: &str) -> Result<Arc<ConnectionPool<C>>> {
        match self.state().hosts.get(id) {
            Some(pool) => Ok(pool.clone()),
            None => Err(TransportError::UnknownHost { host: id.to_owned() }),
        }
    }

    /// The pools' numbers, by host id.
    ///
    /// Cancel safe: does not wait for anything.
    pub async fn stats(&self) -> Vec<(String, PoolStats)> {
        let pools = self.state().hosts.clone();
        pools.into_iter().map(|(id, pool)| (id.to_string(), pool.stats())).collect()
    }

    /// Emits an event about a host.
    pub(crate) fn emit(&self, host: &HostId, what: TransportEvent) {
        self.shared.common.events.emit(Some(host), what);
    }

    /// Emits an event about all hosts.
    pub(crate) fn emit_for_all(&self, what: TransportEvent) {
        self.shared.common.events.emit(None, what);
    }

    pub(crate) fn turns(&self) -> &Mutex<HashMap<String, Turns>> {
        &self.shared.turns
    }

    pub(crate) fn connector(&self) -> &C {
        &self.shared.connector
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State<C>> {
        self.shared.state.read()
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State<C>> {
        self.shared.state.write()
    }

    /// How the hosts and the fleet were when they were last looked at, at most
    /// [`health.interval`](crate::HealthConfig::interval) ago. Without looks, all count as healthy.
    pub fn health(&self) -> FleetHealth {
        let pools = self.state().hosts.clone();
        let hosts = pools.into_iter().map(|(id, pool)| (id, pool.health())).collect();
        self.shared.common.health.report(hosts)
    }

    /// Listens to what happens to the hosts from now on. Any number may listen, and none holds anything up.
    pub fn events(&self) -> EventStream {
        self.shared.common.events.subscribe()
    }

    /// How many events of each kind there have been since the manager was made, heard or not.
    pub fn event_counts(&self) -> BTreeMap<EventKind, u64> {
        self.shared.common.events.counts()
    }

    /// Removes every host; work under way has `drain` to end. Returns whether all of it had ended.
    ///
    /// Cancel safe: all hosts are out at once.
    pub async fn close(&self, drain: Duration) -> bool {
        let hosts = {
            let mut state = self.state_mut();
            let hosts = std::mem::take(&mut state.hosts);
            hosts.keys().for_each(|id| self.emit(id, TransportEvent::HostRemoved));
            hosts
        };
        let closing = hosts.values().map(|pool| pool.close(drain));
        futures_util::future::join_all(closing).await.into_iter().all(|drained| drained)
    }
}

impl<C: Connector> Clone for TransportManager<C> {
    fn clone(&self) -> Self {
        TransportManager { shared: self.shared.clone() }
    }
}

impl<C: Connector> fmt::Debug for TransportManager<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportManager").field("hosts", &self.state().hosts.keys()).finish_non_exhaustive()
    }
}

/// Waits for a host's work to end, for as long as its configuration says, and closes its connections.
pub(crate) async fn drain<C: Connector>(pool: Arc<ConnectionPool<C>>) {
    let drain_timeout = pool.config().pool.drain_timeout;
    if !pool.close(drain_timeout).await {
        tracing::warn!(host = %pool.host_id(), "removed with work under way");
    }
}
