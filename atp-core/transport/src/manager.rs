//! All hosts: added, removed, counted. How work is run on them stands in `execute.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::context::HostContext;
use crate::error::{Result, TransportError};
use crate::host::{HostId, HostInfo};
use crate::libvirt::LibvirtConnector;
use crate::pace::Pace;
use crate::pool::ConnectionPool;
use crate::stats::PoolStats;

/// Every host of a fleet, with a pool of connections to each.
///
/// Cheap to clone; clones are the same manager. See the [crate's front page](crate) for an example.
pub struct TransportManager<C: Connector = LibvirtConnector> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connector> {
    config: TransportConfig,
    connector: Arc<C>,
    /// One for all hosts.
    pace: Arc<Pace>,
    hosts: RwLock<BTreeMap<HostId, Host<C>>>,
}

struct Host<C: Connector> {
    info: HostInfo,
    pool: Arc<ConnectionPool<C>>,
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
        let pace = Arc::new(Pace::new(config.reconnect.max_per_second));
        let shared = Shared { config, connector: Arc::new(connector), pace, hosts: RwLock::default() };
        TransportManager { shared: Arc::new(shared) }
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
        let common = &self.shared.config;
        common.validate()?;
        if let Some(own) = &info.config {
            common.validate_for_host(own)?;
        }
        let id: HostId = info.id.parse()?;
        let connector = self.shared.connector.clone();
        let config = connector.adapt(info.config.as_ref().unwrap_or(common).clone());
        if let Err(reason) = connector.validate(&info) {
            return Err(TransportError::InvalidUri { host: id, reason });
        }
        let mut hosts = self.shared.hosts_mut();
        if hosts.contains_key(&id) {
            return Err(TransportError::DuplicateHost { host: id });
        }
        let pace = self.shared.pace.clone();
        let context = HostContext::new(id.clone(), info.clone(), config, connector, pace);
        hosts.insert(id, Host { info, pool: Arc::new(ConnectionPool::new(context)) });
        Ok(())
    }

    /// Takes a host out. New work for it fails at once; work under way has
    /// [`drain_timeout`](crate::PoolConfig::drain_timeout) to end, then its connections are closed.
    ///
    /// # Errors
    /// [`TransportError::UnknownHost`].
    ///
    /// Cancel safe: the host is out at once; when cancelled its connections close without waiting for work.
    pub async fn remove_host(&self, id: &str) -> Result<()> {
        let removed = self.shared.hosts_mut().remove(id);
        let host = removed.ok_or_else(|| TransportError::UnknownHost { host: id.to_owned() })?;
        if !host.pool.close(host.pool.config().pool.drain_timeout).await {
            tracing::warn!(host = id, "removed with work under way");
        }
        Ok(())
    }

    /// The ids of all hosts, in order.
    pub(crate) fn ids(&self) -> Vec<HostId> {
        self.shared.hosts().keys().cloned().collect()
    }

    /// The configuration of the hosts that have none of their own.
    pub fn config(&self) -> &TransportConfig {
        &self.shared.config
    }

    /// The hosts, by id.
    pub fn hosts(&self) -> Vec<HostInfo> {
        self.shared.hosts().values().map(|host| host.info.clone()).collect()
    }

    /// The pool of a host.
    ///
    /// # Errors
    /// [`TransportError::UnknownHost`].
    pub fn pool(&self, id: &str) -> Result<Arc<ConnectionPool<C>>> {
        match self.shared.hosts().get(id) {
            Some(host) => Ok(host.pool.clone()),
            None => Err(TransportError::UnknownHost { host: id.to_owned() }),
        }
    }

    /// The pools' numbers, by host id.
    ///
    /// Cancel safe: does not wait for anything.
    pub async fn stats(&self) -> Vec<(String, PoolStats)> {
        let hosts = self.shared.hosts();
        hosts.iter().map(|(id, host)| (id.to_string(), host.pool.stats())).collect()
    }

    /// Removes every host; work under way has `drain` to end. Returns whether all of it had ended.
    ///
    /// Cancel safe: all hosts are out at once.
    pub async fn close(&self, drain: Duration) -> bool {
        let hosts = std::mem::take(&mut *self.shared.hosts_mut());
        let closing = hosts.values().map(|host| host.pool.close(drain));
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
        let hosts = self.shared.hosts();
        f.debug_struct("TransportManager").field("hosts", &hosts.keys()).finish_non_exhaustive()
    }
}

impl<C: Connector> Shared<C> {
    fn hosts(&self) -> RwLockReadGuard<'_, BTreeMap<HostId, Host<C>>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosts_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<HostId, Host<C>>> {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner)
    }
}
