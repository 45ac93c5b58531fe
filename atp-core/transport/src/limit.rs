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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

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
    fn a_permit_that_comes_back_while_the_limit_is_lowered_is_not_lent_again() {
        const ROUNDS: usize = 20_000;
        let round = AtomicUsize::new(0);
        // As near to one another as can be, and without holding up a machine that has but one processor to spare.
        let reaches = |number: usize| {
            for look in 1.. {
                if round.load(Ordering::Acquire) >= number {
                    return;
                }
                if look % 200 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
            }
        };
        let coming_back: Mutex<Option<Permit>> = Mutex::new(None);
        let lent_again = thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..ROUNDS {
                    reaches(2 * n + 1);
                    let permit = coming_back.lock().unwrap().take();
                    drop(permit);
                    round.fetch_add(1, Ordering::AcqRel);
                }
            });
            let rounds = (0..ROUNDS).map(|n| {
                let limit = Limit::new(2);
                let _kept = limit.try_acquire();
                *coming_back.lock().unwrap() = limit.try_acquire();
                round.fetch_add(1, Ordering::AcqRel);
                limit.resize(1);
                reaches(2 * n + 2);
                limit.try_acquire().is_some()
            });
            rounds.filter(|lent_again| *lent_again).count()
        });
        assert_eq!(lent_again, 0, "of {ROUNDS} times two were out of one");
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
