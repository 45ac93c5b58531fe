//! Statistics of domains, of all of a host in one round trip (`virConnectGetAllDomainStats`) or of one
//! (`virDomainListGetStats`).
//!
//! Of all domains only those are asked for that libvirt has without QEMU: the states and the interfaces. The statistics of
//! processors, memory and disks are QEMU's to give: the daemon asks the monitor of every running domain whose monitor is free,
//! and hangs with a QEMU that hangs, also with the flag that keeps it from waiting for an occupied one (measured with libvirt
//! 9.0.0, which asks QEMU also for a part of the group of the processor time).

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use crate::domain::{DomainCounters, DomainInfo, DomainState, Figure, Figures, StateReason};
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
pub(super) fn all_states(connect: &Connect) -> Result<Vec<(Domain, DomainInfo)>, Error> {
    let with_info =
        |(domain, figures): (Domain, Figures)| info_of(&domain, &figures).map(|info| (domain, info));
    all(connect, sys::VIR_DOMAIN_STATS_STATE)?.into_iter().map(with_info).collect()
}

/// A domain with its name of now, its state and the reason for it; none if it is gone.
pub(super) fn state_if_there(domain: &Domain) -> Result<Option<DomainInfo>, Error> {
    let records = of_one(domain, sys::VIR_DOMAIN_STATS_STATE)?;
    records.first().map(|(domain, figures)| info_of(domain, figures)).transpose()
}

/// All domains of the host with what libvirt counts of them by itself. Their processor times are in their infos.
pub(super) fn all_counters(connect: &Connect) -> Result<Vec<DomainCounters>, Error> {
    let groups = sys::VIR_DOMAIN_STATS_STATE | sys::VIR_DOMAIN_STATS_INTERFACE;
    all(connect, groups)?.iter().map(|(domain, figures)| counters_of(domain, figures)).collect()
}

/// A domain with what QEMU counts; none if it is gone.
pub(super) fn counters(domain: &Domain) -> Result<Option<DomainCounters>, Error> {
    let groups = sys::VIR_DOMAIN_STATS_STATE
        | sys::VIR_DOMAIN_STATS_BALLOON
        | sys::VIR_DOMAIN_STATS_VCPU
        | sys::VIR_DOMAIN_STATS_BLOCK;
    let records = of_one(domain, groups)?;
    records.first().map(|(domain, figures)| counters_of(domain, figures)).transpose()
}

const NOWAIT: c_uint = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;

fn all(connect: &Connect, groups: c_uint) -> Result<Vec<(Domain, Figures)>, Error> {
    // SAFETY: the connection is alive for the call, and `records` is a place for the answer.
    records(|records| unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), groups, records, NOWAIT) })
}

/// The record of a domain; none if it is gone.
fn of_one(domain: &Domain, groups: c_uint) -> Result<Vec<(Domain, Figures)>, Error> {
    // SAFETY: the list has one domain, which is alive for the call, and ends with null; `records` is a place for the answer.
    records(|records| unsafe {
        let mut list = [domain.as_ptr(), ptr::null_mut()];
        sys::virDomainListGetStats(list.as_mut_ptr(), groups, records, NOWAIT)
    })
}

/// The records that a call yields.
fn records(
    ask: impl FnOnce(*mut *mut sys::virDomainStatsRecordPtr) -> c_int,
) -> Result<Vec<(Domain, Figures)>, Error> {
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    let Ok(count) = usize::try_from(ask(&mut records)) else { return Err(Error::last_error()) };
    let mut domains = Vec::with_capacity(count);
    for n in 0..count {
        // SAFETY: the call succeeded, so there are `count` records, each a valid pointer until the list is freed.
        let record = unsafe { &**records.add(n) };
        // SAFETY: the record's domain is valid; the reference that is added here becomes the wrapper's own.
        let domain = unsafe {
            if sys::virDomainRef(record.dom) < 0 {
                continue;
            }
            Domain::from_ptr(record.dom)
        };
        let mut figures = HashMap::new();
        for n in 0..usize::try_from(record.nparams).unwrap_or_default() {
            // SAFETY: the record has `nparams` parameters, valid until the list is freed.
            let parameter = unsafe { &*record.params.add(n) };
            if let Some(figure) = figure(parameter) {
                figures.insert(text(parameter.field.as_ptr()), figure);
            }
        }
        domains.push((domain, Figures(figures)));
    }
    // SAFETY: the list is libvirt's own, is freed once, and no reference to its records is left.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(domains)
}

fn figure(parameter: &sys::virTypedParameter) -> Option<Figure> {
    let value = &parameter.value;
    let kind = u32::try_from(parameter.type_).ok()?;
    // SAFETY: the type says which of the values is there; a text is a valid C string or null.
    unsafe {
        match kind {
            sys::VIR_TYPED_PARAM_INT => u64::try_from(value.i).ok().map(Figure::Number),
            sys::VIR_TYPED_PARAM_UINT => Some(Figure::Number(value.ui.into())),
            sys::VIR_TYPED_PARAM_LLONG => u64::try_from(value.l).ok().map(Figure::Number),
            sys::VIR_TYPED_PARAM_ULLONG => Some(Figure::Number(value.ul)),
            sys::VIR_TYPED_PARAM_STRING if !value.s.is_null() => Some(Figure::Text(text(value.s))),
            _ => None,
        }
    }
}

/// Text of libvirt, which ends with NUL.
fn text(pointer: *const c_char) -> String {
    // SAFETY: names of parameters end with NUL within their 80 bytes, and texts are C strings; both live as long as the list.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn info_of(domain: &Domain, figures: &Figures) -> Result<DomainInfo, Error> {
    let (state, reason) = figures.state();
    Ok(DomainInfo { id: domain.id(), reason, ..DomainInfo::new(domain.name()?, domain.uuid()?, state) })
}

fn counters_of(domain: &Domain, figures: &Figures) -> Result<DomainCounters, Error> {
    let info = DomainInfo::new(domain.name()?, domain.uuid()?, DomainState::NoState);
    Ok(figures.counters(DomainInfo { id: domain.id(), ..info }))
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
