//! Calls that open streams.

use atp_rpc::RemoteDomain;
use atp_rpc::numbers::procedure;

use super::{Call, Entry, reply};
use crate::host::Outcome;
use crate::session::Opening;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::DOMAIN_OPEN_CONSOLE, console).writes(),
    Entry::new(procedure::DOMAIN_OPEN_CHANNEL, channel).writes(),
    Entry::new(procedure::DOMAIN_SCREENSHOT, screenshot).writes(),
];

/// Width and height of a picture, pixels.
const SIDE: usize = 16;

/// What listens behind a console, whatever its alias: it greets with the name of its VM, and sends back what it gets.
fn console(call: &mut Call<'_>) -> Outcome {
    echo(call, |vm| format!("Debian GNU/Linux {vm} ttyS0\r\n\r\n{vm} login: \r\n").into_bytes())
}

/// What listens behind a channel, whatever its name: it sends back what it gets.
fn channel(call: &mut Call<'_>) -> Outcome {
    echo(call, |_| Vec::new())
}

fn echo(call: &mut Call<'_>, greeting: impl FnOnce(&str) -> Vec<u8>) -> Outcome {
    let (domain, _name, _flags) = call.arguments::<(RemoteDomain, Option<String>, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    let greeting = greeting(&call.count_of(index).name);
    call.session.opening = Some(Opening::Echo(greeting));
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
