//! The XML documents that a daemon gives.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::faults::VmFault;
use crate::vm::{MEMORY_KIB, Snapshot, VCPUS, Vm, state};

pub(crate) fn capabilities(host: Uuid) -> String {
    format!(
        "<capabilities>\n  <host>\n    <uuid>{host}</uuid>\n    <cpu>\n      <arch>x86_64</arch>\n    </cpu>\n  </host>\n  \
         <guest>\n    <os_type>hvm</os_type>\n    <arch name='x86_64'>\n      <wordsize>64</wordsize>\n      \
         <domain type='kvm'/>\n    </arch>\n  </guest>\n</capabilities>\n"
    )
}

pub(crate) fn definition(vm: &Vm) -> String {
    let mut xml = String::from("<domain type='kvm'");
    // Writing to a string does not fail.
    let mut write = |text: std::fmt::Arguments<'_>| {
        let _written = xml.write_fmt(text);
    };
    let domain = vm.domain();
    if vm.is_active() {
        write(format_args!(" id='{}'", domain.id));
    }
    write(format_args!(">\n  <name>{}</name>\n  <uuid>{}</uuid>\n", domain.name, domain.uuid));
    for (element, text) in [("title", &vm.title), ("description", &vm.description)] {
        if let Some(text) = text {
            write(format_args!("  <{element}>{}</{element}>\n", escape(text)));
        }
    }
    if !vm.metadata.is_empty() {
        write(format_args!("  <metadata>\n"));
        for element in vm.metadata.values() {
            write(format_args!("    {element}\n"));
        }
        write(format_args!("  </metadata>\n"));
    }
    let state = match (vm.is_active(), vm.fault) {
        (false, _) => "",
        (true, Some(VmFault::AgentAbsent)) => " state='disconnected'",
        (true, _) => " state='connected'",
    };
    write(format_args!(
        "  <memory unit='KiB'>{MEMORY_KIB}</memory>\n  <currentMemory unit='KiB'>{MEMORY_KIB}</currentMemory>\n  \
         <vcpu placement='static'>{VCPUS}</vcpu>\n  <os>\n    <type arch='x86_64'>hvm</type>\n  </os>\n  <devices>\n    \
         <disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2'/>\n      \
         <source file='/images/disk.qcow2'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n    \
         <channel type='unix'>\n      <target type='virtio' name='org.qemu.guest_agent.0'{state}/>\n    </channel>\n  \
         </devices>\n</domain>\n"
    ));
    xml
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> String {
    let state = match snapshot.state.number {
        state::RUNNING => "running",
        state::PAUSED => "paused",
        _ => "shutoff",
    };
    let memory = if state == "shutoff" { "no" } else { "internal" };
    let parent = snapshot.parent.as_deref();
    let parent = parent.map(|name| format!("  <parent>\n    <name>{}</name>\n  </parent>\n", escape(name)));
    format!(
        "<domainsnapshot>\n  <name>{}</name>\n  <state>{state}</state>\n{}  <creationTime>1700000000</creationTime>\n  \
         <memory snapshot='{memory}'/>\n</domainsnapshot>\n",
        escape(&snapshot.name),
        parent.unwrap_or_default(),
    )
}

/// The name in the description of a snapshot to make.
pub(crate) fn snapshot_name(xml: &str) -> Option<String> {
    let (_, rest) = xml.split_once("<name>")?;
    let (name, _) = rest.split_once("</name>")?;
    Some(name.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
