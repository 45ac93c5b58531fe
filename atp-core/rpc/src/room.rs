//! How many calls a connection carries at once: as many as are wanted, if its daemon is seen to answer a ping beside them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::CallError;
use crate::link::Link;
use crate::numbers::procedure;

/// With how many times as many calls as are wanted in flight it is measured how many messages the daemon holds at once: more
/// where fewer have not shown it.
pub(crate) const MEASURES: [usize; 3] = [1, 2, 2];

/// How many calls can be under way at once.
pub(crate) struct Room {
    /// As many as the options allow.
    most: usize,
    now: AtomicUsize,
    /// Whether that is all that can be found.
    measured: AtomicBool,
}

impl Room {
    pub(crate) fn new(most: usize, now: usize, measured: bool) -> Self {
        Room { most, now: AtomicUsize::new(now), measured: AtomicBool::new(measured || now >= most) }
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.measured.load(Ordering::Relaxed)
    }

    /// Finds out how many there can be, beside the calls that are under way. What was found holds also if the future is dropped.
    pub(crate) async fn measure(&self, link: &Link) -> Result<(), CallError> {
        if self.is_measured() {
            return Ok(());
        }
        for times in MEASURES {
            let requests = count_requests(link, times * self.most).await?;
            link.holds(requests);
            let found = max_in_flight(requests, self.most);
            let before = self.now.fetch_max(found, Ordering::Relaxed);
            link.add_slots(found.saturating_sub(before));
            if requests > self.most {
                break;
            }
        }
        self.measured.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// How many calls can be under way at once at a daemon that holds so many messages: one place stays free for a ping.
pub(crate) fn max_in_flight(requests: usize, most: usize) -> usize {
    requests.saturating_sub(1).clamp(1, most)
}

/// Measures how many messages the daemon holds at once, at least, with so many calls. Its `max_client_requests` cannot be
/// asked for.
///
/// A daemon reads on until it holds as many messages as that, and answers a ping as soon as it has read it, while calls
/// take it some time. So a ping that is answered before `n` calls in front of it shows that it holds `n` + 1. The daemon may be
/// quicker with the calls than with reading, so the number can be too small, and never too large. The call is one for which
/// daemons keep spare workers, and which takes them longer than most.
pub(crate) async fn count_requests(link: &Link, calls: usize) -> Result<usize, CallError> {
    link.count_held(procedure::NODE_GET_INFO, calls).await
}
