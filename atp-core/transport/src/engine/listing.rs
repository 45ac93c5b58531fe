//! What both engines do with states, and with the errors that a listing may meet.

use std::collections::HashSet;

use uuid::Uuid;

use crate::domain::error_numbers::{INVALID_ARG, NO_DOMAIN, NO_DOMAIN_METADATA, NO_SUPPORT};
use crate::domain::{DomainInfo, DomainState, StateReason};

/// A state, and the reason for it.
pub(super) type StateAndReason = (DomainState, Option<StateReason>);

/// State and reason of a domain that is in the state `now`, with what was `known` of it a moment before. None if it has to
/// be asked: of one that runs nothing more has to be known, which saves a round trip.
pub(super) fn without_asking(now: DomainState, known: Option<StateAndReason>) -> Option<StateAndReason> {
    match known {
        Some((then, reason)) if then == now => Some((now, reason)),
        _ if now.is_running() => Some((now, None)),
        known => known,
    }
}

/// Says of a domain that is shut off that its memory is saved, if it is among these. The reason of its state says so too,
/// until the daemon is restarted.
pub(super) fn note_saved(info: &mut DomainInfo, saved: &HashSet<Uuid>) {
    if info.state == DomainState::ShutOff && saved.contains(&info.uuid) {
        info.reason = Some(StateReason::Saved);
    }
}

/// Whether the driver has no such call, or not with these flags.
pub(super) fn lacks_call(code: u32) -> bool {
    [NO_SUPPORT, INVALID_ARG].contains(&code)
}

/// Whether there is no such element: a driver without metadata has none, nor has a domain that is gone.
pub(super) fn lacks_metadata(code: u32) -> bool {
    [NO_DOMAIN_METADATA, NO_DOMAIN, NO_SUPPORT].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_asked_for_its_reason_only_if_it_does_not_run_and_nothing_is_known() {
        let (paused, running) = (DomainState::Paused, DomainState::Running);
        let (by_user, booted) = (Some(StateReason::User), Some(StateReason::Booted));
        for (now, known, expected) in [
            (paused, None, None),
            (paused, Some((paused, by_user)), Some((paused, by_user))),
            (running, None, Some((running, None))),
            (running, Some((running, booted)), Some((running, booted))),
            (running, Some((paused, by_user)), Some((running, None))),
            // What was known belongs together.
            (paused, Some((running, booted)), Some((running, booted))),
        ] {
            assert_eq!(without_asking(now, known), expected, "{now}, {known:?}");
        }
    }
}
