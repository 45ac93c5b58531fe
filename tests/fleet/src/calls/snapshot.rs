//! Calls about snapshots, and about memory that is saved.

use atp_rpc::numbers::procedure;
use atp_rpc::snapshot::MAX_SNAPSHOTS;
use atp_rpc::xdr::{Result as XdrResult, ToXdr, Writer};
use atp_rpc::{RemoteDomain, RemoteSnapshot};

use super::{Call, Entry, reply};
use crate::host::Outcome;
use crate::refusal;
use crate::vm::Vm;
use crate::xml;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::DOMAIN_MANAGED_SAVE, save).writes(),
    Entry::new(procedure::DOMAIN_HAS_MANAGED_SAVE_IMAGE, is_saved),
    Entry::new(procedure::DOMAIN_LIST_ALL_SNAPSHOTS, list).quick(),
    Entry::new(procedure::DOMAIN_SNAPSHOT_GET_XML_DESC, describe).quick(),
    Entry::new(procedure::DOMAIN_SNAPSHOT_CURRENT, current),
    Entry::new(procedure::DOMAIN_SNAPSHOT_CREATE_XML, create).writes(),
    Entry::new(procedure::DOMAIN_REVERT_TO_SNAPSHOT, revert).writes(),
    Entry::new(procedure::DOMAIN_SNAPSHOT_DELETE, delete).writes(),
];

struct List(Vec<RemoteSnapshot>);

impl ToXdr for List {
    fn write(&self, to: &mut Writer) -> XdrResult<()> {
        to.list("a list of snapshots", &self.0, MAX_SNAPSHOTS)?;
        (self.0.len() as i32).write(to)
    }
}

fn save(call: &mut Call<'_>) -> Outcome {
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    call.monitor(index)?;
    call.change(index, Vm::save)?;
    reply(&())
}

fn is_saved(call: &mut Call<'_>) -> Outcome {
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = call.index(&domain)?;
    reply(&i32::from(call.count_of(index).is_saved))
}

fn list(call: &mut Call<'_>) -> Outcome {
    let (domain, _need_results, _flags) = call.arguments::<(RemoteDomain, i32, u32)>()?;
    let index = call.index(&domain)?;
    let vm = call.count_of(index);
    let of = |name: &String| RemoteSnapshot { name: name.clone(), domain: vm.domain() };
    reply(&List(vm.snapshots.iter().map(|snapshot| of(&snapshot.name)).collect()))
}

fn describe(call: &mut Call<'_>) -> Outcome {
    let (RemoteSnapshot { name, domain }, _flags) = call.arguments::<(RemoteSnapshot, u32)>()?;
    let index = call.index(&domain)?;
    let found = call.count_of(index).snapshots.iter().find(|snapshot| snapshot.name == name);
    reply(&xml::snapshot(found.ok_or_else(|| refusal::no_snapshot(&name))?))
}

fn current(call: &mut Call<'_>) -> Outcome {
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = call.index(&domain)?;
    let vm = call.count_of(index);
    let name = vm.current.clone().ok_or_else(|| refusal::no_snapshot(""))?;
    reply(&RemoteSnapshot { name, domain: vm.domain() })
}

fn create(call: &mut Call<'_>) -> Outcome {
    let (domain, xml, _flags) = call.arguments::<(RemoteDomain, String, u32)>()?;
    let index = call.index(&domain)?;
    let name =
        xml::snapshot_name(&xml).ok_or_else(|| refusal::unsupported_argument("a snapshot without a name"))?;
    waits_for_qemu(call, index)?;
    call.change(index, |vm| vm.snapshot(name.clone()))?;
    let domain = call.state.vms[index].domain();
    reply(&RemoteSnapshot { name, domain })
}

fn revert(call: &mut Call<'_>) -> Outcome {
    let (RemoteSnapshot { name, domain }, _flags) = call.arguments::<(RemoteSnapshot, u32)>()?;
    let index = call.index(&domain)?;
    waits_for_qemu(call, index)?;
    let (id, now) = (call.state.next_id, call.now);
    call.change(index, |vm| vm.revert(&name, id, now))?;
    call.state.next_id += 1;
    reply(&())
}

fn delete(call: &mut Call<'_>) -> Outcome {
    let (RemoteSnapshot { name, domain }, _flags) = call.arguments::<(RemoteSnapshot, u32)>()?;
    let index = call.index(&domain)?;
    waits_for_qemu(call, index)?;
    call.change(index, |vm| vm.delete_snapshot(&name))?;
    reply(&())
}

/// The monitor of a VM that is on.
fn waits_for_qemu(call: &mut Call<'_>, index: usize) -> Result<(), crate::host::Stop> {
    if call.state.vms[index].is_active() { call.monitor(index) } else { Ok(()) }
}
