//! Calls about the host and its daemon. Their errors are those of [`Connection::call`].

use std::fmt;

use crate::connection::Connection;
use crate::error::CallError;
use crate::numbers::procedure;
use crate::xdr::{FromXdr, Reader, Result};

/// A version as libvirt counts them: `9.0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub release: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

/// A version is one number on the wire: `major × 1,000,000 + minor × 1,000 + release`.
impl FromXdr for Version {
    const MIN_SIZE: usize = 8;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let number = u64::read(from)?;
        Ok(Version { major: number / 1_000_000, minor: number / 1_000 % 1_000, release: number % 1_000 })
    }
}

/// The processors and the memory of a host (`virNodeInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The CPU's model: `x86_64`.
    pub model: String,
    /// Memory, KiB.
    pub memory_kib: u64,
    /// CPUs that are active.
    pub cpus: i32,
    /// Their frequency, MHz; 0 if not known.
    pub mhz: i32,
    /// NUMA nodes.
    pub nodes: i32,
    /// Sockets in a node.
    pub sockets: i32,
    /// Cores in a socket.
    pub cores: i32,
    /// Threads in a core.
    pub threads: i32,
}

/// The model is a C array of so many chars.
const MODEL: usize = 32;

impl FromXdr for NodeInfo {
    const MIN_SIZE: usize = MODEL * 4 + 32;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let model = from.char_array(MODEL)?;
        let model = model.split(|byte| *byte == 0).next().unwrap_or_default();
        let model = String::from_utf8_lossy(model).into_owned();
        let memory_kib = u64::read(from)?;
        let (cpus, mhz, nodes, sockets, cores, threads) = FromXdr::read(from)?;
        Ok(NodeInfo { model, memory_kib, cpus, mhz, nodes, sockets, cores, threads })
    }
}

impl Connection {
    /// The host's name (`virConnectGetHostname`).
    pub async fn hostname(&self) -> std::result::Result<String, CallError> {
        self.call(procedure::CONNECT_GET_HOSTNAME, &()).await
    }

    /// The version of the daemon's libvirt (`virConnectGetLibVersion`).
    pub async fn lib_version(&self) -> std::result::Result<Version, CallError> {
        self.call(procedure::CONNECT_GET_LIB_VERSION, &()).await
    }

    /// The hypervisor's version (`virConnectGetVersion`).
    pub async fn version(&self) -> std::result::Result<Version, CallError> {
        self.call(procedure::CONNECT_GET_VERSION, &()).await
    }

    /// The hypervisor's name: `QEMU` (`virConnectGetType`).
    pub async fn driver_type(&self) -> std::result::Result<String, CallError> {
        self.call(procedure::CONNECT_GET_TYPE, &()).await
    }

    /// The name that the daemon opened: `qemu:///system` (`virConnectGetURI`).
    pub async fn uri(&self) -> std::result::Result<String, CallError> {
        self.call(procedure::CONNECT_GET_URI, &()).await
    }

    /// What host and hypervisor can do, XML (`virConnectGetCapabilities`).
    pub async fn capabilities(&self) -> std::result::Result<String, CallError> {
        self.call(procedure::CONNECT_GET_CAPABILITIES, &()).await
    }

    /// The host's processors and memory (`virNodeGetInfo`).
    pub async fn node_info(&self) -> std::result::Result<NodeInfo, CallError> {
        self.call(procedure::NODE_GET_INFO, &()).await
    }

    /// The host's free memory, bytes (`virNodeGetFreeMemory`).
    pub async fn free_memory(&self) -> std::result::Result<u64, CallError> {
        self.call(procedure::NODE_GET_FREE_MEMORY, &()).await
    }
}
