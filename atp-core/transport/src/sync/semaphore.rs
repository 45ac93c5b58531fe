//! A semaphore whose number of permits can be changed while some of them are out.
//!
//! Tokio's semaphore cannot be made smaller safely: when a waiter that was assigned a permit is cancelled, the permit goes
//! back to the semaphore at once, and may be one too many by then. So the count and the queue are kept here, under one
//! lock, and each change of them is one step.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Permits, granted in the order they are asked for.
pub(crate) struct ResizableSemaphore {
    state: Mutex<State>,
}

struct State {
    /// How many permits may be out.
    size: usize,
    /// How many are out, with those granted to waiters that have not noticed yet. More than `size` only after the limit
    /// was lowered.
    taken: usize,
    next_ticket: u64,
    /// Who waits, in the order of asking. Empty while a permit is free. A waiter that is granted a permit is taken out,
    /// which is how it learns of it.
    waiting: BTreeMap<u64, Waker>,
}

/// One of the permits; goes back when it is dropped.
pub(crate) struct Permit {
    limit: Arc<ResizableSemaphore>,
}

/// A wait for a permit.
struct Acquire<'a> {
    limit: &'a Arc<ResizableSemaphore>,
    /// The place in the queue; none before the first poll, and once the permit was handed out.
    ticket: Option<u64>,
}

impl ResizableSemaphore {
    /// A limit of `size` permits.
    pub(crate) fn new(size: usize) -> Arc<Self> {
        let state = State { size, taken: 0, next_ticket: 0, waiting: BTreeMap::new() };
        Arc::new(ResizableSemaphore { state: Mutex::new(state) })
    }

    /// Waits for a permit. Cancel safe: a place in the queue is given up, and a permit that was granted meanwhile goes
    /// to the next.
    pub(crate) fn acquire(self: &Arc<Self>) -> impl Future<Output = Permit> + Send {
        Acquire { limit: self, ticket: None }
    }

    /// A permit, if one is free.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.state.lock().take().then(|| Permit { limit: self.clone() })
    }

    /// Whether a permit could be had at once.
    pub(crate) fn has_free(&self) -> bool {
        self.state.lock().has_free()
    }

    /// How many are out.
    pub(crate) fn taken(&self) -> usize {
        self.state.lock().taken
    }

    /// Changes how many permits there are. When they become fewer, those that are out stay out, and none is granted until
    /// fewer than `size` are out.
    pub(crate) fn resize(&self, size: usize) {
        self.change(|state| state.size = size);
    }

    fn give_back(&self) {
        self.change(|state| state.taken -= 1);
    }

    /// Makes a change after which permits may be free, and grants them.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let granted = state.grant();
        drop(state);
        // Not under the lock: waking runs code of the executor, which may drop other waiters and permits.
        granted.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn has_free(&self) -> bool {
        self.taken < self.size
    }

    /// Takes a permit, if one is free.
    fn take(&mut self) -> bool {
        let free = self.has_free();
        self.taken += usize::from(free);
        free
    }

    /// Grants free permits to those who wait. Every change that may free a permit ends with it, so a permit stays free
    /// only if no caller waits.
    #[must_use = "those who were granted a permit have to be woken"]
    fn grant(&mut self) -> Vec<Waker> {
        let mut granted = Vec::new();
        while self.has_free()
            && let Some((_, waker)) = self.waiting.pop_first()
        {
            self.taken += 1;
            granted.push(waker);
        }
        granted
    }

    /// Adds a waiter at the end of the queue.
    fn enqueue(&mut self, waker: Waker) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, waker);
        ticket
    }
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let limit = self.limit;
        // The waker of the last poll: dropped after the lock is released, as that may run code of the executor.
        let mut _last = None;
        let mut state = limit.state.lock();
        match self.ticket {
            None if state.take() => {}
            None => {
                self.ticket = Some(state.enqueue(context.waker().clone()));
                return Poll::Pending;
            }
            Some(ticket) => {
                if let Some(waker) = state.waiting.get_mut(&ticket) {
                    _last = Some(std::mem::replace(waker, context.waker().clone()));
                    return Poll::Pending;
                }
                self.ticket = None;
            }
        }
        Poll::Ready(Permit { limit: limit.clone() })
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let place = self.limit.state.lock().waiting.remove(&ticket);
        if place.is_none() {
            self.limit.give_back();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lower_limit_holds_as_soon_as_permits_come_back() {
        let limit = ResizableSemaphore::new(3);
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
    fn a_waiter_that_was_served_and_leaves_does_not_bring_back_a_permit_that_is_gone() {
        let limit = ResizableSemaphore::new(1);
        let permit = limit.try_acquire();
        let mut waiting = Box::pin(limit.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        // The waiter has the permit now, and does not know yet.
        drop(permit);
        limit.resize(0);
        drop(waiting);
        assert!(limit.try_acquire().is_none(), "granted beyond the limit");
        assert_eq!(limit.taken(), 0);
    }

    /// What a limit must do, written down without regard to speed.
    #[derive(Default)]
    struct Model {
        size: usize,
        taken: usize,
        line: VecDeque<usize>,
    }

    impl Model {
        fn has_free(&self) -> bool {
            self.taken < self.size
        }

        fn serve(&mut self) {
            while self.has_free() && self.line.pop_front().is_some() {
                self.taken += 1;
            }
        }

        fn give_back(&mut self) {
            self.taken -= 1;
            self.serve();
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        TryAcquire,
        Ask,
        Poll(usize),
        Cancel(usize),
        Release(usize),
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::TryAcquire),
            Just(Step::Ask),
            (0..8_usize).prop_map(Step::Poll),
            (0..8_usize).prop_map(Step::Cancel),
            (0..8_usize).prop_map(Step::Release),
            (0..5_usize).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn permits_are_granted_in_order_and_within_the_limit_whatever_is_cancelled_or_changed(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let limit = ResizableSemaphore::new(2);
            let mut model = Model { size: 2, ..Model::default() };
            let mut held = Vec::new();
            let mut asked: Vec<(usize, BoxFuture<'_, Permit>)> = Vec::new();
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::TryAcquire => {
                        let permit = limit.try_acquire();
                        prop_assert_eq!(permit.is_some(), model.has_free());
                        model.taken += usize::from(permit.is_some());
                        held.extend(permit);
                    }
                    Step::Ask => {
                        let mut waiting = limit.acquire().boxed();
                        let permit = waiting.as_mut().now_or_never();
                        prop_assert_eq!(permit.is_some(), model.has_free());
                        if permit.is_some() {
                            model.taken += 1;
                        } else {
                            model.line.push_back(id);
                            asked.push((id, waiting));
                        }
                        held.extend(permit);
                    }
                    Step::Poll(which) if which < asked.len() => {
                        let permit = asked[which].1.as_mut().now_or_never();
                        prop_assert_eq!(permit.is_none(), model.line.contains(&asked[which].0));
                        if permit.is_some() {
                            drop(asked.remove(which));
                        }
                        held.extend(permit);
                    }
                    Step::Cancel(which) if which < asked.len() => {
                        let (id, waiting) = asked.remove(which);
                        drop(waiting);
                        match model.line.iter().position(|&waits| waits == id) {
                            Some(at) => drop(model.line.remove(at)),
                            None => model.give_back(),
                        }
                    }
                    Step::Release(which) if which < held.len() => {
                        drop(held.remove(which));
                        model.give_back();
                    }
                    Step::Resize(size) => {
                        limit.resize(size);
                        model.size = size;
                        model.serve();
                    }
                    Step::Poll(_) | Step::Cancel(_) | Step::Release(_) => {}
                }
                prop_assert_eq!((limit.taken(), limit.has_free()), (model.taken, model.has_free()));
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn changes_amid_calls_and_cancellations_lose_no_permit_and_add_none() {
        const SIZES: [usize; 6] = [4, 1, 3, 0, 2, 1];
        for round in 0..300 {
            let limit = ResizableSemaphore::new(4);
            let users: Vec<_> = (0..8)
                .map(|user| {
                    let limit = limit.clone();
                    tokio::spawn(async move {
                        for turn in 0..20 {
                            if (user + turn) % 3 == 0 {
                                // Asks and leaves, served in between or not.
                                let mut waiting = Box::pin(limit.acquire());
                                let _permit = waiting.as_mut().now_or_never();
                                tokio::task::yield_now().await;
                            } else {
                                let _permit = limit.acquire().await;
                                tokio::task::yield_now().await;
                            }
                        }
                    })
                })
                .collect();
            let changes = limit.clone();
            let changer = tokio::spawn(async move {
                for turn in 0..40 {
                    changes.resize(SIZES[(round + turn) % SIZES.len()]);
                    tokio::task::yield_now().await;
                }
                // So that all who wait are served in the end; or the test hangs, as a wake-up was lost.
                changes.resize(2);
            });
            for user in users {
                user.await.unwrap();
            }
            changer.await.unwrap();
            assert_eq!(limit.taken(), 0);
            let out: Vec<_> = std::iter::from_fn(|| limit.try_acquire()).take(9).collect();
            assert_eq!(out.len(), 2);
        }
    }
}
