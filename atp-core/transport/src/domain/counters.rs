//! The counters of a domain, as libvirt's statistics have them.

use std::collections::HashMap;
use std::time::Duration;

use super::{DomainInfo, DomainState, StateReason};

/// The most disks, and the most interfaces, that are read of one domain.
const MAX_DEVICES: u64 = 1024;

/// What a domain has used since it was started, and what it has now.
///
/// A value is missing where the driver does not know it, or was not asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainCounters {
    /// The domain: name, UUID, number, state and reason. vCPUs and memory are in it where they were answered.
    pub info: DomainInfo,
    /// Processor time of all its vCPUs and of QEMU.
    pub cpu_time: Option<Duration>,
    /// Memory of QEMU's process that is resident on the host, KiB.
    pub resident_kib: Option<u64>,
    /// Memory that the guest does not use at all, KiB. Guests report it only if the balloon's statistics have a period.
    pub unused_kib: Option<u64>,
    /// Memory that the guest could use without swapping, KiB. As of `unused_kib`.
    pub usable_kib: Option<u64>,
    /// The disks, in the order of the definition.
    pub disks: Vec<DiskCounters>,
    /// The network interfaces, in the order of the definition.
    pub interfaces: Vec<InterfaceCounters>,
}

impl DomainCounters {
    /// A domain whose counters are not known.
    pub(crate) fn of(info: DomainInfo) -> Self {
        DomainCounters {
            info,
            cpu_time: None,
            resident_kib: None,
            unused_kib: None,
            usable_kib: None,
            disks: Vec::new(),
            interfaces: Vec::new(),
        }
    }

    /// Whether anything is there that only QEMU knows.
    pub(crate) fn has_qemus(&self) -> bool {
        self.resident_kib.is_some() || self.disks.iter().any(|disk| disk.read_requests.is_some())
    }
}

/// The counters of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Its name in the guest's definition: `vda`.
    pub name: String,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Read requests.
    pub read_requests: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Write requests.
    pub write_requests: Option<u64>,
    /// Size as the guest sees it, bytes.
    pub capacity_bytes: Option<u64>,
    /// Bytes that it takes on the host.
    pub allocation_bytes: Option<u64>,
}

/// The counters of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Its name on the host: `vnet3`.
    pub name: String,
    /// Bytes received by the guest.
    pub rx_bytes: Option<u64>,
    /// Packets received by the guest.
    pub rx_packets: Option<u64>,
    /// Bytes sent by the guest.
    pub tx_bytes: Option<u64>,
    /// Packets sent by the guest.
    pub tx_packets: Option<u64>,
    /// Errors of both directions.
    pub errors: Option<u64>,
    /// Packets dropped, of both directions.
    pub drops: Option<u64>,
}

/// A value of libvirt's statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Figure {
    Number(u64),
    Text(String),
}

/// The values of one domain by their names in libvirt: `block.0.rd.bytes`.
#[derive(Debug, Default)]
pub(crate) struct Figures(pub(crate) HashMap<String, Figure>);

impl Figures {
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Figure::Number(number) => Some(*number),
            Figure::Text(_) => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Figure::Text(text) => Some(text),
            Figure::Number(_) => None,
        }
    }

    /// The state and the reason for it.
    pub(crate) fn state(&self) -> (DomainState, Option<StateReason>) {
        let state = self.number("state.state").and_then(|number| u32::try_from(number).ok());
        let state = state.map_or(DomainState::NoState, DomainState::from_number);
        let reason = self.number("state.reason").and_then(|number| i32::try_from(number).ok());
        (state, reason.and_then(|number| StateReason::from_number(state, number)))
    }

    /// The counters of this domain, of which only the identity is taken.
    pub(crate) fn counters(&self, domain: DomainInfo) -> DomainCounters {
        let (state, reason) = self.state();
        let number = |name: &str| self.number(name);
        let vcpus = number("vcpu.current").and_then(|count| u32::try_from(count).ok());
        DomainCounters {
            info: DomainInfo {
                state,
                reason,
                vcpus,
                memory_kib: number("balloon.current"),
                max_memory_kib: number("balloon.maximum"),
                ..domain
            },
            cpu_time: number("cpu.time").map(Duration::from_nanos),
            resident_kib: number("balloon.rss"),
            unused_kib: number("balloon.unused"),
            usable_kib: number("balloon.usable"),
            disks: self.devices("block").map(|at| self.disk(&at)).collect(),
            interfaces: self.devices("net").map(|at| self.interface(&at)).collect(),
        }
    }

    /// The beginnings of the names of each device's values: `block.0`.
    fn devices(&self, kind: &str) -> impl Iterator<Item = String> + use<> {
        let count = self.number(&format!("{kind}.count")).unwrap_or_default().min(MAX_DEVICES);
        let kind = kind.to_owned();
        (0..count).map(move |n| format!("{kind}.{n}"))
    }

    fn name(&self, at: &str) -> String {
        self.text(&format!("{at}.name")).unwrap_or_default().to_owned()
    }

    fn disk(&self, at: &str) -> DiskCounters {
        let number = |name: &str| self.number(&format!("{at}.{name}"));
        DiskCounters {
            name: self.name(at),
            read_bytes: number("rd.bytes"),
            read_requests: number("rd.reqs"),
            write_bytes: number("wr.bytes"),
            write_requests: number("wr.reqs"),
            capacity_bytes: number("capacity"),
            allocation_bytes: number("allocation"),
        }
    }

    fn interface(&self, at: &str) -> InterfaceCounters {
        let number = |name: &str| self.number(&format!("{at}.{name}"));
        let both = |name: &str| match (number(&format!("rx.{name}")), number(&format!("tx.{name}"))) {
            (None, None) => None,
            (rx, tx) => Some(rx.unwrap_or_default().saturating_add(tx.unwrap_or_default())),
        };
        InterfaceCounters {
            name: self.name(at),
            rx_bytes: number("rx.bytes"),
            rx_packets: number("rx.pkts"),
            tx_bytes: number("tx.bytes"),
            tx_packets: number("tx.pkts"),
            errors: both("errs"),
            drops: both("drop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(&str, Figure)]) -> Figures {
        Figures(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn libvirts_names_are_read() {
        use Figure::{Number, Text};
        let figures = figures(&[
            ("state.state", Number(1)),
            ("state.reason", Number(1)),
            ("cpu.time", Number(5)),
            ("balloon.current", Number(1024)),
            ("balloon.rss", Number(512)),
            ("vcpu.current", Number(2)),
            ("block.count", Number(1)),
            ("block.0.name", Text("vda".into())),
            ("block.0.rd.bytes", Number(7)),
            ("net.count", Number(1)),
            ("net.0.name", Text("vnet0".into())),
            ("net.0.tx.errs", Number(3)),
            // The wrong type of a value is no value.
            ("net.0.rx.bytes", Text("7".into())),
        ]);
        let counters = figures.counters(DomainInfo::new("vm", uuid::Uuid::nil(), DomainState::NoState));
        assert_eq!(counters.info.state_with_reason(), "running");
        assert_eq!((counters.info.vcpus, counters.info.memory_kib), (Some(2), Some(1024)));
        assert_eq!((counters.cpu_time, counters.resident_kib), (Some(Duration::from_nanos(5)), Some(512)));
        let disk = DiskCounters { name: "vda".into(), read_bytes: Some(7), ..DiskCounters::default() };
        assert_eq!(counters.disks, [disk]);
        let interface = InterfaceCounters { name: "vnet0".into(), errors: Some(3), ..Default::default() };
        assert_eq!(counters.interfaces, [interface]);
    }

    #[test]
    fn a_count_of_devices_is_no_reason_to_make_so_many() {
        let figures = figures(&[("block.count", Figure::Number(u64::MAX))]);
        let counters = figures.counters(DomainInfo::new("vm", uuid::Uuid::nil(), DomainState::NoState));
        assert_eq!(counters.disks.len() as u64, MAX_DEVICES);
    }
}
