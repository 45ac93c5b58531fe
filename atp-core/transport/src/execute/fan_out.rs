//! Work run on several hosts in parallel.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{ExecuteOptions, Try};
use crate::connection::connector::Connector;
use crate::error::{Result, TransportError};
use crate::manager::TransportManager;
use crate::pool::PooledConnection;

impl<C: Connector> TransportManager<C> {
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
                let options = options.clone();
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
