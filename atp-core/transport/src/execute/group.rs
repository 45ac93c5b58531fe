//! Work run on any host of a group, and on the next when one fails it.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use tokio::time::Instant;

use super::failure::{Failure, may_be_repeated};
use super::pick::{self, Candidate, Pick};
use super::{ExecuteOptions, Try};
use crate::connection::connector::Connector;
use crate::error::{Result, TransportError};
use crate::manager::TransportManager;
use crate::pool::{ConnectionPool, PooledConnection};

impl<C: Connector> TransportManager<C> {
    /// Runs `work` on one host of a group, and after a failure that had no effect and may pass, at once on another, by
    /// the deadline. Each host is tried once at most; a try beyond the first comes out of that host's retry budget. Of
    /// the time that is left each host that may still be tried gets its share to lend a connection, so that one that
    /// cannot be reached leaves the others some.
    ///
    /// # Errors
    /// [`TransportError::UnknownGroup`], which names the groups there are. Otherwise that of the last host, as
    /// [`execute_on_host`](Self::execute_on_host). A failure whose effect is unknown is returned at once.
    ///
    /// Cancel safe as far as `work` is.
    ///
    /// ```
    /// use atp_transport::{ExecuteOptions, HostInfo, Pick, Result, TransportConfig, TransportManager};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let manager = TransportManager::new(TransportConfig::default());
    /// for id in ["a", "b"] {
    ///     manager.add_host(HostInfo::from_uri(id, "test:///default").with_group("build")).await?;
    /// }
    /// let work = manager.execute_on_any("build", Pick::LeastInFlight, ExecuteOptions::default(), |conn| async move {
    ///     conn.hostname().await
    /// });
    /// println!("{}", work.await?);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn execute_on_any<T, E, F, Fut>(
        &self,
        group: &str,
        pick: Pick,
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
            let mut left = self.group(group)?;
            let mut this = first;
            let mut failure = None;
            while let Some(pool) = self.pick(group, pick, &mut left) {
                if failure.is_some() && !pool.spend_retry() {
                    continue;
                }
                let further = options
                    .max_tries
                    .map_or(left.len(), |most| left.len().min(most.saturating_sub(this.number) as usize));
                let acquire_by = share_of_time(options.deadline, further)
                    .unwrap_or_else(|| pool.acquire_by(options.deadline));
                match pool.execute(&options, acquire_by, this, &work).await {
                    Ok(done) => return Ok(done),
                    Err(error) if !may_be_repeated(&error) => return Err(error),
                    Err(error) => failure = Some(error),
                }
                let no_time = options.deadline.is_some_and(|deadline| deadline <= Instant::now());
                if no_time || options.max_tries.is_some_and(|most| this.number >= most) {
                    break;
                }
                this.number += 1;
            }
            // A group has hosts, and the first of them needs no budget: there is a failure.
            Err(failure.unwrap_or_else(|| self.unknown_group(group).into()))
        }
    }

    /// The pools of a group's hosts, by id.
    fn group(&self, group: &str) -> Result<Vec<Arc<ConnectionPool<C>>>> {
        let mut pools: Vec<_> = self.state().hosts.values().cloned().collect();
        pools.retain(|pool| pool.info().groups.iter().any(|name| name == group));
        if pools.is_empty() { Err(self.unknown_group(group)) } else { Ok(pools) }
    }

    fn unknown_group(&self, group: &str) -> TransportError {
        let names = |pool: &Arc<ConnectionPool<C>>| pool.info().groups.clone();
        let known: BTreeSet<_> = self.state().hosts.values().flat_map(names).collect();
        TransportError::UnknownGroup { group: group.to_owned(), known: known.into_iter().collect() }
    }

    /// Takes out the one of the hosts whose turn it is.
    fn pick(
        &self,
        group: &str,
        pick: Pick,
        left: &mut Vec<Arc<ConnectionPool<C>>>,
    ) -> Option<Arc<ConnectionPool<C>>> {
        let candidates: Vec<_> = left
            .iter()
            .map(|pool| Candidate {
                id: pool.host_id().clone(),
                weight: pool.info().weight,
                in_flight: pool.in_flight(),
                is_ready: pool.is_ready(),
            })
            .collect();
        // Nothing under this lock can panic half-way.
        let mut turns = self.turns().lock();
        let turns = turns.entry(group.to_owned()).or_default();
        let at = pick::choose(pick, &candidates, turns, fastrand::f64())?;
        Some(left.remove(at))
    }
}

/// When the wait for a connection has to end, for time to be left for so many others.
fn share_of_time(deadline: Option<Instant>, others: usize) -> Option<Instant> {
    let now = Instant::now();
    let share = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    deadline.map(|deadline| now + deadline.saturating_duration_since(now) / share)
}
