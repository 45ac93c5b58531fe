//! Statistics from two samples.

use std::time::Duration;

use atp_api::{CpuUse, DiskUse, HostId, InterfaceUse, MemoryUse, VmStatistics};
use atp_transport::domain::{DiskCounters, DomainCounters, InterfaceCounters};
use tokio::time::Instant;

/// Counters at a time.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) counters: DomainCounters,
}

/// The statistics of a VM: of what libvirt counts and of what QEMU counts, each with the sample before.
pub(super) fn statistics(
    host: &HostId,
    (quick_before, quick): (Option<&Sample>, &Sample),
    (qemu_before, qemu): (Option<&Sample>, Option<&Sample>),
) -> VmStatistics {
    let info = &quick.counters.info;
    let of_qemu = qemu.map(|sample| &sample.counters);
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let time_ns = quick.counters.cpu_time.map(nanos);
    let time_before = quick_before.and_then(|before| before.counters.cpu_time).map(nanos);
    let since = quick_before.map(|before| quick.at - before.at);
    let percent = per_second(time_before, time_ns, since).map(|per_second| per_second / 1e7);
    let qemus = |value: fn(&atp_transport::domain::DomainInfo) -> Option<u64>| {
        of_qemu.and_then(|counters| value(&counters.info)).or_else(|| value(info))
    };
    VmStatistics {
        host: host.clone(),
        vm: info.name.clone(),
        uuid: info.uuid,
        state: info.state,
        reason: info.reason,
        stale: None,
        cpu: CpuUse {
            vcpus: of_qemu.and_then(|counters| counters.info.vcpus).or(info.vcpus),
            time_ns,
            percent,
        },
        memory: MemoryUse {
            current_kib: qemus(|info| info.memory_kib),
            maximum_kib: qemus(|info| info.max_memory_kib),
            resident_kib: of_qemu.and_then(|counters| counters.resident_kib),
            unused_kib: of_qemu.and_then(|counters| counters.unused_kib),
            usable_kib: of_qemu.and_then(|counters| counters.usable_kib),
        },
        disks: disks(qemu_before, qemu),
        interfaces: interfaces(quick_before, quick),
    }
}

fn disks(before: Option<&Sample>, now: Option<&Sample>) -> Vec<DiskUse> {
    let Some(now) = now else { return Vec::new() };
    let since = before.map(|before| now.at - before.at);
    let none = DiskCounters::default();
    let one = |disk: &DiskCounters| {
        let before = before.and_then(|sample| sample.counters.disks.iter().find(|old| old.name == disk.name));
        let old = before.unwrap_or(&none);
        let disk = disk.clone();
        DiskUse {
            read_bytes_per_second: per_second(old.read_bytes, disk.read_bytes, since),
            write_bytes_per_second: per_second(old.write_bytes, disk.write_bytes, since),
            read_requests_per_second: per_second(old.read_requests, disk.read_requests, since),
            write_requests_per_second: per_second(old.write_requests, disk.write_requests, since),
            name: disk.name,
            read_bytes: disk.read_bytes,
            write_bytes: disk.write_bytes,
            read_requests: disk.read_requests,
            write_requests: disk.write_requests,
            capacity_bytes: disk.capacity_bytes,
            allocation_bytes: disk.allocation_bytes,
        }
    };
    now.counters.disks.iter().map(one).collect()
}

fn interfaces(before: Option<&Sample>, now: &Sample) -> Vec<InterfaceUse> {
    let since = before.map(|before| now.at - before.at);
    let none = InterfaceCounters::default();
    let one = |interface: &InterfaceCounters| {
        let mut olds = before.iter().flat_map(|sample| &sample.counters.interfaces);
        let old = olds.find(|old| old.name == interface.name).unwrap_or(&none);
        let interface = interface.clone();
        InterfaceUse {
            rx_bytes_per_second: per_second(old.rx_bytes, interface.rx_bytes, since),
            tx_bytes_per_second: per_second(old.tx_bytes, interface.tx_bytes, since),
            name: interface.name,
            rx_bytes: interface.rx_bytes,
            tx_bytes: interface.tx_bytes,
            rx_packets: interface.rx_packets,
            tx_packets: interface.tx_packets,
            errors: interface.errors,
            drops: interface.drops,
        }
    };
    now.counters.interfaces.iter().map(one).collect()
}

/// By how much a counter grew in a second; none where it did not count on, or no time has passed.
fn per_second(before: Option<u64>, now: Option<u64>, since: Option<Duration>) -> Option<f64> {
    let seconds = since.map(|since| since.as_secs_f64()).filter(|seconds| *seconds > 0.0)?;
    let grown = now?.checked_sub(before?)?;
    Some(grown as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_values_and_time_between() {
        let second = Some(Duration::from_secs(2));
        assert_eq!(per_second(Some(10), Some(30), second), Some(10.0));
        for (before, now, since) in [
            (None, Some(30), second),
            (Some(10), None, second),
            (Some(10), Some(30), None),
            (Some(10), Some(30), Some(Duration::ZERO)),
            // It began anew.
            (Some(30), Some(10), second),
        ] {
            assert_eq!(per_second(before, now, since), None, "{before:?} {now:?} {since:?}");
        }
    }
}
