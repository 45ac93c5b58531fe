//! What VMs use, as metrics. There are three to ten lines for each VM, so they are switched on by a number of VMs.

use std::fmt;

use atp_api::VmStatistics;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

/// The VMs that have metrics.
#[derive(Debug, Default)]
pub(crate) struct VmMetrics {
    vms: Vec<VmStatistics>,
    /// The number of VMs beyond the limit.
    left_out: usize,
}

/// A counter of VMs: its name, what it counts, its unit, and its value.
type Counter = (&'static str, &'static str, Option<Unit>, fn(&VmStatistics) -> Option<f64>);

/// Sums over all disks, and over all interfaces.
const COUNTERS: [Counter; 5] = [
    ("atp_vm_cpu", "Processor time", Some(Unit::Seconds), |vm| vm.cpu.time_ns.map(|ns| ns as f64 / 1e9)),
    ("atp_vm_disk_read", "Read from all disks", Some(Unit::Bytes), |vm| {
        sum(vm.disks.iter().map(|disk| disk.read_bytes))
    }),
    ("atp_vm_disk_written", "Written to all disks", Some(Unit::Bytes), |vm| {
        sum(vm.disks.iter().map(|disk| disk.write_bytes))
    }),
    ("atp_vm_network_received", "Received by all interfaces", Some(Unit::Bytes), |vm| {
        sum(vm.interfaces.iter().map(|one| one.rx_bytes))
    }),
    ("atp_vm_network_sent", "Sent by all interfaces", Some(Unit::Bytes), |vm| {
        sum(vm.interfaces.iter().map(|one| one.tx_bytes))
    }),
];

impl VmMetrics {
    /// The first of these VMs, at most so many.
    pub(crate) fn of(mut vms: Vec<VmStatistics>, most: usize) -> Self {
        let left_out = vms.len().saturating_sub(most);
        vms.truncate(most);
        VmMetrics { vms, left_out }
    }

    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let none: Option<&Exemplar<NoLabelSet, f64>> = None;
        for (name, help, unit, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for vm in &self.vms {
                if let Some(value) = value(vm) {
                    metric.encode_family(&labels(vm))?.encode_counter(&value, none)?;
                }
            }
        }
        let (help, unit) = ("Memory of the VM on its host", Some(&Unit::Bytes));
        let mut metric = encoder.encode_descriptor("atp_vm_memory", help, unit, MetricType::Gauge)?;
        for vm in self.vms.iter().filter(|vm| vm.state.is_active()) {
            if let Some(kib) = vm.memory.resident_kib.or(vm.memory.current_kib) {
                let bytes = i64::try_from(kib.saturating_mul(1024)).unwrap_or(i64::MAX);
                metric.encode_family(&labels(vm))?.encode_gauge(&bytes)?;
            }
        }
        let help = "Whether the values are old, because the VM or its host does not answer";
        let mut metric = encoder.encode_descriptor("atp_vm_stale", help, None, MetricType::Gauge)?;
        for vm in &self.vms {
            metric.encode_family(&labels(vm))?.encode_gauge(&i64::from(vm.stale.is_some()))?;
        }
        let help = "VMs without metrics, as there are more than serve.vm_metrics";
        let mut metric = encoder.encode_descriptor("atp_vm_left_out", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&i64::try_from(self.left_out).unwrap_or(i64::MAX))
    }
}

fn labels(vm: &VmStatistics) -> [(&'static str, &str); 2] {
    [("host", vm.host.as_str()), ("vm", vm.vm.as_str())]
}

fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<f64> {
    values.flatten().fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value as f64))
}
