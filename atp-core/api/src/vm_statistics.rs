//! What VMs use: processor, memory, disks, network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{DomainState, StateReason};
use crate::error::OutcomeError;
use crate::host_id::HostId;

/// The statistics of all selected VMs at about one time. Each VM is in it once, fresh or stale.
///
/// Counters begin when a VM is started. Rates are per second, over the time since the sample before; they are missing in the
/// first sample of a VM, and after it was started anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatisticsRound {
    /// When it was begun, milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// The hosts, sorted by id.
    pub hosts: Vec<HostStatistics>,
    /// The VMs, sorted by host and name.
    pub vms: Vec<VmStatistics>,
}

/// A host in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatistics {
    /// The host.
    pub host: HostId,
    /// Since when it has not answered; none if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Staleness>,
}

/// A VM in a round. A value is missing where the host does not know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmStatistics {
    /// The host.
    pub host: HostId,
    /// The name.
    pub vm: String,
    /// The identity.
    pub uuid: Uuid,
    /// The state.
    pub state: DomainState,
    /// The reason for the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<StateReason>,
    /// Why values are old; none if all are of this round. Of a VM whose QEMU hangs, memory and disks are as they were; processor
    /// time and network are of this round if the host answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Staleness>,
    /// The processor.
    pub cpu: CpuUse,
    /// Memory.
    pub memory: MemoryUse,
    /// The disks, in the order of the definition.
    pub disks: Vec<DiskUse>,
    /// The network interfaces, in the order of the definition.
    pub interfaces: Vec<InterfaceUse>,
}

/// Why values are old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Staleness {
    /// How long ago all were answered for the last time, milliseconds; none if they never were.
    pub for_ms: Option<u64>,
    /// Why no new values came.
    pub error: OutcomeError,
}

/// Use of processors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CpuUse {
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Processor time of the vCPUs and of QEMU, nanoseconds.
    pub time_ns: Option<u64>,
    /// Processor time in the time, percent: 100 is one processor.
    pub percent: Option<f64>,
}

/// Use of memory, KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryUse {
    /// What the guest has.
    pub current_kib: Option<u64>,
    /// What it can have at most.
    pub maximum_kib: Option<u64>,
    /// What QEMU's process has on the host.
    pub resident_kib: Option<u64>,
    /// What the guest does not use. Guests report it only if the statistics of the balloon have a period.
    pub unused_kib: Option<u64>,
    /// What the guest could use without swapping; as of `unused_kib`.
    pub usable_kib: Option<u64>,
}

/// Use of a disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskUse {
    /// The name in the definition: `vda`.
    pub name: String,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Read requests.
    pub read_requests: Option<u64>,
    /// Write requests.
    pub write_requests: Option<u64>,
    /// Bytes read per second.
    pub read_bytes_per_second: Option<f64>,
    /// Bytes written per second.
    pub write_bytes_per_second: Option<f64>,
    /// Read requests per second.
    pub read_requests_per_second: Option<f64>,
    /// Write requests per second.
    pub write_requests_per_second: Option<f64>,
    /// Size as the guest sees it, bytes.
    pub capacity_bytes: Option<u64>,
    /// Bytes that it takes on the host.
    pub allocation_bytes: Option<u64>,
}

/// Use of a network interface. Directions are the guest's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceUse {
    /// The name on the host: `vnet3`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: Option<u64>,
    /// Bytes sent.
    pub tx_bytes: Option<u64>,
    /// Packets received.
    pub rx_packets: Option<u64>,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Errors of both directions.
    pub errors: Option<u64>,
    /// Packets dropped, of both directions.
    pub drops: Option<u64>,
    /// Bytes received per second.
    pub rx_bytes_per_second: Option<f64>,
    /// Bytes sent per second.
    pub tx_bytes_per_second: Option<f64>,
}

impl VmStatistics {
    /// Bytes that all disks read and write in a second; none if no disk has a rate.
    pub fn disk_rates(&self) -> (Option<f64>, Option<f64>) {
        let disks = || self.disks.iter();
        (
            sum(disks().map(|disk| disk.read_bytes_per_second)),
            sum(disks().map(|disk| disk.write_bytes_per_second)),
        )
    }

    /// Bytes that all interfaces receive and send in a second; none if no interface has a rate.
    pub fn network_rates(&self) -> (Option<f64>, Option<f64>) {
        let all = || self.interfaces.iter();
        (sum(all().map(|one| one.rx_bytes_per_second)), sum(all().map(|one| one.tx_bytes_per_second)))
    }
}

fn sum(rates: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    rates.flatten().fold(None, |sum, rate| Some(sum.unwrap_or(0.0) + rate))
}
