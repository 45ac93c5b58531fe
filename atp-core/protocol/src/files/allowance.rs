//! How much may be written to this machine.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long bytes are kept for a file of which none come.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The bytes that may be written to this machine, by all who have a clone of it. The default has no bound.
#[derive(Debug, Clone, Default)]
pub struct Allowance(Option<Arc<Limit>>);

#[derive(Debug)]
struct Limit {
    room: Arc<Room>,
    told: String,
}

#[derive(Debug, Default)]
struct Room {
    state: Mutex<State>,
    /// Notified when others may have more or less than before.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What is not written yet.
    left: u64,
    /// What is kept of that for files, by their numbers.
    kept: HashMap<u64, Kept>,
    last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    bytes: u64,
    until: Instant,
}

impl State {
    /// What is kept for other files, and until when that is so at least.
    fn kept_for_others(&self, own: u64) -> (u64, Option<Instant>) {
        let now = Instant::now();
        let kept = self.kept.iter().filter(|(id, kept)| **id != own && kept.until > now);
        let (bytes, ends): (Vec<_>, Vec<_>) = kept.map(|(_, kept)| (kept.bytes, kept.until)).unzip();
        (bytes.into_iter().fold(0, u64::saturating_add), ends.into_iter().min())
    }
}

impl Allowance {
    /// As many bytes. `told` is the message of an error: which limit it is, and what can be done.
    pub fn of(bytes: u64, told: impl Into<String>) -> Self {
        let room = Arc::<Room>::default();
        room.state.lock().left = bytes;
        Allowance(Some(Arc::new(Limit { room, told: told.into() })))
    }

    /// The same bytes with another message. As many are left from now on, for all who share them, or as many as are kept for files
    /// under way.
    pub fn set(&self, bytes: u64, told: impl Into<String>) -> Self {
        let Some(limit) = &self.0 else { return Allowance::of(bytes, told) };
        {
            let mut state = limit.room.state.lock();
            state.left = bytes.max(state.kept_for_others(0).0);
        }
        limit.room.changed.notify_waiters();
        Allowance(Some(Arc::new(Limit { room: limit.room.clone(), told: told.into() })))
    }

    /// Takes bytes that are to be written, and are not kept for a file under way.
    ///
    /// # Errors
    /// [`StorageFull`](io::ErrorKind::StorageFull) with the message of the limit: fewer are left, and none is taken.
    pub fn take(&self, bytes: u64) -> io::Result<()> {
        let Some(limit) = &self.0 else { return Ok(()) };
        let mut state = limit.room.state.lock();
        let (kept, _) = state.kept_for_others(0);
        if bytes > state.left.saturating_sub(kept) {
            return Err(limit.full());
        }
        state.left -= bytes;
        limit.room.changed.notify_waiters();
        Ok(())
    }
}

impl Limit {
    fn full(&self) -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, self.told.clone())
    }
}

/// What one file has of an allowance.
#[derive(Debug, Default)]
pub(super) struct Taken {
    allowance: Allowance,
    /// The number by which bytes are kept for it; 0 for none yet.
    id: u64,
    /// What it has written.
    used: u64,
}

impl Taken {
    pub(super) fn of(allowance: Allowance) -> Self {
        Taken { allowance, ..Taken::default() }
    }

    /// Has what a file of this size needs beyond what it has kept for it, as long as it gets some of it every 10 s. What
    /// others have written is refused at once, and what is only kept for others waited for until `deadline`.
    ///
    /// # Errors
    /// [`StorageFull`](io::ErrorKind::StorageFull) with the message of the limit.
    pub(super) async fn keep(&mut self, size: u64, deadline: Instant) -> io::Result<()> {
        let Some(limit) = self.allowance.0.clone() else { return Ok(()) };
        let bytes = size.saturating_sub(self.used);
        loop {
            let mut changed = pin!(limit.room.changed.notified());
            changed.as_mut().enable();
            let look_again = {
                let mut state = limit.room.state.lock();
                let (others, until) = state.kept_for_others(self.id);
                if bytes > state.left
                    || (bytes > state.left.saturating_sub(others) && Instant::now() >= deadline)
                {
                    return Err(limit.full());
                }
                if bytes <= state.left.saturating_sub(others) {
                    if self.id == 0 {
                        state.last += 1;
                        self.id = state.last;
                    }
                    state.kept.insert(self.id, Kept { bytes, until: Instant::now() + KEPT_FOR });
                    return Ok(());
                }
                until.map_or(deadline, |until| until.min(deadline))
            };
            let _ = timeout_at(look_again, changed).await;
        }
    }

    /// Takes what the file has grown by, up to this size. What is not kept for it may not be kept for others.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub(super) fn grow(&mut self, size: u64) -> io::Result<()> {
        let Some(limit) = &self.allowance.0 else { return Ok(()) };
        let more = size.saturating_sub(self.used);
        let mut state = limit.room.state.lock();
        let own = state.kept.get(&self.id).map_or(0, |kept| kept.bytes);
        let others = if more > own { state.kept_for_others(self.id).0 } else { 0 };
        if more > state.left.saturating_sub(others) {
            return Err(limit.full());
        }
        state.left -= more;
        if let Some(kept) = state.kept.get_mut(&self.id) {
            *kept = Kept { bytes: own.saturating_sub(more), until: Instant::now() + KEPT_FOR };
        }
        self.used += more;
        limit.room.changed.notify_waiters();
        Ok(())
    }

    /// Notes what an earlier transfer has written of the file, which was taken then.
    pub(super) fn has(&mut self, size: u64) {
        self.used = self.used.max(size);
    }

    /// Gives back these bytes of an earlier transfer, or all of this one, as they were removed.
    pub(super) fn removed(&mut self, before: u64) {
        let Some(limit) = &self.allowance.0 else { return };
        let mut state = limit.room.state.lock();
        state.left = state.left.saturating_add(self.used.max(before));
        self.used = 0;
        limit.room.changed.notify_waiters();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(limit) = &self.allowance.0 {
            limit.room.state.lock().kept.remove(&self.id);
            limit.room.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps room, or fails without a wait.
    async fn at_once(taken: &mut Taken, size: u64) -> io::Result<()> {
        taken.keep(size, Instant::now()).await
    }

    #[tokio::test(start_paused = true)]
    async fn files_share_an_allowance_and_give_back_what_they_do_not_use() {
        let all = Allowance::of(10, "ten bytes are the limit");
        let (mut first, mut second) = (Taken::of(all.clone()), Taken::of(all.clone()));
        at_once(&mut first, 6).await.unwrap();
        at_once(&mut first, 4).await.unwrap();
        first.grow(4).unwrap();
        let error = at_once(&mut second, 7).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.to_string(), "ten bytes are the limit");
        at_once(&mut second, 4).await.unwrap();
        // It may grow into what is not kept for other files.
        first.grow(6).unwrap();
        assert!(first.grow(7).is_err());
        // It goes on where the first has ended.
        drop(first);
        let mut again = Taken::of(all.clone());
        again.has(6);
        assert!(at_once(&mut again, 7).await.is_err());
        drop(second);
        at_once(&mut again, 7).await.unwrap();
        again.grow(7).unwrap();
        again.removed(0);
        // Another, of which nothing can be used, was removed by the one that begins anew.
        let mut other = Taken::of(all.clone());
        other.grow(10).unwrap();
        drop(other);
        again.removed(10);
        all.take(10).unwrap();
        assert!(all.take(1).is_err());
        let more = all.set(3, "three");
        all.take(2).unwrap();
        assert_eq!(more.take(2).unwrap_err().to_string(), "three");
        Allowance::default().take(u64::MAX).unwrap();
        at_once(&mut Taken::default(), u64::MAX).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_of_which_nothing_comes_holds_its_room_for_a_while_only() {
        let begun = Instant::now();
        let all = Allowance::of(10, "full");
        let (mut slow, mut hung) = (Taken::of(all.clone()), Taken::of(all.clone()));
        at_once(&mut slow, 4).await.unwrap();
        at_once(&mut hung, 6).await.unwrap();
        let other = tokio::spawn({
            let mut other = Taken::of(all.clone());
            async move {
                other.keep(6, begun + KEPT_FOR * 10).await.unwrap();
                (Instant::now(), other)
            }
        });
        for size in 1..=3 {
            tokio::time::sleep(KEPT_FOR / 2).await;
            slow.grow(size).unwrap();
        }
        let (at, mut other) = other.await.unwrap();
        assert!((begun + KEPT_FOR..=begun + KEPT_FOR + KEPT_FOR / 2).contains(&at), "{:?}", at - begun);
        // What comes steadily is kept.
        assert!(other.grow(7).is_err());
        other.grow(6).unwrap();
        slow.grow(4).unwrap();
        // The other comes too late.
        assert!(hung.grow(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_a_file_is_not_taken_by_others_or_by_a_lower_limit() {
        let all = Allowance::of(10, "full");
        let mut file = Taken::of(all.clone());
        at_once(&mut file, 8).await.unwrap();
        assert!(all.take(3).is_err());
        all.take(2).unwrap();
        file.grow(5).unwrap();
        let _lower = all.set(1, "lower");
        file.grow(8).unwrap();
        assert!(all.take(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_goes_to_those_who_wait_and_what_is_written_is_not_waited_for() {
        let begun = Instant::now();
        let all = Allowance::of(10, "full");
        let mut first = Taken::of(all.clone());
        at_once(&mut first, 10).await.unwrap();
        let wait = |size| {
            let mut taken = Taken::of(all.clone());
            tokio::spawn(
                async move { taken.keep(size, begun + KEPT_FOR / 2).await.map_err(|error| error.kind()) },
            )
        };
        let (small, large) = (wait(4), wait(8));
        tokio::task::yield_now().await;
        first.grow(3).unwrap();
        assert_eq!(large.await.unwrap(), Err(io::ErrorKind::StorageFull));
        drop(first);
        assert_eq!(small.await.unwrap(), Ok(()));
        assert_eq!(Instant::now(), begun);
        // It is not waited for beyond the deadline.
        let mut first = Taken::of(all.clone());
        at_once(&mut first, 7).await.unwrap();
        assert_eq!(wait(1).await.unwrap(), Err(io::ErrorKind::StorageFull));
        assert_eq!(Instant::now(), begun + KEPT_FOR / 2);
    }
}
