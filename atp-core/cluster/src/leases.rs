//! The leases of a controller, as it counts them itself.

use std::collections::BTreeMap;
use std::time::Duration;

/// The leases that a controller has. Times are its own, of a clock that goes on while the machine is suspended.
#[derive(Debug, Clone)]
pub struct Leases {
    length: Duration,
    held: BTreeMap<String, Held>,
    /// The last epoch of each host that was given back: the request may be carried out late, so that it is never used again.
    given_back: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: i64,
    /// When it was asked for: the database granted it later, and so its end comes later there than by this count.
    since: Duration,
    /// Since when it is to be given back.
    closing: Option<Duration>,
}

impl Leases {
    /// No leases, each of which would be of this length.
    pub fn new(length: Duration) -> Self {
        Leases { length, held: BTreeMap::new(), given_back: BTreeMap::new() }
    }

    /// Takes over the database's answer to what was asked for at `since`: all leases that this controller has. Work on other
    /// hosts, or of other epochs, must be aborted: see [`holds`](Self::holds).
    pub fn granted(&mut self, since: Duration, all: impl IntoIterator<Item = (String, i64)>) {
        let before = std::mem::take(&mut self.held);
        for (host, epoch) in all {
            let before = before.get(&host).filter(|held| held.epoch == epoch).and_then(|held| held.closing);
            let is_given_back = self.given_back.get(&host).is_some_and(|&last| epoch <= last);
            let closing = before.or(is_given_back.then_some(since));
            self.held.insert(host, Held { epoch, since, closing });
        }
    }

    /// Whether work on the host that was started in this epoch may go on.
    pub fn holds(&self, host: &str, epoch: i64) -> bool {
        self.held.get(host).is_some_and(|held| held.epoch == epoch)
    }

    /// The epoch in which targets of the host may be started now; none if its lease is not held, is to be given back, or is
    /// past half of its time.
    pub fn may_start(&self, host: &str, now: Duration) -> Option<i64> {
        let held = self.held.get(host).filter(|held| held.closing.is_none())?;
        (now < held.since + self.length / 2).then_some(held.epoch)
    }

    /// The hosts of which targets may be started now, with their epochs.
    pub fn startable(&self, now: Duration) -> impl Iterator<Item = (&str, i64)> {
        self.held.keys().filter_map(move |host| Some((host.as_str(), self.may_start(host, now)?)))
    }

    /// Forgets the leases whose work must be aborted now: three quarters of their time have passed, and the rest is for the
    /// abort itself.
    pub fn overdue(&mut self, now: Duration) {
        let limit = self.length / 4 * 3;
        self.held.retain(|_, held| now < held.since + limit);
    }

    /// Starts nothing more on hosts that are not this controller's share, so that they can be given back when nothing is
    /// under way on them. Hosts that are its share again are kept.
    pub fn close_unless(&mut self, now: Duration, is_share: impl Fn(&str) -> bool) {
        for (host, held) in &mut self.held {
            let is_given_back = self.given_back.get(host).is_some_and(|&last| held.epoch <= last);
            held.closing = (is_given_back || !is_share(host)).then(|| held.closing.unwrap_or(now));
        }
    }

    /// The leases that are to be given back, with their epochs, and whether that is overdue: what is under way there has
    /// had a lease's time to end, and other targets of the host must not wait for a call that hangs.
    pub fn closing(&self, now: Duration) -> impl Iterator<Item = (&str, i64, bool)> {
        self.held.iter().filter_map(move |(host, held)| {
            let since = held.closing?;
            Some((host.as_str(), held.epoch, now >= since + self.length))
        })
    }

    /// Notes that the database is asked to take a lease back. It is never used again in this epoch, whatever the database
    /// answers; until it was taken back it is among those to be given back.
    pub fn give_back(&mut self, host: &str, epoch: i64) {
        self.held.remove(host);
        self.given_back.insert(host.to_owned(), epoch);
    }

    /// The number of leases.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(epoch: i64) -> [(String, i64); 1] {
        [("h".to_owned(), epoch)]
    }

    #[test]
    fn the_time_counts_from_before_the_lease_was_asked_for() {
        let mut leases = Leases::new(seconds(12));
        leases.granted(seconds(100), held(3));
        assert_eq!(leases.may_start("h", seconds(105)), Some(3));
        assert_eq!(leases.may_start("h", seconds(106)), None);
        leases.overdue(seconds(108));
        assert!(leases.holds("h", 3) && !leases.holds("h", 2));
        leases.overdue(seconds(109));
        assert!(!leases.holds("h", 3) && leases.is_empty());
        // A renewal that was answered late gives what is left of its time.
        leases.granted(seconds(104), held(3));
        assert_eq!(leases.may_start("h", seconds(109)), Some(3));
    }

    #[test]
    fn an_epoch_that_was_given_back_is_never_used_again() {
        let mut leases = Leases::new(seconds(12));
        leases.granted(seconds(0), held(3));
        leases.close_unless(seconds(0), |_| false);
        assert_eq!(leases.may_start("h", seconds(1)), None);
        leases.close_unless(seconds(1), |_| true);
        assert_eq!(leases.may_start("h", seconds(1)), Some(3), "it was not asked to take it back yet");
        leases.give_back("h", 3);
        // The request was lost, and the database goes on renewing it.
        leases.granted(seconds(2), held(3));
        leases.close_unless(seconds(2), |_| true);
        assert_eq!(leases.may_start("h", seconds(3)), None);
        assert_eq!(leases.closing(seconds(13)).collect::<Vec<_>>(), [("h", 3, false)]);
        // Renewals do not put that off.
        leases.granted(seconds(13), held(3));
        leases.close_unless(seconds(13), |_| true);
        assert_eq!(leases.closing(seconds(14)).collect::<Vec<_>>(), [("h", 3, true)]);
        leases.granted(seconds(4), held(5));
        assert_eq!(leases.may_start("h", seconds(5)), Some(5));
    }
}
