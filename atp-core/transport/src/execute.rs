//! Work run on one host, on some, on all of them in parallel.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::breaker::Probe;
use crate::connector::Connector;
use crate::error::{Result, TransportError};
use crate::manager::TransportManager;
use crate::pool::{ConnectionPool, PooledConnection};

/// How work is run. The default: on all hosts at once, without a deadline of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecuteOptions {
    /// When the work has to be done, waiting and connecting included. Every call made through its lease
    /// ends by then. Without one, [`acquire_timeout`](crate::PoolConfig::acquire_timeout) bounds the wait for
    /// a connection and [`call_timeout`](crate::TransportConfig::call_timeout) each call.
    pub deadline: Option<Instant>,
    /// Most hosts worked on at once; all of them without it. Hosts that wait their turn do so under the same
    /// deadline.
    pub concurrency: Option<usize>,
    /// Most tries of work that may be repeated, the first included; 0 counts as 1. Without it,
    /// [`max_tries`](crate::RetryConfig::max_tries) on one host, and all hosts of a group. Other work is tried once.
    pub max_tries: Option<u32>,
}

impl ExecuteOptions {
    /// Work that has to be done by `deadline`.
    pub fn by(deadline: Instant) -> Self {
        ExecuteOptions { deadline: Some(deadline), ..ExecuteOptions::default() }
    }

    /// Tries work that may be repeated at most so often.
    pub fn with_max_tries(mut self, tries: u32) -> Self {
        self.max_tries = Some(tries);
        self
    }

    /// Works on at most `hosts` at once; 0 counts as 1.
    pub fn with_concurrency(mut self, hosts: usize) -> Self {
        self.concurrency = Some(hosts);
        self
    }
}

/// One try of some work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    /// Which, from 1.
    pub(crate) number: u32,
    /// Where the work was asked for.
    pub(crate) taken_at: &'static Location<'static>,
}

impl Try {
    pub(crate) fn first(taken_at: &'static Location<'static>) -> Self {
        Try { number: 1, taken_at }
    }
}

impl<C: Connector> TransportManager<C> {
    /// Runs `work` on a host, with a lease of one of its connections.
    ///
    /// # Errors
    /// The closure's own, or a [`TransportError`] turned into one when no connection could be had or the
    /// closure panicked.
    ///
    /// Cancel safe as far as `work` is: the connection goes back.
    #[track_caller]
    pub fn execute_on_host<T, E, F, Fut>(&self, id: &str, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: FnOnce(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError>,
    {
        self.execute(id, ExecuteOptions::default(), Try::first(Location::caller()), work)
    }

    /// As [`execute_on_host`](Self::execute_on_host), with options.
    #[track_caller]
    pub fn execute_on_host_with<T, E, F, Fut>(
        &self,
        id: &str,
        options: ExecuteOptions,
        work: F,
    ) -> impl Future<Output = Result<T, E>>
    where
        F: FnOnce(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError>,
    {
        self.execute(id, options, Try::first(Location::caller()), work)
    }

    async fn execute<T, E, F, Fut>(
        &self,
        id: &str,
        options: ExecuteOptions,
        this: Try,
        work: F,
    ) -> Result<T, E>
    where
        F: FnOnce(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError>,
    {
        let pool = self.pool(id)?;
        let acquire_by = pool.acquire_by(options.deadline);
        pool.execute(options.deadline, acquire_by, this, work).await
    }

    /// Runs `work` on several hosts in parallel, each in a task of its own. The results come in the order
    /// of `ids`, one for each, with [`TransportError::UnknownHost`] for an id that is not registered.
    ///
    /// Cancel safe: all tasks are aborted.
    #[track_caller]
    pub fn execute_on_hosts<T, E, F, Fut, I>(
        &self,
        ids: &[I],
        work: F,
    ) -> impl Future<Output = Vec<(String, Result<T, E>)>> + Send + use<T, E, F, Fut, I, C>
    where
        I: AsRef<str>,
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        self.execute_on_hosts_with(ids, ExecuteOptions::default(), work)
    }

    /// As [`execute_on_hosts`](Self::execute_on_hosts), with options.
    #[track_caller]
    pub fn execute_on_hosts_with<T, E, F, Fut, I>(
        &self,
        ids: &[I],
        options: ExecuteOptions,
        work: F,
    ) -> impl Future<Output = Vec<(String, Result<T, E>)>> + Send + use<T, E, F, Fut, I, C>
    where
        I: AsRef<str>,
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        in_order(self.fan_out(owned(ids), options, Try::first(Location::caller()), work))
    }

    /// Runs `work` on every host in parallel; the results come by host id.
    ///
    /// Cancel safe: all tasks are aborted.
    #[track_caller]
    pub fn execute_on_all_hosts<T, E, F, Fut>(
        &self,
        work: F,
    ) -> impl Future<Output = Vec<(String, Result<T, E>)>> + Send + use<T, E, F, Fut, C>
    where
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        self.execute_on_all_hosts_with(ExecuteOptions::default(), work)
    }

    /// As [`execute_on_all_hosts`](Self::execute_on_all_hosts), with options.
    #[track_caller]
    pub fn execute_on_all_hosts_with<T, E, F, Fut>(
        &self,
        options: ExecuteOptions,
        work: F,
    ) -> impl Future<Output = Vec<(String, Result<T, E>)>> + Send + use<T, E, F, Fut, C>
    where
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        in_order(self.fan_out(owned(&self.ids()), options, Try::first(Location::caller()), work))
    }

    /// Runs `work` on several hosts in parallel and hands out each result as soon as it is there, with its
    /// host's id.
    ///
    /// Nothing starts before the stream is polled. Dropping it aborts the work that has not ended.
    ///
    /// ```
    /// use atp_transport::{ExecuteOptions, HostInfo, TransportConfig, TransportManager};
    /// use futures_util::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> atp_transport::Result<()> {
    /// let manager = TransportManager::new(TransportConfig::default());
    /// for id in ["a", "b", "c"] {
    ///     manager.add_host(HostInfo::from_uri(id, "test:///default")).await?;
    /// }
    /// let two_at_a_time = ExecuteOptions::default().with_concurrency(2);
    /// let mut names = manager
    ///     .stream_on_hosts(&["a", "b", "c"], two_at_a_time, |conn| async move { conn.hostname().await });
    /// while let Some((host_id, hostname)) = names.next().await {
    ///     println!("{host_id}: {}", hostname?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn stream_on_hosts<T, E, F, Fut, I>(
        &self,
        ids: &[I],
        options: ExecuteOptions,
        work: F,
    ) -> impl Stream<Item = (String, Result<T, E>)> + Send + Unpin + use<T, E, F, Fut, I, C>
    where
        I: AsRef<str>,
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        let results = self.fan_out(owned(ids), options, Try::first(Location::caller()), work);
        Box::pin(results.map(|Finished { id, result, .. }| (id, result)))
    }

    fn fan_out<T, E, F, Fut>(
        &self,
        ids: Vec<String>,
        options: ExecuteOptions,
        this: Try,
        work: F,
    ) -> impl Stream<Item = Finished<T, E>> + Send + use<T, E, F, Fut, C>
    where
        F: Fn(PooledConnection<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<TransportError> + Send + 'static,
    {
        let concurrency = options.concurrency.unwrap_or(ids.len()).max(1);
        let (manager, work) = (self.clone(), Arc::new(work));
        stream::iter(ids.into_iter().enumerate())
            .map(move |(index, id)| {
                let (manager, work, host) = (manager.clone(), work.clone(), id.clone());
                async move {
                    // A task of its own: a closure that computes for long holds up no other host's.
                    let task = AbortOnDropHandle::new(tokio::spawn(
                        async move { manager.execute(&host, options, this, |lease| work(lease)).await }
                            .in_current_span(),
                    ));
                    // Panics of the closure are contained in there; what can still be lost is a task whose
                    // result panicked when it was dropped, or whose runtime is shutting down.
                    let result = task.await.unwrap_or_else(|_| Err(lost_task(&id).into()));
                    Finished { index, id, result }
                }
            })
            .buffer_unordered(concurrency)
    }
}

impl<C: Connector> ConnectionPool<C> {
    /// Tries once to run `work`, with a lease that is had by `acquire_by` or not at all.
    pub(crate) async fn execute<T, E, F, Fut>(
        &self,
        deadline: Option<Instant>,
        acquire_by: Instant,
        this: Try,
        work: F,
    ) -> Result<T, E>
    where
        F: FnOnce(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError>,
    {
        let host = self.host_id();
        let span = tracing::debug_span!("execute", %host, attempt = this.number);
        let execution = async {
            let asked = Instant::now();
            if this.number == 1 {
                let host = self.host();
                host.retry_budget.earn(&host.config().retry, asked);
            }
            let (lease, _probe) = self.admitted_lease(asked, acquire_by, this).await?;
            let lease = lease.with_deadline(deadline).for_attempt(this.number);
            // The closure's state is dropped with it; nothing of it is looked at after a panic.
            let contained = AssertUnwindSafe(async move { work(lease).await }).catch_unwind();
            let finished = match deadline {
                None => Ok(contained.await),
                // Calls end by the same deadline and say more about it; this is for a closure that waits for
                // something else.
                Some(deadline) => timeout_at(deadline, contained).await,
            };
            let host = host.clone();
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
        };
        execution.instrument(span).await
    }

    /// A lease for work that the host's breaker lets through; with the probe's place, where the work itself has
    /// to find out whether the host answers.
    async fn admitted_lease(
        &self,
        asked: Instant,
        acquire_by: Instant,
        this: Try,
    ) -> Result<(PooledConnection<C>, Option<Probe<'_>>)> {
        let probe = self.admit()?;
        let admitted = Instant::now();
        let lease = match self.acquire_from(asked, acquire_by, this.taken_at).await {
            Ok(lease) => lease,
            Err(error) => {
                // The probe's place was had only after the work was asked for.
                if probe.is_some() {
                    self.host().heard_of_acquire(admitted, &error);
                }
                return Err(error);
            }
        };
        match probe {
            // A heartbeat puts no work at risk. It would have to wait where all places on the connection are taken.
            Some(probe) if lease.has_free_place() => {
                if lease.is_alive_by(acquire_by).await {
                    Ok((lease, None))
                } else {
                    Err(self.still_open(probe))
                }
            }
            probe => Ok((lease, probe)),
        }
    }
}

struct Finished<T, E> {
    index: usize,
    id: String,
    result: Result<T, E>,
}

async fn in_order<T, E>(results: impl Stream<Item = Finished<T, E>>) -> Vec<(String, Result<T, E>)> {
    let mut all: Vec<_> = results.collect().await;
    all.sort_by_key(|finished| finished.index);
    all.into_iter().map(|Finished { id, result, .. }| (id, result)).collect()
}

fn owned<I: AsRef<str>>(ids: &[I]) -> Vec<String> {
    ids.iter().map(|id| id.as_ref().to_owned()).collect()
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
