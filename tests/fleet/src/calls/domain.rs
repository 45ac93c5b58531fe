//! Calls that find VMs, and read and write what libvirt knows of them. None waits for QEMU.

use std::time::Duration;

use atp_rpc::RemoteDomain;
use atp_rpc::message::{Parameter, Parameters, Value};
use atp_rpc::numbers::procedure;
use atp_rpc::stats::{DomainStats, flag, group};
use atp_rpc::xdr::{FromXdr, Reader, Result as XdrResult, ToXdr, Writer};
use uuid::Uuid;

use super::{Call, Entry, reply};
use crate::event::EventKind;
use crate::host::Outcome;
use crate::options::MAX_VMS;
use crate::refusal;
use crate::vm::{MEMORY_KIB, VCPUS, Vm, state};
use crate::xml;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::CONNECT_LIST_ALL_DOMAINS, list).quick(),
    Entry::new(procedure::CONNECT_GET_ALL_DOMAIN_STATS, all_stats),
    Entry::new(procedure::DOMAIN_LOOKUP_BY_ID, by_id).quick(),
    Entry::new(procedure::DOMAIN_LOOKUP_BY_NAME, by_name).quick(),
    Entry::new(procedure::DOMAIN_LOOKUP_BY_UUID, by_uuid).quick(),
    Entry::new(procedure::DOMAIN_GET_OS_TYPE, |call| look(call, |_| "hvm")).quick(),
    Entry::new(procedure::DOMAIN_GET_XML_DESC, xml_desc),
    Entry::new(procedure::DOMAIN_GET_AUTOSTART, |call| look(call, |vm| i32::from(vm.autostart))).quick(),
    Entry::new(procedure::DOMAIN_SET_AUTOSTART, set_autostart).quick().writes(),
    Entry::new(procedure::DOMAIN_GET_INFO, info),
    Entry::new(procedure::DOMAIN_IS_ACTIVE, |call| look(call, |vm| i32::from(vm.is_active()))).quick(),
    Entry::new(procedure::DOMAIN_IS_PERSISTENT, |call| look(call, |_| 1)).quick(),
    Entry::new(procedure::DOMAIN_GET_STATE, get_state).quick(),
    Entry::new(procedure::DOMAIN_GET_CONTROL_INFO, control_info).quick(),
    Entry::new(procedure::DOMAIN_GET_METADATA, metadata),
    Entry::new(procedure::DOMAIN_SET_METADATA, set_metadata).writes(),
];

/// A list with its length before it.
struct List<T>(Vec<T>);

impl<T: ToXdr> ToXdr for List<T> {
    fn write(&self, to: &mut Writer) -> XdrResult<()> {
        to.list("a list of domains", &self.0, MAX_VMS as usize)
    }
}

impl<T: FromXdr> FromXdr for List<T> {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> XdrResult<Self> {
        Ok(List(from.list("a list of domains", MAX_VMS as usize)?))
    }
}

/// Whether a VM is meant by the flags of a listing (`virConnectListAllDomainsFlags`): each group of flags that has any
/// set has to have one that fits.
fn is_meant(vm: &Vm, flags: u32) -> bool {
    let groups = [
        [(1, vm.is_active()), (2, !vm.is_active()), (0, false), (0, false)],
        [(4, true), (8, false), (0, false), (0, false)],
        [
            (16, vm.state.number == state::RUNNING),
            (32, vm.state.number == state::PAUSED),
            (64, vm.state.number == state::SHUT_OFF),
            (128, false),
        ],
        [(256, vm.is_saved), (512, !vm.is_saved), (0, false), (0, false)],
        [(1024, vm.autostart), (2048, !vm.autostart), (0, false), (0, false)],
    ];
    groups.iter().all(|group| {
        let mut asked = group.iter().filter(|(flag, _)| flags & flag != 0).peekable();
        asked.peek().is_none() || asked.any(|(_, fits)| *fits)
    })
}

fn list(call: &mut Call<'_>) -> Outcome {
    let (need_results, flags) = call.arguments::<(i32, u32)>()?;
    call.count();
    let domains: Vec<RemoteDomain> =
        call.state.vms.iter().filter(|vm| is_meant(vm, flags)).map(Vm::domain).collect();
    let count = domains.len() as u32;
    reply(&(List(if need_results == 0 { Vec::new() } else { domains }), count))
}

fn all_stats(call: &mut Call<'_>) -> Outcome {
    let (List(domains), groups, flags) = call.arguments::<(List<RemoteDomain>, u32, u32)>()?;
    let groups = if groups == 0 { u32::MAX } else { groups };
    let meant: Vec<usize> = if domains.is_empty() {
        (0..call.state.vms.len()).filter(|index| is_meant(&call.state.vms[*index], flags)).collect()
    } else {
        domains.iter().filter_map(|domain| call.state.index_of(domain.uuid)).collect()
    };
    let asks_qemu = groups & (group::CPU | group::BALLOON | group::VCPU | group::BLOCK) != 0;
    let mut answering = Vec::with_capacity(meant.len());
    for &index in &meant {
        let vm = &call.state.vms[index];
        // With the flag, a monitor that is occupied by another call is left alone.
        let is_left_alone = flags & flag::NOWAIT != 0 && vm.occupied.monitor.is_some() && !call.occupies;
        let is_asked = asks_qemu && vm.is_active() && !is_left_alone;
        if is_asked {
            call.monitor(index)?;
        }
        answering.push(is_asked);
    }
    call.count();
    let now = call.now;
    let stats = meant.iter().zip(answering).map(|(&index, answers)| {
        let vm = &call.state.vms[index];
        DomainStats { domain: vm.domain(), values: statistics(vm, groups, now - vm.started, answers) }
    });
    reply(&List(stats.collect()))
}

/// The values of a VM; those of QEMU if it `answers`.
fn statistics(vm: &Vm, groups: u32, up: Duration, answers: bool) -> Parameters {
    let mut values = Vec::new();
    let mut add = |name: &str, value| values.push(Parameter { name: name.to_owned(), value });
    if groups & group::STATE != 0 {
        add("state.state", Value::Int(vm.state.number));
        add("state.reason", Value::Int(vm.state.reason));
    }
    if groups & group::CPU != 0 && vm.is_active() {
        add("cpu.time", Value::ULong(cpu_time(up)));
    }
    if groups & group::BALLOON != 0 {
        add("balloon.current", Value::ULong(MEMORY_KIB));
        add("balloon.maximum", Value::ULong(MEMORY_KIB));
        if answers {
            add("balloon.rss", Value::ULong(MEMORY_KIB / 2));
        }
    }
    if groups & group::VCPU != 0 {
        add("vcpu.current", Value::UInt(VCPUS));
        add("vcpu.maximum", Value::UInt(VCPUS));
    }
    let ms = u64::try_from(up.as_millis()).unwrap_or(u64::MAX);
    if groups & group::INTERFACE != 0 && vm.is_active() {
        add("net.count", Value::UInt(1));
        add("net.0.name", Value::Text("vnet0".to_owned()));
        add("net.0.rx.bytes", Value::ULong(ms.saturating_mul(RX_BYTES)));
        add("net.0.tx.bytes", Value::ULong(ms.saturating_mul(TX_BYTES)));
    }
    if groups & group::BLOCK != 0 {
        add("block.count", Value::UInt(1));
        add("block.0.name", Value::Text("vda".to_owned()));
        if answers {
            add("block.0.rd.reqs", Value::ULong(ms));
            add("block.0.rd.bytes", Value::ULong(ms.saturating_mul(READ_BYTES)));
            add("block.0.wr.reqs", Value::ULong(ms / 2));
            add("block.0.wr.bytes", Value::ULong(ms.saturating_mul(WRITE_BYTES)));
        }
    }
    Parameters(values)
}

/// Bytes that each VM receives, sends, reads and writes in a millisecond.
const RX_BYTES: u64 = 3;
const TX_BYTES: u64 = 2;
const READ_BYTES: u64 = 4096;
const WRITE_BYTES: u64 = 512;

/// A processor is busy for a tenth of the time.
fn cpu_time(up: Duration) -> u64 {
    u64::try_from(up.as_nanos() / 10).unwrap_or(u64::MAX)
}

fn by_id(call: &mut Call<'_>) -> Outcome {
    let id = call.arguments::<i32>()?;
    call.count();
    let found = call.state.vms.iter().find(|vm| vm.is_active() && vm.domain().id == id);
    reply(&found.ok_or_else(|| refusal::no_domain(&format!("id {id}")))?.domain())
}

fn by_name(call: &mut Call<'_>) -> Outcome {
    let name = call.arguments::<String>()?;
    call.count();
    let found = call.state.vms.iter().find(|vm| vm.name == name);
    reply(&found.ok_or_else(|| refusal::no_domain(&format!("name '{name}'")))?.domain())
}

fn by_uuid(call: &mut Call<'_>) -> Outcome {
    let uuid = call.arguments::<Uuid>()?;
    call.count();
    let index = call.index(&RemoteDomain::of(uuid))?;
    reply(&call.state.vms[index].domain())
}

/// A call that takes a domain only and looks at it.
fn look<T: ToXdr>(call: &mut Call<'_>, value: impl FnOnce(&Vm) -> T) -> Outcome {
    let domain = call.arguments::<RemoteDomain>()?;
    let index = call.index(&domain)?;
    reply(&value(call.count_of(index)))
}

fn xml_desc(call: &mut Call<'_>) -> Outcome {
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = call.index(&domain)?;
    if call.host.options.asks_qemu_for_definitions && call.state.vms[index].is_active() {
        call.monitor(index)?;
    }
    reply(&xml::definition(call.count_of(index)))
}

fn set_autostart(call: &mut Call<'_>) -> Outcome {
    let (domain, autostart) = call.arguments::<(RemoteDomain, i32)>()?;
    let index = call.index(&domain)?;
    call.count_of(index).autostart = autostart != 0;
    reply(&())
}

fn info(call: &mut Call<'_>) -> Outcome {
    let now = call.now;
    look(call, |vm| {
        let up = if vm.is_active() { now - vm.started } else { Duration::ZERO };
        (vm.state.number, MEMORY_KIB, MEMORY_KIB, VCPUS, cpu_time(up))
    })
}

fn get_state(call: &mut Call<'_>) -> Outcome {
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = call.index(&domain)?;
    let state = call.count_of(index).state;
    reply(&(state.number, state.reason))
}

/// For how long a command has been waiting for QEMU. libvirt does not report commands that wait for the agent.
fn control_info(call: &mut Call<'_>) -> Outcome {
    const OCCUPIED: u32 = 2;
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    let now = call.now;
    let since = call.count_of(index).occupied.monitor;
    let millis = |since: tokio::time::Instant| u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
    reply(&since.map_or((0, 0u32, 0), |since| (OCCUPIED, 0, millis(since))))
}

/// Kinds of metadata (`virDomainMetadataType`).
const DESCRIPTION: i32 = 0;
const TITLE: i32 = 1;
const ELEMENT: i32 = 2;

fn metadata(call: &mut Call<'_>) -> Outcome {
    let (domain, kind, namespace, _flags) = call.arguments::<(RemoteDomain, i32, Option<String>, u32)>()?;
    let index = call.index(&domain)?;
    let vm = call.count_of(index);
    let found = match kind {
        DESCRIPTION => vm.description.as_ref(),
        TITLE => vm.title.as_ref(),
        ELEMENT => vm.metadata.get(&namespace.unwrap_or_default()),
        _ => return Err(refusal::unsupported_argument("unknown metadata type").into()),
    };
    reply(found.ok_or_else(refusal::no_metadata)?)
}

fn set_metadata(call: &mut Call<'_>) -> Outcome {
    type Arguments = (RemoteDomain, i32, Option<String>, Option<String>, Option<String>, u32);
    let (domain, kind, content, _prefix, namespace, _flags) = call.arguments::<Arguments>()?;
    let index = call.index(&domain)?;
    call.change(index, |vm| {
        match (kind, namespace.clone()) {
            (DESCRIPTION, _) => vm.description = content,
            (TITLE, _) => vm.title = content,
            (ELEMENT, Some(namespace)) => match content {
                Some(content) => drop(vm.metadata.insert(namespace, content)),
                None => drop(vm.metadata.remove(&namespace)),
            },
            _ => return Err(refusal::unsupported_argument("unknown metadata type")),
        }
        Ok(vec![EventKind::Metadata { kind, namespace }])
    })?;
    reply(&())
}
