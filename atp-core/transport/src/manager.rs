//! All hosts: added, removed, and work run on one, on some, on all of them in parallel.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::context::HostContext;
use crate::error::{Result, TransportError};
use crate::host::{HostId, HostInfo};
use crate::lease::PooledConnection;
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

/// How one piece of work is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecuteOptions {
    /// When the work has to be done, waiting and connecting included. Every call made through its lease
    /// ends by then. Without one, [`acquire_timeout`](crate::PoolConfig::acquire_timeout) bounds the wait for
    /// a connection and [`call_timeout`](TransportConfig::call_timeout) each call.
    pub deadline: Option<Instant>,
}

impl ExecuteOptions {
    /// Work that has to be done by `deadline`.
    pub fn by(deadline: Instant) -> Self {
        ExecuteOptions { deadline: Some(deadline) }
    }
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
    /// and [`TransportError::Config`] when the manager's configuration is not valid.
    ///
    /// Cancel safe: does not wait for anything.
    pub async fn add_host(&self, info: HostInfo) -> Result<()> {
        self.shared.config.validate()?;
        let id: HostId = info.id.parse()?;
        let connector = self.shared.connector.clone();
        if let Err(reason) = connector.validate(&info) {
            return Err(TransportError::InvalidUri { host: id, reason });
        }
        let mut hosts = self.shared.hosts_mut();
        if hosts.contains_key(&id) {
            return Err(TransportError::DuplicateHost { host: id });
        }
        let context = HostContext::new(
            id.clone(),
            info.clone(),
            self.shared.config.clone(),
            connector,
            self.shared.pace.clone(),
        );
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
        if !host.pool.close(self.shared.config.pool.drain_timeout).await {
            tracing::warn!(host = id, "removed with work under way");
        }
        Ok(())
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

    /// Runs `work` on a host, with a connection of its own choice among the host's.
    ///
    /// # Errors
    /// The closure's own, or a [`TransportError`] turned into one when no connection could be had or the
    /// closure panicked.
    ///
    /// Cancel safe as far as `work` is: the connection goes back.
    pub async fn execute_on_host<T, E, F, Fut>(&self, id: &str, work: F) -> Result<T, E>
    where
        F: FnOnce(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError>,
    {
        self.execute_on_host_with(id, ExecuteOptions::default(), work).await
    }

    /// As [`execute_on_host`](Self::execute_on_host), with options.
    pub async fn execute_on_host_with<T, E, F, Fut>(
        &self,
        id: &str,
        options: ExecuteOptions,
        work: F,
    ) -> Result<T, E>
    where
        F: FnOnce(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError>,
    {
        let pool = self.pool(id)?;
        let asked = Instant::now();
        let deadline = options.deadline.unwrap_or_else(|| asked + self.shared.config.pool.acquire_timeout);
        let lease = pool.acquire(deadline).await?.with_deadline(options.deadline);
        let host = lease.host_id().clone();
        // The closure's state is dropped with it; nothing of it is looked at after a panic.
        let contained = AssertUnwindSafe(async move { work(lease).await }).catch_unwind();
        let finished = match options.deadline {
            None => Ok(contained.await),
            // Calls end by the same deadline and say more about it; this is for a closure that waits for
            // something else.
            Some(deadline) => timeout_at(deadline, contained).await,
        };
        match finished {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                Err(TransportError::Panicked { host, message: panic_message(panic.as_ref()) }.into())
            }
            Err(_) => {
                let (operation, after) = ("the work given", asked.elapsed());
                Err(TransportError::CallTimeout { host, operation, after, sent: true }.into())
            }
        }
    }

    /// Runs `work` on several hosts in parallel, each in a task of its own. The results come in the order
    /// of `ids`, one for each, with [`TransportError::UnknownHost`] for an id that is not registered.
    ///
    /// Cancel safe: all tasks are aborted.
    pub async fn execute_on_hosts<T, E, F, Fut, I>(&self, ids: &[I], work: F) -> Vec<(String, Result<T, E>)>
    where
        I: AsRef<str>,
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        self.execute_on_hosts_with(ids, ExecuteOptions::default(), work).await
    }

    /// As [`execute_on_hosts`](Self::execute_on_hosts), with options that hold for each host.
    pub async fn execute_on_hosts_with<T, E, F, Fut, I>(
        &self,
        ids: &[I],
        options: ExecuteOptions,
        work: F,
    ) -> Vec<(String, Result<T, E>)>
    where
        I: AsRef<str>,
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        let work = Arc::new(work);
        let mut tasks = JoinSet::new();
        let mut results: Vec<(String, Option<Result<T, E>>)> = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            let id = id.as_ref().to_owned();
            results.push((id.clone(), None));
            let (manager, work) = (self.clone(), work.clone());
            tasks.spawn(async move {
                (index, manager.execute_on_host_with(&id, options, |lease| work(lease)).await)
            });
        }
        while let Some(joined) = tasks.join_next().await {
            if let Ok((index, result)) = joined
                && let Some((_, slot)) = results.get_mut(index)
            {
                *slot = Some(result);
            }
        }
        results
            .into_iter()
            .map(|(id, result)| {
                // Panics of the closure are contained above; what can still be lost is a task whose result
                // panicked when it was dropped, or whose runtime is shutting down.
                let result = result.unwrap_or_else(|| Err(lost_task(&id).into()));
                (id, result)
            })
            .collect()
    }

    /// Runs `work` on every host in parallel; the results come by host id.
    ///
    /// Cancel safe: all tasks are aborted.
    pub async fn execute_on_all_hosts<T, E, F, Fut>(&self, work: F) -> Vec<(String, Result<T, E>)>
    where
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        self.execute_on_all_hosts_with(ExecuteOptions::default(), work).await
    }

    /// As [`execute_on_all_hosts`](Self::execute_on_all_hosts), with options that hold for each host.
    pub async fn execute_on_all_hosts_with<T, E, F, Fut>(
        &self,
        options: ExecuteOptions,
        work: F,
    ) -> Vec<(String, Result<T, E>)>
    where
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        let ids: Vec<HostId> = self.shared.hosts().keys().cloned().collect();
        self.execute_on_hosts_with(&ids, options, work).await
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

/// A task of ours that ended without a result.
fn lost_task(id: &str) -> TransportError {
    match id.parse() {
        Ok(host) => TransportError::Panicked { host, message: "its task was lost".to_owned() },
        Err(error) => TransportError::InvalidHostId(error),
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}
