//! The leases that are out: how many, since when, and where they were taken.

use std::panic::Location;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

/// All leases of one pool that are out.
#[derive(Default)]
pub(crate) struct Leases {
    out: Slab<Record>,
}

/// Names a lease that is out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseKey(usize);

struct Record {
    since: Instant,
    taken_at: &'static Location<'static>,
    reported: bool,
}

/// A lease that has been out for long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LongHeld {
    pub(crate) held_for: Duration,
    pub(crate) taken_at: &'static Location<'static>,
}

impl Leases {
    pub(crate) fn take(&mut self, since: Instant, taken_at: &'static Location<'static>) -> LeaseKey {
        LeaseKey(self.out.insert(Record { since, taken_at, reported: false }))
    }

    /// Takes a lease back; returns how long it was out.
    pub(crate) fn give_back(&mut self, LeaseKey(key): LeaseKey, now: Instant) -> Option<Duration> {
        self.out.try_remove(key).map(|record| now.saturating_duration_since(record.since))
    }

    /// Where a lease that is out was taken.
    pub(crate) fn taken_at(&self, LeaseKey(key): LeaseKey) -> Option<&'static Location<'static>> {
        self.out.get(key).map(|record| record.taken_at)
    }

    pub(crate) fn count(&self) -> usize {
        self.out.len()
    }

    /// The leases out for longer than `limit` that were not in an earlier answer.
    pub(crate) fn newly_long_held(&mut self, limit: Duration, now: Instant) -> Vec<LongHeld> {
        let mut found = Vec::new();
        for (_, record) in &mut self.out {
            let held_for = now.saturating_duration_since(record.since);
            if held_for > limit && !record.reported {
                record.reported = true;
                found.push(LongHeld { held_for, taken_at: record.taken_at });
            }
        }
        found
    }

    /// How many are out for longer than `limit`.
    pub(crate) fn long_held(&self, limit: Duration, now: Instant) -> usize {
        self.out.iter().filter(|(_, record)| now.saturating_duration_since(record.since) > limit).count()
    }
}
