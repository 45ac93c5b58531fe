//! Pictures of screens, as files.

use std::path::{Path, PathBuf};

use atp_protocol::screenshot::ScreenshotLimits;
use atp_transport::HostId;
use serde::Serialize;

use crate::outcome::lossy;
use crate::safe_name::safe_name;

/// A picture to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenshotSpec {
    /// The folder; the file of a VM is `HOST/VM.png` in it, whatever the VM is called. Made if it is not there.
    pub folder: PathBuf,
    /// Which screen of the VM, from 0.
    pub screen: u32,
    /// Its limits.
    pub limits: ScreenshotLimits,
}

/// A picture that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScreenshotReport {
    /// The PNG file.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// The file's size, bytes.
    pub bytes: usize,
}

/// The file for a VM.
pub(crate) fn file_for(folder: &Path, host: &HostId, vm: &str) -> PathBuf {
    // A host id is made of harmless characters, and may still be `.` or `..`.
    folder.join(safe_name(host.as_str())).join(format!("{}.png", safe_name(vm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_in_its_folder_whatever_the_vm_is_called() {
        let file = |host: &str, vm| file_for(Path::new("d"), &host.parse().unwrap(), vm);
        assert_eq!(file("h1", "web-1"), Path::new("d/h1/web-1.png"));
        assert_eq!(file("..h", "../../x"), Path::new("d/%2e.h/%2e.%2f..%2fx.png"));
        assert_eq!(file("h1", ""), Path::new("d/h1/%.png"));
    }
}
