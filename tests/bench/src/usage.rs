//! The resource usage of this process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The resources of this process at one moment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Resident memory, KiB.
    pub(crate) memory_kib: u64,
    pub(crate) threads: u64,
}

impl Usage {
    pub(crate) fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let number = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            Ok(value.with_context(|| format!("/proc/self/status has no {name}"))?.parse()?)
        };
        Ok(Usage { memory_kib: number("VmRSS:")?, threads: number("Threads:")? })
    }
}

/// The CPU time of all threads of this process since its start, including the kernel's work for it.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Neither is ever negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
