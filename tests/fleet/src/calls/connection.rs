//! Calls about the connection and the host.

use atp_rpc::numbers::procedure;

use super::{Call, Entry, reply};
use crate::host::Outcome;
use crate::vm::{MEMORY_KIB, VCPUS};
use crate::xml;

/// The reported versions of libvirt and QEMU: 9.0.0 and 7.2.0.
const LIBVIRT: u64 = 9_000_000;
const QEMU: u64 = 7_002_000;

/// OPEN's flag for reading only.
const READ_ONLY: u32 = 1;

/// Features (`virDrvFeature`): strings in typed parameters, keepalive, events with the number of their registration, the
/// notice of a lost hypervisor.
const FEATURES: [i32; 4] = [4, KEEPALIVE, 14, 15];
const KEEPALIVE: i32 = 10;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::AUTH_LIST, auth_list).quick(),
    Entry::new(procedure::CONNECT_OPEN, open).quick(),
    Entry::new(procedure::CONNECT_CLOSE, close).quick(),
    Entry::new(procedure::CONNECT_SUPPORTS_FEATURE, feature).quick(),
    Entry::new(procedure::CLOSE_REGISTER, nothing),
    Entry::new(procedure::CLOSE_DEREGISTER, nothing),
    Entry::new(procedure::CONNECT_GET_TYPE, |call| text(call, "QEMU")).quick(),
    Entry::new(procedure::CONNECT_GET_URI, |call| text(call, "qemu:///system")).quick(),
    Entry::new(procedure::CONNECT_GET_VERSION, |call| number(call, QEMU)).quick(),
    Entry::new(procedure::CONNECT_GET_LIB_VERSION, |call| number(call, LIBVIRT)).quick(),
    Entry::new(procedure::CONNECT_GET_HOSTNAME, |call| {
        let host = call.host;
        text(call, &host.name)
    })
    .quick(),
    Entry::new(procedure::CONNECT_GET_CAPABILITIES, |call| {
        let host = call.host;
        text(call, &xml::capabilities(host.uuid))
    }),
    Entry::new(procedure::NODE_GET_INFO, node_info).quick(),
    Entry::new(procedure::NODE_GET_FREE_MEMORY, |call| number(call, MEMORY_KIB * 1_024)).quick(),
];

/// One method: none.
fn auth_list(call: &mut Call<'_>) -> Outcome {
    call.arguments::<()>()?;
    reply(&(1u32, 0u32))
}

fn open(call: &mut Call<'_>) -> Outcome {
    let (_name, flags) = call.arguments::<(Option<String>, u32)>()?;
    call.session.is_open = true;
    call.session.is_read_only = flags & READ_ONLY != 0;
    call.count();
    reply(&())
}

fn close(call: &mut Call<'_>) -> Outcome {
    call.session.is_closed = true;
    nothing(call)
}

fn feature(call: &mut Call<'_>) -> Outcome {
    let feature = call.arguments::<i32>()?;
    if feature != KEEPALIVE && !call.session.is_open {
        return Err(crate::refusal::not_open().into());
    }
    call.session.wants_pings |= feature == KEEPALIVE;
    reply(&i32::from(FEATURES.contains(&feature)))
}

fn nothing(call: &mut Call<'_>) -> Outcome {
    call.arguments::<()>()?;
    call.count();
    reply(&())
}

fn text(call: &mut Call<'_>, text: &str) -> Outcome {
    call.arguments::<()>()?;
    call.count();
    reply(&text)
}

fn number(call: &mut Call<'_>, number: u64) -> Outcome {
    call.arguments::<()>()?;
    call.count();
    reply(&number)
}

fn node_info(call: &mut Call<'_>) -> Outcome {
    call.arguments::<()>()?;
    call.count();
    // The model: 32 characters, each a word.
    let mut model = [0i32; 32];
    for (place, byte) in model.iter_mut().zip(b"simulated") {
        *place = i32::from(*byte);
    }
    let memory = MEMORY_KIB * u64::from(call.host.options.vms + 1);
    let cpus = VCPUS.cast_signed();
    let processors = ((cpus, 2_000i32, 1i32), (1i32, cpus, 1i32));
    reply(&(Words(&model), memory, processors))
}

struct Words<'a>(&'a [i32]);

impl atp_rpc::xdr::ToXdr for Words<'_> {
    fn write(&self, to: &mut atp_rpc::xdr::Writer) -> atp_rpc::xdr::Result<()> {
        self.0.iter().try_for_each(|word| word.write(to))
    }
}
