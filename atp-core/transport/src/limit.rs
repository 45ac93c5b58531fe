//! So many at a time: a number of permits that can be changed while some of them are out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits, granted in the order they are asked for.
pub(crate) struct Limit {
    permits: Arc<Semaphore>,
    /// How many there are to be. Written by [`resize`](Self::resize) alone.
    size: AtomicUsize,
    /// Permits that are out and are not to come back, since the limit was lowered meanwhile.
    surplus: AtomicUsize,
}

/// One of the permits; goes back when it is dropped.
pub(crate) struct Permit {
    limit: Arc<Limit>,
    /// None only while dropping.
    permit: Option<OwnedSemaphorePermit>,
}

impl Limit {
    /// A limit of `size` permits.
    pub(crate) fn new(size: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(size));
        Arc::new(Limit { permits, size: AtomicUsize::new(size), surplus: AtomicUsize::new(0) })
    }

    /// Waits for a permit. Cancel safe: a place in line is given up.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Permit {
        // Fails only for a semaphore that was closed, and this one never is.
        let permit = self.permits.clone().acquire_owned().await.ok();
        Permit { limit: self.clone(), permit }
    }

    /// A permit, if there is one that nobody waits for.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(Permit { limit: self.clone(), permit: Some(permit) })
    }

    /// Whether a permit could be had at once.
    pub(crate) fn has_free(&self) -> bool {
        self.permits.available_permits() > 0
    }

    /// How many are out.
    pub(crate) fn taken(&self) -> usize {
        let all = self.size.load(Ordering::Relaxed) + self.surplus.load(Ordering::Relaxed);
        all.saturating_sub(self.permits.available_permits())
    }

    /// Changes how many permits there are. When they become fewer, those that are out stay out, and as many as are
    /// too many do not come back. Calls of this must not overlap.
    pub(crate) fn resize(&self, size: usize) {
        let before = self.size.swap(size, Ordering::Relaxed);
        if let Some(fewer) = before.checked_sub(size) {
            self.surplus.fetch_add(fewer - self.permits.forget_permits(fewer), Ordering::AcqRel);
        } else {
            for _ in before..size {
                if !self.take_surplus() {
                    self.permits.add_permits(1);
                }
            }
        }
    }

    /// Strikes one permit off those that are too many; false if none is.
    fn take_surplus(&self) -> bool {
        let one_less = |surplus: usize| surplus.checked_sub(1);
        self.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.limit.take_surplus()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lower_limit_holds_as_soon_as_permits_come_back() {
        let limit = Limit::new(3);
        let mut out = [(); 3].map(|()| limit.try_acquire());
        let mut waiting = Box::pin(limit.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        limit.resize(1);
        for permit in &mut out[..2] {
            drop(permit.take());
            assert!(waiting.as_mut().now_or_never().is_none(), "granted beyond the limit");
        }
        drop(out[2].take());
        assert!(waiting.now_or_never().is_some(), "the one permit there is was not granted");
    }

    proptest! {
        #[test]
        fn there_are_never_more_out_than_were_allowed_and_none_is_lost(
            steps in prop::collection::vec((0..3_u8, 0..8_usize), 1..60),
        ) {
            let mut size = 4;
            let limit = Limit::new(size);
            let mut out = Vec::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        let room = out.len() < size;
                        let permit = limit.try_acquire();
                        prop_assert_eq!(permit.is_some(), room);
                        out.extend(permit);
                    }
                    1 => drop(out.pop()),
                    _ => {
                        size = number;
                        limit.resize(size);
                    }
                }
            }
            out.clear();
            out.extend(std::iter::from_fn(|| limit.try_acquire()).take(9));
            prop_assert_eq!(out.len(), size);
        }
    }
}
