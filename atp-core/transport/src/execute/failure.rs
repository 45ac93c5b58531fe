//! What an error says that decides whether work may be done again.

use std::time::Duration;

use crate::error::TransportError;
use atp_api::Effect;

/// What an error says that decides whether the work may be done again.
pub trait Failure {
    /// What the work did to its target. Only work that had none is ever repeated.
    fn effect(&self) -> Effect;

    /// Whether the same work, done again later, may well succeed.
    fn is_retryable(&self) -> bool;

    /// How long it is of no use to try again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl Failure for TransportError {
    fn effect(&self) -> Effect {
        TransportError::effect(self)
    }

    fn is_retryable(&self) -> bool {
        TransportError::is_retryable(self)
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            TransportError::CircuitOpen { next_probe_in: wait, .. }
            | TransportError::RateLimited { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}

/// Whether work that failed so may be done again at all.
pub(crate) fn may_be_repeated(failure: &impl Failure) -> bool {
    failure.effect() == Effect::None && failure.is_retryable()
}
