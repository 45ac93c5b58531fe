//! Whether the far side still answers: the heartbeat of a quiet link, and the same question asked by a caller.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::HostConnection;
use super::call::OnAbandon;
use super::life::LinkFault;
use crate::connection::connector::Connector;
use crate::error::{ConnectError, ErrorKind};
use crate::observe::events::LossCause;
use crate::sync::backoff;
use crate::sync::panics::contained;
use crate::sync::semaphore::Permit;

/// What came of a probe of a link that is not known to be lost.
enum Answer {
    /// The far side answered.
    Heard,
    /// It could not be asked, for want of a thread here.
    NotAsked,
}

impl<C: Connector> HostConnection<C> {
    /// Returns when a quiet link leaves a probe unanswered.
    pub(super) async fn silence(&self) {
        loop {
            let interval = backoff::spread(self.host.config().heartbeat_interval);
            while let Some(left) = interval.checked_sub(self.last_active().elapsed())
                && !left.is_zero()
            {
                tokio::time::sleep(left).await;
            }
            // While calls are in flight on it, they are its probe.
            let Some(place) = self.calls.try_acquire() else {
                tokio::time::sleep(interval).await;
                continue;
            };
            let Some(link) = self.link() else { return };
            let deadline = Instant::now() + self.host.config().heartbeat_timeout;
            match self.probe(&link, place, deadline).await {
                Ok(Answer::Heard) => {}
                Ok(Answer::NotAsked) => tokio::time::sleep(interval).await,
                Err(_) => return,
            }
        }
    }

    /// Asks the far side for a sign of life, by `deadline`. The place among the calls in flight is held until the
    /// probe is really over: when its caller goes away before, it is looked at again when no link may be silent any more.
    async fn probe(
        &self,
        link: &Arc<C::Link>,
        place: Permit,
        deadline: Instant,
    ) -> Result<Answer, Arc<ConnectError>> {
        let began = Instant::now();
        let limit = began + self.host.config().heartbeat_timeout;
        let mut in_flight = self.host.calls.begin_probe(&self.calls, place, limit);
        in_flight.activity = Some(self.activity.token());
        in_flight.connection = Some(self.id);
        let marks = in_flight.marks();
        let abandoned = OnAbandon { connection: self, deadline: limit, marks: &marks };
        let probe = contained(async { self.host.connector.probe(link, in_flight, limit).await });
        let answer = timeout_at(deadline, probe).await;
        if answer.is_ok() {
            // It is over; the guard holds nothing to free.
            std::mem::forget(abandoned);
        }
        let result = match answer {
            Ok(Ok(Ok(()))) => {
                self.last_active.set(Instant::now());
                Ok(())
            }
            // That threads lack here, as they may when other hosts hang, says nothing of this one.
            Ok(Ok(Err(error))) if error.kind == ErrorKind::ThreadsExhausted => return Ok(Answer::NotAsked),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(panic)) => {
                Err(ConnectError::new(ErrorKind::ConnectionLost, format!("the probe panicked: {panic}")))
            }
            Err(_) => Err(ConnectError::new(ErrorKind::CallTimeout, "the probe was not answered in time")),
        };
        let result = result.map_err(Arc::new);
        self.host.heard_of_heartbeat(began, &result);
        result.map(|()| Answer::Heard)
    }

    /// Whether the host answers over this connection: it is up, its socket is open, and a call is answered by
    /// `deadline`: somebody's that was waited for, or else a cheap real one.
    ///
    /// A connection that turns out dead is replaced. Cancel safe.
    pub(crate) async fn is_alive_by(&self, deadline: Instant) -> bool {
        let Some(link) = self.link() else { return false };
        if !self.host.connector.is_open(&link) {
            self.report(LinkFault::Lost(LossCause::Closed), &link);
            return false;
        }
        let asked = Instant::now();
        // Behind the calls in flight, which say nothing of the link until they end.
        let Ok(place) = timeout_at(deadline, self.calls.acquire()).await else { return false };
        // What those before us found out need not be asked again.
        if !self.has(&link) {
            return false;
        }
        if self.last_active() > asked {
            return true;
        }
        let limit = Instant::now() + self.host.config().heartbeat_timeout;
        match self.probe(&link, place, deadline.min(limit)).await {
            // Where it could not be asked, neither can what the link is wanted for; that will say so.
            Ok(Answer::Heard | Answer::NotAsked) => return true,
            // The caller had less time than a link may take: that says nothing of the link.
            Err(error) if error.kind == ErrorKind::CallTimeout && deadline < limit => {}
            Err(_) => self.report(LinkFault::Lost(LossCause::ProbeFailed), &link),
        }
        false
    }
}
