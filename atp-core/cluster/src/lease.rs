//! The lease of a host, as the database has it.

use std::time::Duration;

/// A host's lease. Times are the database's.
///
/// The default was never taken. An epoch is one controller's hold of the host: every take raises it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLease {
    controller: Option<String>,
    epoch: i64,
    expires: Duration,
}

impl HostLease {
    /// The present epoch; 0 if it was never taken.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether a controller has it now, in this epoch.
    pub fn is_of(&self, controller: &str, epoch: i64, now: Duration) -> bool {
        self.controller.as_deref() == Some(controller) && self.epoch == epoch && now < self.expires
    }

    /// Takes it, if it is free or has ended. Returns the new epoch.
    pub fn take(&mut self, controller: &str, now: Duration, length: Duration) -> Option<i64> {
        if self.controller.is_some() && now < self.expires {
            return None;
        }
        *self = HostLease {
            controller: Some(controller.to_owned()),
            epoch: self.epoch + 1,
            expires: now + length,
        };
        Some(self.epoch)
    }

    /// Renews it. Returns the epoch; none if it is another's or has ended, even if it was not taken since.
    pub fn renew(&mut self, controller: &str, now: Duration, length: Duration) -> Option<i64> {
        if !self.is_of(controller, self.epoch, now) {
            return None;
        }
        self.expires = now + length;
        Some(self.epoch)
    }

    /// Gives it back before its end. What the controller has under way on the host goes on to its own end; it starts nothing
    /// more.
    pub fn release(&mut self, controller: &str, epoch: i64) {
        if self.controller.as_deref() == Some(controller) && self.epoch == epoch {
            self.controller = None;
        }
    }
}
