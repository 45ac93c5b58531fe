//! How much may be written to this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes that may be written to this machine, by all who have a clone of it. The default has no bound.
#[derive(Debug, Clone, Default)]
pub struct Allowance(Option<Arc<Limit>>);

#[derive(Debug)]
struct Limit {
    left: Arc<AtomicU64>,
    told: String,
}

impl Allowance {
    /// As many bytes. `told` is the message of an error: which limit it is, and what can be done.
    pub fn of(bytes: u64, told: impl Into<String>) -> Self {
        Allowance::sharing(Arc::new(AtomicU64::new(bytes)), told)
    }

    /// What is left of a number of bytes that others share, and may set anew.
    pub fn sharing(left: Arc<AtomicU64>, told: impl Into<String>) -> Self {
        Allowance(Some(Arc::new(Limit { left, told: told.into() })))
    }

    /// Takes bytes that are to be written.
    ///
    /// # Errors
    /// [`StorageFull`](io::ErrorKind::StorageFull) with the message of the limit: fewer are left, and none is taken.
    pub fn take(&self, bytes: u64) -> io::Result<()> {
        let Some(limit) = &self.0 else { return Ok(()) };
        let less = |left: u64| left.checked_sub(bytes);
        match limit.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(io::ErrorKind::StorageFull, limit.told.clone())),
        }
    }

    fn give_back(&self, bytes: u64) {
        if let Some(limit) = &self.0 {
            limit.left.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// What one file has of an allowance. What it has not used it gives back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Taken {
    allowance: Allowance,
    bytes: u64,
    used: u64,
}

impl Taken {
    pub(super) fn of(allowance: Allowance) -> Self {
        Taken { allowance, ..Taken::default() }
    }

    /// Takes what a file of this size needs beyond what it has.
    pub(super) fn up_to(&mut self, size: u64) -> io::Result<()> {
        let more = size.saturating_sub(self.bytes);
        self.allowance.take(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Notes how large the file is. What an earlier transfer has written of it is not taken again.
    pub(super) fn is_now(&mut self, size: u64) {
        self.used = size;
        self.bytes = self.bytes.max(size);
    }

    /// Gives back all of it, as the file was removed.
    pub(super) fn removed(&mut self) {
        self.allowance.give_back(self.bytes);
        (self.bytes, self.used) = (0, 0);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.allowance.give_back(self.bytes - self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_share_an_allowance_and_give_back_what_they_do_not_use() {
        let all = Allowance::of(10, "ten bytes are the limit");
        let (mut first, mut second) = (Taken::of(all.clone()), Taken::of(all.clone()));
        first.up_to(6).unwrap();
        first.up_to(4).unwrap();
        let error = second.up_to(5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.to_string(), "ten bytes are the limit");
        second.up_to(4).unwrap();
        assert!(all.take(1).is_err());
        first.is_now(2);
        drop(first);
        // It goes on where the first has ended.
        let mut again = Taken::of(all.clone());
        again.is_now(2);
        again.up_to(6).unwrap();
        assert!(all.take(1).is_err());
        again.removed();
        second.up_to(10).unwrap();
        Allowance::default().take(u64::MAX).unwrap();
    }
}
