//! Work that may be repeated, tried again after failures that had no effect and may pass.

use std::future::Future;
use std::panic::Location;

use tokio::time::{Instant, sleep_until};

use super::failure::{Failure, may_be_repeated};
use super::{ExecuteOptions, Try};
use crate::connection::connector::Connector;
use crate::error::{Result, TransportError};
use crate::manager::TransportManager;
use crate::observe::events::TransportEvent;
use crate::pool::{ConnectionPool, PooledConnection};

impl<C: Connector> TransportManager<C> {
    /// Runs `work` on a host, and again after a failure that had no effect and may pass: up to
    /// [`max_tries`](crate::RetryConfig::max_tries) times, with a growing wait in between, by the deadline, and within
    /// the host's retry budget. By calling this you say that `work` may be repeated as a whole.
    ///
    /// # Errors
    /// Of the last try, as [`execute_on_host`](Self::execute_on_host). A failure whose effect is unknown is returned
    /// at once.
    ///
    /// Cancel safe as far as `work` is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use atp_transport::{ExecuteOptions, HostInfo, Result, TransportConfig, TransportManager};
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let manager = TransportManager::new(TransportConfig::default());
    /// manager.add_host(HostInfo::from_uri("demo", "test:///default")).await?;
    /// let options = ExecuteOptions::by(Instant::now() + Duration::from_secs(10)).with_max_tries(5);
    /// let work = manager.execute_repeatable_on_host("demo", options, |conn| async move { conn.hostname().await });
    /// println!("{}", work.await?);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn execute_repeatable_on_host<T, E, F, Fut>(
        &self,
        id: &str,
        options: ExecuteOptions,
        work: F,
    ) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(PooledConnection<C>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<TransportError> + Failure,
    {
        let first = Try::first(Location::caller());
        async move {
            let mut this = first;
            loop {
                // Looked up anew: the host may be another by now.
                let pool = self.pool(id)?;
                let acquire_by = pool.acquire_by(options.deadline);
                let failure = match pool.execute(&options, acquire_by, this, &work).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => failure,
                };
                match pool.next_try(&failure, &options, this) {
                    Some(at) => sleep_until(at).await,
                    None => return Err(failure),
                }
                this.number += 1;
            }
        }
    }
}

impl<C: Connector> ConnectionPool<C> {
    /// When work that failed so is tried again; none if it is not. The retry is taken from the budget.
    fn next_try(&self, failure: &impl Failure, options: &ExecuteOptions, this: Try) -> Option<Instant> {
        let config = &self.config().retry;
        if !may_be_repeated(failure) || this.number >= options.max_tries.unwrap_or(config.max_tries) {
            return None;
        }
        let wait = config.backoff().delay(this.number).max(failure.retry_after().unwrap_or_default());
        let at = Instant::now().checked_add(wait)?;
        (options.deadline.is_none_or(|deadline| at < deadline) && self.spend_retry()).then_some(at)
    }

    /// Takes a retry on this host from its budget; false if it is spent.
    pub(crate) fn spend_retry(&self) -> bool {
        let host = self.host();
        let spent = host.retry_budget.spend(&host.config().retry, Instant::now());
        if let Err(spent) = spent
            && spent.is_news
        {
            tracing::warn!(host = %host.id, retries = spent.retries, work = spent.work, "retry budget spent");
            host.emit(TransportEvent::RetryBudgetSpent { retries: spent.retries, calls: spent.work });
        }
        spent.is_ok()
    }
}
