//! Slots: how many targets may be under way, when some of them make no progress.
//!
//! A target whose call was sent and has not been answered for [`Policy::answer_patience`] gives up its slot until the answer comes.
//! It stays under its own deadline. Otherwise the hung VMs of a large fleet would fill all slots, and the others would wait for
//! their time-outs. The limits of this:
//!
//! - With `parallel` = 1 no slot is given up: targets are processed strictly one after another.
//! - At most [`MOST`] times `parallel` targets are under way, and at most `parallel` on one host.
//! - Where the number of failures is limited, targets that gave up their slots count as failures to come. While a canary batch is
//!   under way no slot is given up.
//! - The limits of a host, of a VM and of a batch count all targets under way.

use std::sync::{Arc, Weak};
use std::time::Duration;

use atp_api::Policy;
use atp_transport::Unanswered;
use tokio::time::{Instant, sleep_until};

/// The most targets under way, as a multiple of `parallel`.
const MOST: usize = 8;

/// How many times within the patience the targets under way are looked at.
const LOOKS: u32 = 4;

/// The slots of a run.
pub(super) struct Slots {
    parallel: usize,
    patience: Duration,
    /// The calls of targets under way. Those of a target that has ended are dropped.
    under_way: Vec<Weak<Unanswered>>,
    /// Those that were silent when they were last looked at.
    silent: Vec<Weak<Unanswered>>,
    next_look: Instant,
}

impl Slots {
    pub(super) fn new(policy: &Policy) -> Self {
        Slots {
            parallel: policy.parallel.max(1),
            patience: policy.answer_patience,
            under_way: Vec::new(),
            silent: Vec::new(),
            next_look: Instant::now(),
        }
    }

    /// Whether one more target may be started beside so many, of which `most_silent` may have given up their slots.
    pub(super) fn is_one_free(&mut self, under_way: usize, most_silent: usize) -> bool {
        if under_way < self.parallel {
            return true;
        }
        if !self.may_be_given_up() || under_way >= self.parallel.saturating_mul(MOST) {
            return false;
        }
        let patience = self.patience;
        self.silent.retain(|calls| is_silent(calls, patience));
        under_way.saturating_sub(self.silent.len().min(most_silent)) < self.parallel
    }

    /// Takes a slot for a target: it is held as long as what this returns.
    pub(super) fn take(&mut self) -> Arc<Unanswered> {
        let calls = Arc::new(Unanswered::default());
        if self.may_be_given_up() {
            self.under_way.push(Arc::downgrade(&calls));
        }
        calls
    }

    /// Looks for targets that make no progress, each time that it is time for it. Never returns if there is nothing to look for
    /// beside so many under way.
    ///
    /// Cancel safe.
    pub(super) async fn look(&mut self, under_way: usize) {
        if !self.may_be_given_up() || under_way < self.parallel {
            return std::future::pending().await;
        }
        sleep_until(self.next_look).await;
        self.next_look = Instant::now() + self.patience / LOOKS;
        self.under_way.retain(|calls| calls.strong_count() > 0);
        let silent = self.under_way.iter().filter(|calls| is_silent(calls, self.patience));
        self.silent = silent.cloned().collect();
    }

    fn may_be_given_up(&self) -> bool {
        self.parallel > 1 && !self.patience.is_zero()
    }
}

/// Whether a target is under way and waits for an answer for so long.
fn is_silent(calls: &Weak<Unanswered>, patience: Duration) -> bool {
    calls.upgrade().is_some_and(|calls| calls.for_time() >= patience)
}
