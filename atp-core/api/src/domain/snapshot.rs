//! Snapshots of a domain.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DomainState;

/// A snapshot of a domain, as libvirt describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Its name, unique for its domain.
    pub name: String,
    /// The snapshot that the domain was at when this one was made.
    pub parent: Option<String>,
    /// Whether the domain is at this snapshot: it was made, or reverted to, last.
    pub current: bool,
    /// When it was made, seconds since 1970.
    pub created: Option<u64>,
    /// The state that the domain was in; none of a snapshot of the disks of a domain that ran.
    pub state: Option<DomainState>,
    /// Whether it has the domain's memory.
    pub memory: bool,
    /// Whether a part of it is in files of its own, beside the disk images.
    pub external: bool,
    /// What a person wrote of it.
    pub description: Option<String>,
}

/// What a domain does after it was taken back to a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AfterRevert {
    /// What it did when the snapshot was made.
    #[default]
    AsThen,
    /// It runs: from the snapshot's memory, or it boots.
    Start,
    /// It is paused.
    Pause,
}

impl AfterRevert {
    pub(crate) fn is_as_then(&self) -> bool {
        *self == AfterRevert::AsThen
    }
}
