//! What it means that a VM of another host has the same UUID.

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr, VariantArray};

/// What the VMs of a host are to VMs of other hosts that have the same UUID.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum SharedUuids {
    /// The same VM, which was migrated or is defined on several hosts: it may run on one of them at a time.
    #[default]
    OneVm,
    /// Copies: their disks or definitions were cloned, and each is a VM of its own.
    Copies,
}

impl SharedUuids {
    /// All of them.
    pub const ALL: &[SharedUuids] = SharedUuids::VARIANTS;

    /// The word for it in configuration files.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
