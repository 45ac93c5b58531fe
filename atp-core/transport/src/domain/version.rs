//! Versions, and what runs the domains of a host.

use std::fmt;

use serde::{Serialize, Serializer};

/// A version as libvirt counts them: `9.0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub release: u32,
}

impl Version {
    /// From libvirt's single number: `major × 1,000,000 + minor × 1,000 + release`.
    #[cfg(feature = "library")]
    pub(crate) fn from_number(number: u32) -> Self {
        Version { major: number / 1_000_000, minor: number / 1_000 % 1_000, release: number % 1_000 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What runs a host's domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hypervisor {
    /// The driver's name for it: `QEMU`, `TEST`.
    pub kind: String,
    /// Its version.
    pub version: Version,
}
