//! Work run on a host, with a lease of one of its connections.

pub(crate) mod budget;
mod failure;
mod fan_out;
mod group;
mod options;
pub(crate) mod pick;
mod retry;
pub(crate) mod unanswered;

use std::future::Future;
use std::panic::Location;

use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::admission::breaker::Probe;
use crate::connection::connector::Connector;
use crate::error::{Result, TransportError};
use crate::manager::TransportManager;
use crate::pool::{ConnectionPool, PooledConnection};
use crate::sync::panics::contained;

pub use failure::Failure;
pub use options::ExecuteOptions;
pub use pick::Pick;
pub use unanswered::{Unanswered, UnansweredCall};

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
        pool.execute(&options, acquire_by, this, work).await
    }
}

impl<C: Connector> ConnectionPool<C> {
    /// When the wait for a connection has to end.
    pub(crate) fn acquire_by(&self, deadline: Option<Instant>) -> Instant {
        deadline.unwrap_or_else(|| Instant::now() + self.config().pool.acquire_timeout)
    }

    /// Tries once to run `work`, with a lease that is had by `acquire_by` or not at all.
    pub(crate) async fn execute<T, E, F, Fut>(
        &self,
        options: &ExecuteOptions,
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
        let deadline = options.deadline;
        let span = tracing::debug_span!("execute", %host, attempt = this.number);
        let execution = async {
            let asked = Instant::now();
            if this.number == 1 {
                let host = self.host();
                host.retry_budget.earn(&host.config().retry, asked);
            }
            let (lease, _probe) = self.admitted_lease(asked, acquire_by, this).await?;
            let lease =
                lease.with_deadline(deadline).watched_by(&options.unanswered).for_attempt(this.number);
            // On the heap: the futures around it stay small, and an unoptimised build, which has each of them in several stack
            // frames, needs no more than the stack of a common thread.
            let work = contained(Box::pin(async move { work(lease).await }));
            let finished = match deadline {
                None => Ok(work.await),
                // Calls end by the same deadline and say more about it; this is for a closure that waits for
                // something else.
                Some(deadline) => timeout_at(deadline, work).await,
            };
            let host = host.clone();
            match finished {
                Ok(Ok(result)) => result,
                Ok(Err(message)) => Err(TransportError::Panicked { host, message }.into()),
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
