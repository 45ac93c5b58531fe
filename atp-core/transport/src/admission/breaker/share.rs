//! How many hosts there are, and how many of them are left alone: the limit on open breakers is theirs together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::BreakerConfig;

/// The hosts of one manager, counted, and those of them whose breakers are not closed.
#[derive(Default)]
pub(crate) struct OpenShare {
    hosts: AtomicUsize,
    open: AtomicUsize,
}

/// A host's membership: it counts until this is dropped.
pub(crate) struct Membership {
    share: Arc<OpenShare>,
}

/// One of the places for open breakers, free again when this is dropped.
pub(crate) struct OpenPlace {
    share: Arc<OpenShare>,
}

impl Membership {
    pub(crate) fn new(share: Arc<OpenShare>) -> Self {
        share.hosts.fetch_add(1, Ordering::Relaxed);
        Membership { share }
    }

    /// A place for one more open breaker; none while as many are open as may be.
    pub(crate) fn open_place(&self, config: &BreakerConfig) -> Option<OpenPlace> {
        let hosts = self.share.hosts.load(Ordering::Relaxed);
        let most = match hosts < config.min_hosts_for_share {
            true => hosts,
            false => (hosts as f64 * config.max_open_share) as usize,
        };
        let taken = self
            .share
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < most).then_some(open + 1));
        taken.ok().map(|_| OpenPlace { share: self.share.clone() })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.share.hosts.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.share.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(share: &Arc<OpenShare>, count: usize) -> Vec<Membership> {
        (0..count).map(|_| Membership::new(share.clone())).collect()
    }

    #[test]
    fn a_share_of_a_large_fleet_and_all_of_a_small_one() {
        let config =
            BreakerConfig { max_open_share: 0.3, min_hosts_for_share: 5, ..BreakerConfig::default() };
        for (hosts, most) in [(1, 1), (4, 4), (5, 1), (10, 3), (200, 60)] {
            let share = Arc::default();
            let members = members(&share, hosts);
            let places: Vec<_> = members.iter().filter_map(|member| member.open_place(&config)).collect();
            assert_eq!(places.len(), most, "{hosts} hosts");
        }
    }

    #[test]
    fn a_place_given_back_is_free_again() {
        let config =
            BreakerConfig { max_open_share: 0.2, min_hosts_for_share: 1, ..BreakerConfig::default() };
        let share = Arc::default();
        let members = members(&share, 5);
        let place = members[0].open_place(&config).unwrap();
        assert!(members[1].open_place(&config).is_none());
        drop(place);
        assert!(members[1].open_place(&config).is_some());
    }
}
