//! When to ping a silent daemon, and when to give it up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How a silent connection is looked after. The defaults are libvirt's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// After how much silence the daemon is pinged, and pinged again.
    pub interval: Duration,
    /// How many pings may be unanswered. After one more interval the connection ends.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Keepalive { interval: Duration::from_secs(5), count: 5 }
    }
}

/// Asks on another connection whether the daemon is alive.
pub(crate) type Inquiry = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send>;

/// What is to be done at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before this time.
    Wait(Instant),
    /// A ping, and then nothing before this time.
    Ping(Instant),
    /// The end, after so much silence.
    Dead(Duration),
}

/// The state of one connection. Anything that is received counts as life.
pub(super) struct Watch {
    config: Keepalive,
    last_sign: Instant,
    /// When the last of the unanswered pings was sent.
    pinged: Option<Instant>,
    unanswered: u32,
    /// How many messages the daemon holds at once. While it holds as many it reads no ping.
    requests: usize,
    daemon: Option<Inquiry>,
    /// An inquiry that is under way.
    asked: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
}

impl Watch {
    pub(super) fn new(config: Keepalive, requests: usize, daemon: Option<Inquiry>, now: Instant) -> Self {
        Watch { config, last_sign: now, pinged: None, unanswered: 0, requests, daemon, asked: None }
    }

    /// The daemon was seen to hold so many messages at once.
    pub(super) fn holds(&mut self, requests: usize) {
        self.requests = self.requests.max(requests);
    }

    pub(super) fn sign_of_life(&mut self, now: Instant) {
        self.last_sign = now;
        self.pinged = None;
        self.unanswered = 0;
        self.asked = None;
    }

    /// Begins an inquiry if the daemon may read nothing because of the calls at it. Returns false if silence means that the
    /// daemon is dead.
    pub(super) fn inquires(&mut self, calls: usize) -> bool {
        let Some(daemon) = self.daemon.as_ref().filter(|_| calls > 0 && calls >= self.requests) else {
            return false;
        };
        let answer = timeout(2 * self.config.interval, daemon());
        self.asked = Some(Box::pin(async move { answer.await.unwrap_or(false) }));
        true
    }

    pub(super) fn is_inquiring(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether the daemon is alive, when the inquiry ends. Pending without one.
    pub(super) fn poll_inquiry(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match &mut self.asked {
            Some(asked) => asked.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// How long nothing was received.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now - self.last_sign
    }

    pub(super) fn due(&mut self, now: Instant) -> Due {
        let at = self.next();
        if now < at {
            return Due::Wait(at);
        }
        if self.unanswered >= self.config.count {
            return Due::Dead(now - self.last_sign);
        }
        self.unanswered += 1;
        self.pinged = Some(now);
        Due::Ping(self.next())
    }

    /// Each ping gets an interval for its answer, also if this process stood still when earlier ones were due.
    fn next(&self) -> Instant {
        self.pinged.unwrap_or(self.last_sign) + self.config.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(count: u32, start: Instant) -> Watch {
        Watch::new(Keepalive { interval: 5 * SECOND, count }, 5, None, start)
    }

    #[test]
    fn a_silent_daemon_is_pinged_and_then_given_up() {
        let start = Instant::now();
        let mut watch = watch(2, start);
        assert_eq!(watch.due(start), Due::Wait(start + 5 * SECOND));
        assert_eq!(watch.due(start + 5 * SECOND), Due::Ping(start + 10 * SECOND));
        assert_eq!(watch.due(start + 6 * SECOND), Due::Wait(start + 10 * SECOND));
        assert_eq!(watch.due(start + 10 * SECOND), Due::Ping(start + 15 * SECOND));
        assert_eq!(watch.due(start + 15 * SECOND), Due::Dead(15 * SECOND));
    }

    #[test]
    fn any_sign_of_life_starts_it_again() {
        let start = Instant::now();
        let mut watch = watch(1, start);
        assert_eq!(watch.due(start + 5 * SECOND), Due::Ping(start + 10 * SECOND));
        watch.sign_of_life(start + 9 * SECOND);
        assert_eq!(watch.due(start + 10 * SECOND), Due::Wait(start + 14 * SECOND));
    }

    #[test]
    fn a_process_that_stood_still_gives_the_daemon_time_for_each_ping() {
        let start = Instant::now();
        let mut watch = watch(2, start);
        assert_eq!(watch.due(start + 60 * SECOND), Due::Ping(start + 65 * SECOND));
        assert_eq!(watch.due(start + 60 * SECOND), Due::Wait(start + 65 * SECOND));
        assert_eq!(watch.due(start + 65 * SECOND), Due::Ping(start + 70 * SECOND));
        assert_eq!(watch.due(start + 70 * SECOND), Due::Dead(70 * SECOND));
    }
}
