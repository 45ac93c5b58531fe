//! How a host is connected to: at the pace of its backoff, and side by side while it is well.

use std::sync::Arc;

use arc_swap::Guard;
use tokio::time::{Instant, timeout_at};

use super::ConnectAttempt;
use crate::connection::connector::Connector;
use crate::error::{ConnectError, ErrorKind};
use crate::host::state::HostState;
use crate::sync::panics::contained;

/// An attempt that did not open a link.
#[derive(Debug, Clone)]
pub(crate) struct FailedAttempt {
    pub(crate) error: Arc<ConnectError>,
    /// The number of the next attempt; none if the attempts are spent.
    pub(crate) next: Option<u32>,
}

impl<C: Connector> HostState<C> {
    /// Waits for its turn and for the backoff to pass, then tries once to open a link.
    ///
    /// Only attempts to open a link `again` keep to the pace of all hosts: work does not wait for that of other
    /// hosts. An `only` attempt is followed by no others: it is not known whether the host was ever there. `on_start` is
    /// called when the waiting is over. Cancel safe.
    pub(crate) async fn connect(
        &self,
        again: bool,
        only: bool,
        on_start: impl FnOnce(),
    ) -> Result<C::Link, FailedAttempt> {
        // Held until the pace of the next attempt is set.
        let turn = self.reconnect.turn(again).await;
        on_start();
        match self.attempt().await {
            Ok(link) => {
                // Those that hang leave so many fewer, as each that is made may come to hang too.
                let config = self.config();
                let hung = self.calls.attempts().saturating_sub(self.reconnect.others());
                let most = config.reconnect.max_hung_attempts.saturating_sub(hung);
                self.reconnect.succeeded(config.pool.max_opening.min(most).max(1));
                Ok(link)
            }
            Err(error) => {
                let error = Arc::new(error);
                let next = self.reconnect.failed(&self.config(), &turn, only, error.clone());
                Err(FailedAttempt { error, next })
            }
        }
    }

    async fn attempt(&self) -> Result<C::Link, ConnectError> {
        let (info, config) = (self.info(), Guard::into_inner(self.config()));
        let deadline = Instant::now() + config.connect_timeout;
        let in_flight = self.calls.begin_attempt(deadline).ok_or_else(|| {
            let hang =
                format!("{} earlier attempts to connect still hang", config.reconnect.max_hung_attempts);
            ConnectError::new(ErrorKind::ConnectTimeout, hang)
        })?;
        let under_way = self.reconnect.under_way();
        let attempt = ConnectAttempt::new(deadline, config.clone(), in_flight, &under_way.waiting);
        // The connector keeps the deadline itself and says why; the time-out here is for one that does not. One that
        // panics must not take the connection's task with it: nothing else would ever open it.
        //
        // Boxed: the state of an attempt is many KiB, and the connection's task, which is part of each connection, would have room
        // for it all its life.
        let opening = Box::pin(async { self.connector.connect(&info, attempt).await });
        match timeout_at(deadline, contained(opening)).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                let reason = format!("the connector panicked: {panic}");
                Err(ConnectError::new(ErrorKind::ConnectFailed, reason))
            }
            Err(_) => {
                let late = format!("no connection within {:?}", config.connect_timeout);
                Err(ConnectError::new(ErrorKind::ConnectTimeout, late))
            }
        }
    }
}
