//! So many at a time: a number of permits that can be changed while some of them are out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits, granted in the order they are asked for.
pub(crate) struct Limit {
    permits: Arc<Semaphore>,
    /// Held while the limit is changed and while a permit goes back, so that none slips through a lower limit.
    bounds: Mutex<Bounds>,
}

struct Bounds {
    /// How many permits there are to be.
    size: usize,
    /// Permits that are out and are not to come back, since the limit was lowered meanwhile.
    surplus: usize,
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
        let (permits, bounds) = (Arc::new(Semaphore::new(size)), Mutex::new(Bounds { size, surplus: 0 }));
        Arc::new(Limit { permits, bounds })
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
        let bounds = self.bounds();
        (bounds.size + bounds.surplus).saturating_sub(self.permits.available_permits())
    }

    /// Changes how many permits there are. When they become fewer, those that are out stay out, and as many as are
    /// too many do not come back.
    pub(crate) fn resize(&self, size: usize) {
        let mut bounds = self.bounds();
        if let Some(fewer) = bounds.size.checked_sub(size) {
            bounds.surplus += fewer - self.permits.forget_permits(fewer);
        } else {
            let more = size - bounds.size;
            let kept = more.min(bounds.surplus);
            bounds.surplus -= kept;
            self.permits.add_permits(more - kept);
        }
        bounds.size = size;
    }

    fn bounds(&self) -> MutexGuard<'_, Bounds> {
        // Nothing under this lock can panic, and whoever is woken under it runs on its own.
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut bounds = self.limit.bounds();
        let Some(permit) = self.permit.take() else { return };
        match bounds.surplus.checked_sub(1) {
            Some(fewer) => {
                bounds.surplus = fewer;
                permit.forget();
            }
            // Under the lock: a limit that is lowered now counts it among those that can be had.
            None => drop(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

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

    #[test]
    fn a_permit_comes_back_before_a_change_of_the_limit_or_after_it() {
        let limit = Limit::new(1);
        let permit = limit.try_acquire();
        let change = limit.bounds();
        let back = thread::spawn(move || drop(permit));
        // Time enough for one that does not wait for the end of the change.
        thread::sleep(Duration::from_millis(50));
        assert!(!limit.has_free(), "it came back in between, and may be lent though it is one too many");
        drop(change);
        back.join().unwrap();
        assert!(limit.has_free());
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
