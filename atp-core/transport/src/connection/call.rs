//! A call over a connection: admitted, made, and looked after when its caller goes away.

use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument;

use super::life::LinkFault;
use super::{ConnectionState, HostConnection};
use crate::admission::calls::{CallMarks, InFlight, Lane, Overdue};
use crate::admission::interceptor::CallInfo;
use crate::connection::connector::{CallFailure, Connector};
use crate::error::{Result, TransportError};
use crate::observe::events::LossCause;

/// Runs when the caller of a call leaves before its answer: no caller will then see the call overrun, so the driving task
/// gets the time at which to look.
pub(super) struct OnAbandon<'a, C: Connector> {
    pub(super) connection: &'a HostConnection<C>,
    pub(super) deadline: Instant,
    pub(super) marks: &'a CallMarks,
}

impl<C: Connector> Drop for OnAbandon<'_, C> {
    fn drop(&mut self) {
        self.marks.is_abandoned.store(true, Ordering::Relaxed);
        let mut core = self.connection.core.lock();
        let due = core.abandoned.map_or(self.deadline, |due| due.min(self.deadline));
        core.abandoned = Some(due);
        self.connection.was_abandoned.notify_one();
    }
}

/// A call that may be sent: the link, the token, and the connection if it is not the caller's own.
struct Admitted<C: Connector, L> {
    elsewhere: Option<L>,
    link: Arc<C::Link>,
    in_flight: InFlight,
}

impl<C: Connector> HostConnection<C> {
    /// Runs one call over the link; see [`PooledConnection::call`](crate::PooledConnection::call). While all places here are
    /// taken, `elsewhere` waits for a connection of the same host that has a free one; the call goes where it can be sent
    /// first.
    pub(crate) async fn call<T, F, Fut, L, W>(
        &self,
        operation: &'static str,
        lane: Option<Lane>,
        attempt: u32,
        deadline: Instant,
        start: F,
        elsewhere: impl Fn() -> W,
    ) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
        L: Deref<Target = Self>,
        W: Future<Output = L>,
    {
        let asked = Instant::now();
        let (host, connection) = (&self.host.id, self.id);
        let span = tracing::debug_span!("call", %host, operation, connection);
        let call = CallInfo { host, operation, lane, connection, attempt, asked, deadline };
        let result = self.call_intercepted(call, start, elsewhere).instrument(span).await;
        self.counts.add(result.is_err());
        let now = Instant::now();
        self.host.counters.call(&result, now - asked, || self.host.config().health.min_wait);
        let mut core = self.core.lock();
        core.latencies.record(now - asked);
        if let Err(error) = &result {
            core.last_error = Some((now, error.clone()));
        }
        drop(core);
        result
    }

    async fn call_intercepted<T, F, Fut, L, W>(
        &self,
        call: CallInfo<'_>,
        start: F,
        elsewhere: impl Fn() -> W,
    ) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
        L: Deref<Target = Self>,
        W: Future<Output = L>,
    {
        let passage = self.host.interceptors.admit(call, &self.host.rate_limit).await?;
        let result = self.call_admitted(call, start, elsewhere).await;
        if let Some(passage) = passage {
            passage.ended(&result);
        }
        result
    }

    async fn call_admitted<T, F, Fut, L, W>(
        &self,
        call: CallInfo<'_>,
        start: F,
        elsewhere: impl Fn() -> W,
    ) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
        L: Deref<Target = Self>,
        W: Future<Output = L>,
    {
        let CallInfo { operation, lane, asked, deadline, .. } = call;
        let host = self.host.id.clone();
        let calls = &self.host.calls;
        let not_sent = || match calls.stuck() {
            0 => TransportError::CallTimeout {
                host: host.clone(),
                operation,
                after: asked.elapsed(),
                sent: false,
            },
            stuck => TransportError::StuckCalls { host: host.clone(), operation, stuck },
        };
        let admitted = tokio::select! {
            biased;
            admitted = timeout_at(deadline, self.admit(operation, lane, deadline, elsewhere)) => admitted,
            () = self.closing.cancelled() => return Err(self.gone(operation)),
        };
        let Ok(admitted) = admitted else { return Err(not_sent()) };
        let Admitted { elsewhere, link, mut in_flight } = admitted?;
        // `timeout_at` polls its future before its timer, so a free place is granted even after the deadline.
        if Instant::now() > deadline {
            // It would count among the calls that are stuck.
            drop(in_flight);
            return Err(not_sent());
        }
        let connection = elsewhere.as_deref().unwrap_or(self);
        in_flight.activity = Some(connection.activity.token());
        in_flight.connection = Some(connection.id);
        let marks = in_flight.marks();
        let abandoned = OnAbandon { connection, deadline, marks: &marks };
        let began = Instant::now();
        let answer = timeout_at(deadline, start(link.clone(), in_flight)).await;
        // The caller is still here; the guard holds nothing to free.
        std::mem::forget(abandoned);

        let result = match answer {
            Ok(answer) => {
                let proven = lane.filter(|_| !marks.proves_nothing.load(Ordering::Relaxed));
                connection.ended(operation, proven, &link, answer)
            }
            Err(_) => {
                connection.look_at_overrun(operation, &link);
                if let Some(lane) = lane {
                    calls.overran(lane);
                }
                let sent = !marks.looks.load(Ordering::Relaxed);
                Err(TransportError::CallTimeout { host, operation, after: asked.elapsed(), sent })
            }
        };
        self.host.record_call(began, lane, &result);
        result
    }

    /// After a call overran: the connection takes no new work when it has as many such calls as it allows. With fewer the
    /// pool finds it less free.
    ///
    /// This call counts also if the engine dropped its token with its future: the answer may still come, and then nothing
    /// else knows of it.
    fn look_at_overrun(&self, operation: &'static str, link: &Arc<C::Link>) {
        let Overdue { overrun, probe } = self.host.calls.look_for_overdue(&self.calls);
        let overdue = Overdue { overrun: overrun.max(1), probe };
        if self.is_suspect(overdue) {
            self.report(LinkFault::Suspect(Some(operation)), link);
        } else {
            self.report_borne(Some(operation), overdue);
        }
    }

    /// Whether these calls are reason to take the connection out of service. A probe is: what leaves it unanswered is not a
    /// VM, but the daemon or the link.
    fn is_suspect(&self, Overdue { overrun, probe }: Overdue) -> bool {
        let borne = self.host.config().calls.suspect_after().min(self.places());
        probe || overrun >= borne
    }

    fn report_borne(&self, operation: Option<&str>, Overdue { overrun, .. }: Overdue) {
        if overrun > 0 {
            let (host, connection) = (&self.host.id, self.id);
            tracing::warn!(%host, operation, connection, overrun, "a call hangs; its connection goes on with others");
            self.host.look_at_stuck_calls();
        }
    }

    /// Takes note of how a call ended, and says it in our words. An answer proves the VM of the lane `proven`.
    fn ended<T>(
        &self,
        operation: &'static str,
        proven: Option<Lane>,
        link: &Arc<C::Link>,
        answer: Result<T, CallFailure>,
    ) -> Result<T> {
        if matches!(answer, Ok(_) | Err(CallFailure::Refused { .. })) {
            self.last_active.set(Instant::now());
            if let Some(lane) = proven {
                self.host.calls.answered(lane);
            }
        }
        let host = self.host.id.clone();
        answer.map_err(|failure| {
            if matches!(failure, CallFailure::Lost { .. }) {
                self.report(LinkFault::Lost(LossCause::CallFailed), link);
            }
            failure.into_error(host, operation)
        })
    }

    /// Waits for the link and for a place among the calls in flight, here or elsewhere.
    async fn admit<L, W>(
        &self,
        operation: &'static str,
        lane: Option<Lane>,
        deadline: Instant,
        elsewhere: impl Fn() -> W,
    ) -> Result<Admitted<C, L>>
    where
        L: Deref<Target = Self>,
        W: Future<Output = L>,
    {
        loop {
            self.ready(operation).await?;
            let mut lent = None;
            let place = async {
                let mut own = pin!(self.calls.acquire());
                loop {
                    let other = tokio::select! {
                        biased;
                        place = &mut own => return (self.calls.clone(), place),
                        other = elsewhere() => other,
                    };
                    // Another call may have taken the place since the connection was chosen.
                    if let Some(place) = other.calls.try_acquire() {
                        return (lent.insert(other).calls.clone(), place);
                    }
                }
            };
            let in_flight = self.host.calls.admit(lane, deadline, place).await;
            // The link may have been lost while the call stood in line.
            if let Some(link) = lent.as_deref().unwrap_or(self).link() {
                return Ok(Admitted { elsewhere: lent, link, in_flight });
            }
        }
    }

    /// Waits for the link to be up: a lease that outlives its link waits for the reconnect.
    async fn ready(&self, operation: &'static str) -> Result<()> {
        let mut state = self.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            if self.link().is_some() {
                return Ok(());
            }
            match (now, self.last_connect_error()) {
                (ConnectionState::Failed, Some(source)) => {
                    return Err(TransportError::Connect { host: self.host.id.clone(), source });
                }
                (ConnectionState::Failed | ConnectionState::Closed, _) => return Err(self.gone(operation)),
                _ => {}
            }
            // Fails only if the sender is gone, and the sender is a field of self.
            if state.changed().await.is_err() {
                return Err(self.gone(operation));
            }
        }
    }

    /// The error for a call on a connection that will not be opened again: with its host still there, the work can be
    /// done on another.
    fn gone(&self, operation: &'static str) -> TransportError {
        let host = self.host.id.clone();
        if self.pool_closing.is_cancelled() {
            TransportError::Closed { host }
        } else {
            TransportError::ConnectionLost { host, operation, sent: false, source: None }
        }
    }

    /// Returns when so many calls are overdue that the connection is to take no new work. Looks at those that were
    /// abandoned; the callers of others do it themselves.
    pub(super) async fn overrun(&self) {
        loop {
            let due = self.core.lock().abandoned;
            tokio::select! {
                biased;
                () = self.was_abandoned.notified() => {}
                // Its place is free again, which the pool has to see.
                () = self.calls.returned() => (self.on_change)(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let overdue = self.host.calls.look_for_overdue(&self.calls);
                    if self.is_suspect(overdue) {
                        return;
                    }
                    self.report_borne(None, overdue);
                    // Those abandoned later are looked at in their time. Looked up under the lock, or one that is
                    // abandoned just now would be forgotten.
                    let mut core = self.core.lock();
                    core.abandoned = self.host.calls.next_deadline(&self.calls);
                }
            }
        }
    }
}
