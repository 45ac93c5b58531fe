//! The options of a fleet, with their defaults.

use std::sync::Arc;
use std::time::Duration;

use crate::faults::Faults;
use crate::guest::Programs;

/// The options of a fleet.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Number of hosts. Default: 1. At most [`MAX_HOSTS`].
    pub hosts: u32,
    /// Number of VMs of each host. Default: 1. At most [`MAX_VMS`].
    pub vms: u32,
    /// The seed of all randomness: UUIDs, which hosts and VMs have faults, and when. Default: 0.
    pub seed: u64,
    /// The TCP port of all hosts. Default: 0, which lets the system choose one.
    pub port: u16,
    /// The round-trip time of the network: each message of a daemon is delayed by this. Default: none.
    /// Timers have steps of 1 ms.
    pub rtt: Duration,
    /// Faults by seed. Default: none.
    pub faults: Faults,
    /// The number of calls in flight at which a daemon stops reading a connection, pings included. Default: 5, as libvirt.
    pub max_client_requests: usize,
    /// Workers of a daemon. Each hung call occupies one, also after its client has left. Default: 20, as libvirt.
    pub max_workers: usize,
    /// Further workers of a daemon, for calls that never wait for QEMU. Default: 5, as libvirt.
    pub priority_workers: usize,
    /// The pings of the daemons.
    pub keepalive: KeepaliveOptions,
    /// Whether a daemon asks QEMU for parts of a running VM's definition, as libvirt 11 does. Default: no, as libvirt 9.
    pub asks_qemu_for_definitions: bool,
    /// Programs in the guests. They come before the built-in ones. Default: none.
    pub programs: Option<Arc<Programs>>,
}

/// The maximum number of hosts: the number of addresses.
pub const MAX_HOSTS: u32 = 0x00fe_0000;

/// The maximum number of VMs of a host: libvirt's limit for a listing.
pub const MAX_VMS: u32 = 16_384;

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions {
            hosts: 1,
            vms: 1,
            seed: 0,
            port: 0,
            rtt: Duration::ZERO,
            faults: Faults::default(),
            max_client_requests: 5,
            max_workers: 20,
            priority_workers: 5,
            keepalive: KeepaliveOptions::default(),
            asks_qemu_for_definitions: false,
            programs: None,
        }
    }
}

/// The pings of a daemon to a client that has asked for keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveOptions {
    /// How long a client may be silent before it is pinged, and how long it has for each answer. Default: 5 s.
    pub interval: Duration,
    /// After so many pings without an answer the connection is closed. Default: 5.
    pub count: u32,
}

impl Default for KeepaliveOptions {
    fn default() -> Self {
        KeepaliveOptions { interval: Duration::from_secs(5), count: 5 }
    }
}
