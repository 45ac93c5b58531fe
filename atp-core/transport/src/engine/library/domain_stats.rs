//! The states of all domains of a host in one round trip (`virConnectGetAllDomainStats`).
//!
//! Only the state is asked for: libvirt has it in memory. The statistics of vCPUs and memory are QEMU's to
//! give: the daemon asks the monitor of every running domain whose monitor is free, and hangs with a QEMU that hangs,
//! also with the flag that keeps it from waiting for an occupied one (measured with libvirt 9.0.0).

use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use crate::domain::DomainState;

/// All domains of the host, running or not, each with its state.
pub(super) fn all_states(connect: &Connect) -> Result<Vec<(Domain, DomainState)>, Error> {
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
        let mut number = -1;
        // SAFETY: the record's parameters are valid, the name is a C string, and `number` is a place for the answer.
        let found = unsafe {
            sys::virTypedParamsGetInt(
                record.params,
                record.nparams,
                sys::VIR_DOMAIN_STATS_STATE_STATE.as_ptr(),
                &mut number,
            )
        };
        // SAFETY: the record's domain is valid; the reference that is added here becomes the wrapper's own.
        let domain = unsafe {
            if sys::virDomainRef(record.dom) < 0 {
                continue;
            }
            Domain::from_ptr(record.dom)
        };
        let state =
            if found == 1 { DomainState::from_number(number.cast_unsigned()) } else { DomainState::NoState };
        domains.push((domain, state));
    }
    // SAFETY: the list is libvirt's own, is freed once, and no reference to its records is left.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(domains)
}
