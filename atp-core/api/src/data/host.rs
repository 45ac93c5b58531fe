//! What a host answered when it was checked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Version;

/// What a host answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostReport {
    /// The host's own name (`virConnectGetHostname`).
    pub hostname: String,
    /// libvirt's version in the daemon.
    pub daemon_version: Version,
    /// The hypervisor's kind, such as `QEMU`.
    pub hypervisor: String,
    /// The hypervisor's version.
    pub hypervisor_version: Version,
    /// Milliseconds from asking for a connection to having one.
    pub connect_ms: f64,
    /// Milliseconds of one small call.
    pub latency_ms: f64,
    /// Domains the host has, active or not.
    pub domains: usize,
    /// Domains that are active.
    pub active_domains: usize,
}
