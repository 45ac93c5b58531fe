//! VMs in a listing of the service.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{DomainInfo, DomainState, StateReason};
use crate::host_id::HostId;
use crate::outcome::Outcome;

/// The VMs of a selection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmListing {
    /// The VMs, by host and then name, each with its numbers in the order of numbers.
    pub vms: Vec<VmEntry>,
    /// How many there are, also if the answer has only some of them.
    pub total: u64,
    /// The hosts that could not be listed, with the reason.
    pub settled: Vec<Outcome>,
    /// The hosts whose VMs are as they were listed earlier.
    pub stale: Vec<StaleHost>,
    /// When the oldest listing was made that is not among the stale ones; RFC 3339. None if there is none.
    pub as_of: Option<String>,
    /// Why it is not known which VMs are reserved, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservations_unknown: Option<String>,
}

/// A VM as its host listed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmEntry {
    /// The host.
    pub host: HostId,
    /// The VM's name.
    pub vm: String,
    /// What its host says of it.
    #[serde(flatten)]
    pub info: VmFacts,
    /// The labels of its host, and its own if they were asked for.
    pub labels: BTreeMap<String, String>,
}

/// What a host's listing says of a VM, without its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmFacts {
    /// Its identity.
    pub uuid: Uuid,
    /// Its state.
    pub state: DomainState,
    /// Why it is in that state, where that is known.
    pub reason: Option<StateReason>,
    /// Virtual CPUs, where they are known.
    pub vcpus: Option<u32>,
    /// Memory in use by the guest, KiB, where it is known.
    pub memory_kib: Option<u64>,
    /// The most memory that the guest may get, KiB, where it is known.
    pub max_memory_kib: Option<u64>,
    /// Who has reserved it, if it is reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_by: Option<String>,
    /// Until when it is reserved, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_until_ms: Option<u64>,
}

impl From<&DomainInfo> for VmFacts {
    fn from(info: &DomainInfo) -> Self {
        VmFacts {
            uuid: info.uuid,
            state: info.state,
            reason: info.reason,
            vcpus: info.vcpus,
            memory_kib: info.memory_kib,
            max_memory_kib: info.max_memory_kib,
            reserved_by: info.reserved_by.clone(),
            reserved_until_ms: info.reserved_until_ms,
        }
    }
}

/// A host that does not answer, and whose VMs are as they were listed earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StaleHost {
    /// The host.
    pub host: HostId,
    /// When its VMs were listed; RFC 3339.
    pub since: String,
    /// Why it was not listed again.
    pub reason: String,
}
