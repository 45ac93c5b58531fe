//! The states of all domains of a host in one round trip (`virConnectGetAllDomainStats`).
//!
//! Only the state is asked for: libvirt has it in memory. The statistics of vCPUs and memory are QEMU's to
//! give: the daemon asks the monitor of every running domain whose monitor is free, and hangs with a QEMU that hangs,
//! also with the flag that keeps it from waiting for an occupied one (measured with libvirt 9.0.0).

use std::ffi::CStr;
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use crate::domain::{DomainState, StateReason};
use crate::engine::listing::StateAndReason;

/// The state of one domain, and the reason for it (`virDomainGetState`).
pub(super) fn state(domain: &Domain) -> Result<StateAndReason, Error> {
    let (mut state, mut reason) = (0, 0);
    // SAFETY: the domain is alive for the call, and both numbers are places for the answer.
    let asked = unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) };
    if asked < 0 {
        return Err(Error::last_error());
    }
    let state = DomainState::from_number(state.cast_unsigned());
    Ok((state, StateReason::from_number(state, reason)))
}

/// All domains of the host, running or not, each with its state and the reason for it.
pub(super) fn all_states(
    connect: &Connect,
) -> Result<Vec<(Domain, DomainState, Option<StateReason>)>, Error> {
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    // SAFETY: the connection is alive for the call, and `records` is a place for the answer.
    let count = unsafe {
        sys::virConnectGetAllDomainStats(connect.as_ptr(), sys::VIR_DOMAIN_STATS_STATE, &mut records, flags)
    };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    let mut domains = Vec::with_capacity(count);
    for n in 0..count {
        // SAFETY: the call succeeded, so there are `count` records, each a valid pointer until the list is freed.
        let record = unsafe { &**records.add(n) };
        let number = |name: &CStr| {
            let mut number = -1;
            // SAFETY: the record's parameters are valid, the name is a C string, and `number` is a place for the answer.
            let found = unsafe {
                sys::virTypedParamsGetInt(record.params, record.nparams, name.as_ptr(), &mut number)
            };
            (found == 1).then_some(number)
        };
        // SAFETY: the record's domain is valid; the reference that is added here becomes the wrapper's own.
        let domain = unsafe {
            if sys::virDomainRef(record.dom) < 0 {
                continue;
            }
            Domain::from_ptr(record.dom)
        };
        let state = number(sys::VIR_DOMAIN_STATS_STATE_STATE)
            .map_or(DomainState::NoState, |number| DomainState::from_number(number.cast_unsigned()));
        let reason = number(sys::VIR_DOMAIN_STATS_STATE_REASON)
            .and_then(|number| StateReason::from_number(state, number));
        domains.push((domain, state, reason));
    }
    // SAFETY: the list is libvirt's own, is freed once, and no reference to its records is left.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_the_order_of_libvirts_numbers() {
        for (state, number, expected) in [
            (DomainState::Running, sys::VIR_DOMAIN_RUNNING_BOOTED, StateReason::Booted),
            (DomainState::Running, sys::VIR_DOMAIN_RUNNING_WAKEUP, StateReason::WokenUp),
            (DomainState::Running, sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED, StateReason::PostCopyFailed),
            (DomainState::Paused, sys::VIR_DOMAIN_PAUSED_USER, StateReason::User),
            (DomainState::Paused, sys::VIR_DOMAIN_PAUSED_MIGRATION, StateReason::Migrating),
            (DomainState::Paused, sys::VIR_DOMAIN_PAUSED_IOERROR, StateReason::IoError),
            (DomainState::Paused, sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN, StateReason::ShuttingDown),
            (DomainState::Paused, sys::VIR_DOMAIN_PAUSED_CRASHED, StateReason::Crashed),
            (DomainState::Paused, sys::VIR_DOMAIN_PAUSED_API_ERROR, StateReason::ApiError),
            (DomainState::ShuttingDown, sys::VIR_DOMAIN_SHUTDOWN_USER, StateReason::User),
            (DomainState::ShutOff, sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN, StateReason::Shutdown),
            (DomainState::ShutOff, sys::VIR_DOMAIN_SHUTOFF_MIGRATED, StateReason::Migrated),
            (DomainState::ShutOff, sys::VIR_DOMAIN_SHUTOFF_SAVED, StateReason::Saved),
            (DomainState::ShutOff, sys::VIR_DOMAIN_SHUTOFF_DAEMON, StateReason::Daemon),
            (DomainState::Crashed, sys::VIR_DOMAIN_CRASHED_PANICKED, StateReason::Panicked),
        ] {
            assert_eq!(StateReason::from_number(state, number.cast_signed()), Some(expected), "{state}");
        }
    }
}
