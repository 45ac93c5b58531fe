//! Calls that the `virt` crate lacks: whether a VM's monitor is occupied (`virDomainGetControlInfo`). It answers from the daemon's memory and
//! never waits for QEMU, so it can be asked before a call that would.

use std::time::Duration;

use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// For how long a command, anybody's, has been waiting for QEMU's answer; none if no command is.
pub(super) fn occupied_for(domain: &Domain) -> Result<Option<Duration>, Error> {
    let mut info = sys::virDomainControlInfo { state: 0, details: 0, stateTime: 0 };
    // SAFETY: the domain is alive for the call, and `info` is a place for the answer.
    let result = unsafe { sys::virDomainGetControlInfo(domain.as_ptr(), &mut info, 0) };
    if result < 0 {
        return Err(Error::last_error());
    }
    let occupied = info.state == sys::VIR_DOMAIN_CONTROL_OCCUPIED;
    Ok(occupied.then(|| Duration::from_millis(info.stateTime)))
}

/// Sends a domain a non-maskable interrupt.
pub(super) fn inject_nmi(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive for the call.
    let result = unsafe { sys::virDomainInjectNMI(domain.as_ptr(), 0) };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}
