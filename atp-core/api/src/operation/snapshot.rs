//! Snapshots of VMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::AfterRevert;

/// A snapshot to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotSpec {
    /// Its name, unique for each VM.
    pub name: String,
    /// What a person wants to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of a VM that runs the disks only, and not the memory. They are left as they are, and new files take what is written
    /// from then on (an external snapshot), so the host's daemon has to be able to go back to such a snapshot.
    #[serde(default)]
    pub disk_only: bool,
    /// Have the guest's agent freeze its file systems while the snapshot is made. Only with `disk_only`, and of a VM that
    /// runs: memory and disks of one moment need no such help.
    #[serde(default)]
    pub quiesce: bool,
}

/// A snapshot to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevertSpec {
    /// The snapshot's name.
    pub name: String,
    /// What the VM does afterwards.
    #[serde(default, skip_serializing_if = "AfterRevert::is_as_then")]
    pub then: AfterRevert,
}

/// A snapshot to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotDeleteSpec {
    /// The snapshot's name.
    pub name: String,
    /// Remove the snapshots that were made after it, too. Without this they stay, and get its parent.
    #[serde(default)]
    pub children: bool,
}

impl SnapshotSpec {
    /// A snapshot of disks and memory.
    pub fn new(name: impl Into<String>) -> Self {
        SnapshotSpec { name: name.into(), description: None, disk_only: false, quiesce: false }
    }

    /// Refuses a name that no snapshot can have, and options that do not go together.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.quiesce && !self.disk_only {
            return Err(
                "quiesce is for snapshots of the disks only: memory and disks of one moment need no frozen \
                        file systems"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl RevertSpec {
    /// The snapshot of this name, and the state in which it was made.
    pub fn new(name: impl Into<String>) -> Self {
        RevertSpec { name: name.into(), then: AfterRevert::AsThen }
    }
}

/// Refuses a name that no snapshot can have.
///
/// # Errors
/// What is wrong.
pub fn check_name(name: &str) -> Result<(), String> {
    // libvirt keeps each snapshot in a file of that name, and QEMU takes no longer one.
    const MOST: usize = 255;
    let is_bad = |c: char| c == '/' || c.is_control();
    if name.is_empty() || name.len() > MOST || name.starts_with('.') || name.contains(is_bad) {
        return Err(format!(
            "a snapshot cannot be named {name:?}: 1 to {MOST} bytes without '/' and control characters, and no '.' first"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_snapshot_can_have_and_options_that_do_not_go_together_are_refused() {
        assert_eq!(SnapshotSpec::new("clean 2").check(), Ok(()));
        for name in ["", "a/b", ".hidden", "a\nb", &"a".repeat(256)] {
            assert!(SnapshotSpec::new(name).check().is_err(), "{name:?}");
        }
        let quiesced = |disk_only| SnapshotSpec { quiesce: true, disk_only, ..SnapshotSpec::new("a") };
        assert!(quiesced(false).check().is_err());
        assert_eq!(quiesced(true).check(), Ok(()));
    }

    #[test]
    fn a_name_is_enough() {
        let read = serde_json::from_str::<SnapshotSpec>(r#"{"name": "clean"}"#).unwrap();
        assert_eq!(read, SnapshotSpec::new("clean"));
        let read = serde_json::from_str::<RevertSpec>(r#"{"name": "clean"}"#).unwrap();
        assert_eq!(read, RevertSpec::new("clean"));
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"name":"clean"}"#);
    }
}
