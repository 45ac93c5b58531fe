//! The state of a target, as the database has it.

use std::time::Duration;

use crate::lease::HostLease;

/// A start of targets by a controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The controller.
    pub controller: String,
    /// The epoch of the host's lease.
    pub epoch: i64,
    /// Tells the starts of a controller apart: a request that is delayed must not change what a later one has started.
    pub number: i64,
}

/// How far a target of a run got. Times are the database's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TargetState {
    /// It was not started.
    #[default]
    Waiting,
    /// It was started, and something may have been sent.
    Started {
        /// By which claim.
        claim: Claim,
        /// When the controller has an outcome, if it lives: the target's deadline and grace.
        due: Duration,
    },
    /// It has its outcome.
    Finished {
        /// Whether that is `outcome-unknown`, as the controller did not tell it.
        is_unknown: bool,
    },
}

impl TargetState {
    /// Starts it. Returns whether it was.
    pub fn start(&mut self, lease: &HostLease, claim: &Claim, now: Duration, due: Duration) -> bool {
        let may = *self == TargetState::Waiting && lease.is_of(&claim.controller, claim.epoch, now);
        if may {
            *self = TargetState::Started { claim: claim.clone(), due };
        }
        may
    }

    /// Lets it wait again: its controller has sent nothing for it. Returns whether it does.
    pub fn put_back(&mut self, claim: &Claim) -> bool {
        let may = self.is_started_by(claim);
        if may {
            *self = TargetState::Waiting;
        }
        may
    }

    /// Records the outcome of the controller that started it. Returns whether it was recorded.
    pub fn finish(&mut self, claim: &Claim) -> bool {
        let may = self.is_started_by(claim);
        if may {
            *self = TargetState::Finished { is_unknown: false };
        }
        may
    }

    /// Records that its outcome is unknown, for the controller that has the lease now. Returns whether that was recorded.
    pub fn give_up(&mut self, lease: &HostLease, now: Duration, slack: Duration) -> bool {
        let may = match self {
            TargetState::Started { claim, due } => claim.epoch < lease.epoch() && now > *due + slack,
            _ => false,
        };
        if may {
            *self = TargetState::Finished { is_unknown: true };
        }
        may
    }

    fn is_started_by(&self, by: &Claim) -> bool {
        matches!(self, TargetState::Started { claim, .. } if claim == by)
    }
}
