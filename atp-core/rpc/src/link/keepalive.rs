//! When to ping a silent daemon, and when to give it up.

use std::time::Duration;

use tokio::time::Instant;

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
#[derive(Debug)]
pub(super) struct Watch {
    config: Keepalive,
    last_sign: Instant,
    unanswered: u32,
}

impl Watch {
    pub(super) fn new(config: Keepalive, now: Instant) -> Self {
        Watch { config, last_sign: now, unanswered: 0 }
    }

    /// Pings since the last sign of life.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    pub(super) fn sign_of_life(&mut self, now: Instant) {
        self.last_sign = now;
        self.unanswered = 0;
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
        Due::Ping(self.next())
    }

    fn next(&self) -> Instant {
        self.last_sign + self.config.interval * (self.unanswered + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_daemon_is_pinged_and_then_given_up() {
        let start = Instant::now();
        let mut watch = Watch::new(Keepalive { interval: 5 * SECOND, count: 2 }, start);
        assert_eq!(watch.due(start), Due::Wait(start + 5 * SECOND));
        assert_eq!(watch.due(start + 5 * SECOND), Due::Ping(start + 10 * SECOND));
        assert_eq!(watch.due(start + 6 * SECOND), Due::Wait(start + 10 * SECOND));
        assert_eq!(watch.due(start + 10 * SECOND), Due::Ping(start + 15 * SECOND));
        assert_eq!(watch.due(start + 15 * SECOND), Due::Dead(15 * SECOND));
    }

    #[test]
    fn any_sign_of_life_starts_it_again() {
        let start = Instant::now();
        let mut watch = Watch::new(Keepalive { interval: 5 * SECOND, count: 1 }, start);
        assert_eq!(watch.due(start + 5 * SECOND), Due::Ping(start + 10 * SECOND));
        watch.sign_of_life(start + 9 * SECOND);
        assert_eq!(watch.due(start + 10 * SECOND), Due::Wait(start + 14 * SECOND));
    }
}
