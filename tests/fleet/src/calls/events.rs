//! Calls that ask for events.

use atp_rpc::RemoteDomain;
use atp_rpc::numbers::procedure;

use super::{Call, Entry, reply};
use crate::event::{Registration, Wanted};
use crate::host::Outcome;
use crate::refusal;

/// Events that are known (`virDomainEventID`): others can be asked for, and never come.
const EVENTS: std::ops::RangeInclusive<i32> = 0..=25;

/// The most registrations of a connection.
const REGISTRATIONS: usize = 1_024;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::EVENT_REGISTER, register),
    Entry::new(procedure::EVENT_DEREGISTER, deregister),
    Entry::new(procedure::MONITOR_EVENT_REGISTER, register_monitor),
    Entry::new(procedure::MONITOR_EVENT_DEREGISTER, deregister),
];

fn register(call: &mut Call<'_>) -> Outcome {
    let (event, domain) = call.arguments::<(i32, Option<RemoteDomain>)>()?;
    if !EVENTS.contains(&event) {
        return Err(refusal::unsupported_argument(&format!("unsupported event ID {event}")).into());
    }
    add(call, domain, Wanted::Domain(event))
}

fn register_monitor(call: &mut Call<'_>) -> Outcome {
    let (domain, name, _flags) = call.arguments::<(Option<RemoteDomain>, Option<String>, u32)>()?;
    add(call, domain, Wanted::Monitor(name))
}

fn add(call: &mut Call<'_>, domain: Option<RemoteDomain>, wanted: Wanted) -> Outcome {
    call.count();
    let domain = domain.map(|domain| call.index(&domain).map(|_| domain.uuid)).transpose()?;
    let session = &mut *call.session;
    if session.registrations.len() >= REGISTRATIONS {
        return Err(refusal::unsupported_argument("too many events were asked for").into());
    }
    let callback = session.next_callback;
    session.next_callback += 1;
    session.registrations.push(Registration { callback, domain, wanted });
    reply(&callback)
}

fn deregister(call: &mut Call<'_>) -> Outcome {
    let callback = call.arguments::<i32>()?;
    call.count();
    let registrations = &mut call.session.registrations;
    let Some(found) = registrations.iter().position(|registration| registration.callback == callback) else {
        return Err(refusal::no_callback(callback).into());
    };
    registrations.remove(found);
    reply(&())
}
