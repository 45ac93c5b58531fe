//! Calls that open streams.

use atp_rpc::RemoteDomain;
use atp_rpc::numbers::procedure;

use super::{Call, Entry, reply};
use crate::host::Outcome;
use crate::session::Opening;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::DOMAIN_OPEN_CONSOLE, echo).writes(),
    Entry::new(procedure::DOMAIN_OPEN_CHANNEL, echo).writes(),
    Entry::new(procedure::DOMAIN_SCREENSHOT, screenshot).writes(),
];

/// Width and height of a picture, pixels.
const SIDE: usize = 16;

/// What listens behind a console or a channel, whatever its name: it sends back what it gets.
fn echo(call: &mut Call<'_>) -> Outcome {
    let (domain, _name, _flags) = call.arguments::<(RemoteDomain, Option<String>, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    call.count_of(index);
    call.session.opening = Some(Opening::Echo);
    reply(&())
}

/// A picture in the colours of the VM's UUID.
fn screenshot(call: &mut Call<'_>) -> Outcome {
    let (domain, _screen, _flags) = call.arguments::<(RemoteDomain, u32, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    call.monitor(index)?;
    let colours = call.count_of(index).uuid;
    let mut picture = format!("P6\n{SIDE} {SIDE}\n255\n").into_bytes();
    picture.extend(colours.as_bytes().iter().cycle().take(SIDE * SIDE * 3));
    call.session.opening = Some(Opening::Picture(picture));
    reply(&Some("image/x-portable-pixmap"))
}
