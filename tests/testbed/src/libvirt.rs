//! Which libvirt serves a host: this machine's own, or that of another Debian release.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The libvirt and the QEMU of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Libvirt {
    /// This machine's libvirtd and QEMU: 9.0 and 7.2 on Debian 12.
    #[default]
    Machine,
    /// libvirtd of Debian 13: 11.3, with QEMU 10.0.
    Trixie,
    /// Debian 13 with a virtqemud behind a virtproxyd.
    TrixieModular,
    /// libvirtd of the next Debian release, in the version that it has on the day.
    Testing,
}

impl Libvirt {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Machine, Self::Trixie, Self::TrixieModular, Self::Testing];

    /// Its name on command lines: `machine`, `trixie`, `trixie-modular`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Trixie => "trixie",
            Self::TrixieModular => "trixie-modular",
            Self::Testing => "testing",
        }
    }

    /// Whether one daemon serves QEMU's driver and another, `virtproxyd`, the network.
    pub fn is_modular(self) -> bool {
        self == Self::TrixieModular
    }

    /// The Debian release it is of; none for this machine's.
    pub(crate) fn suite(self) -> Option<&'static str> {
        match self {
            Self::Machine => None,
            Self::Trixie | Self::TrixieModular => Some("trixie"),
            Self::Testing => Some("testing"),
        }
    }
}

impl fmt::Display for Libvirt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Libvirt {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|libvirt| libvirt.as_str() == word).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no such daemon; there are {all}")
        })
    }
}
