//! The XML documents that a daemon gives.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::faults::VmFault;
use crate::vm::{MEMORY_KIB, VCPUS, Vm};

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
         <channel type='unix'>\n      <target type='virtio' name='org.qemu.guest_agent.0'{state}/>\n    </channel>\n  \
         </devices>\n</domain>\n"
    ));
    xml
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
