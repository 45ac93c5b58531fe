//! What is copied where, into guests and out of them.

use std::path::PathBuf;
use std::sync::Arc;

use atp_protocol::files::Source;
use atp_transport::HostId;
use serde::Serialize;

use crate::outcome::lossy;
use crate::safe_name::safe_name;

/// A file to be copied into guests.
#[derive(Debug, Clone, PartialEq)]
pub struct PushSpec {
    /// The file, looked at once for all guests.
    pub source: Arc<Source>,
    /// Where it is here, for reports.
    pub local_path: PathBuf,
    /// An absolute path in the guests: the file's, or that of a folder it goes into.
    pub destination: String,
}

/// A file to be copied out of guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSpec {
    /// An absolute path in the guests.
    pub path: String,
    /// Where it goes here: to this file, or into this folder.
    pub destination: PathBuf,
    /// Whether `destination` is a folder in which each VM's file has a place of its own, `HOST/VM/NAME`. Planning
    /// sets it where there is more than one VM.
    pub separate: bool,
}

impl PullSpec {
    /// Where the file of this VM goes. A destination that is a folder, or ends in a slash, gets the file in it.
    pub fn destination_of(&self, host: &HostId, vm: &str) -> PathBuf {
        let name = safe_name(self.path.rsplit('/').next().unwrap_or_default());
        if self.separate {
            return self.destination.join(safe_name(host.as_str())).join(safe_name(vm)).join(name);
        }
        let text = self.destination.as_os_str().as_encoded_bytes();
        if text.ends_with(b"/") || self.destination.is_dir() {
            self.destination.join(name)
        } else {
            self.destination.clone()
        }
    }
}

/// A file that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Where it is in the guest.
    pub guest_path: String,
    /// Where it is here.
    #[serde(serialize_with = "lossy")]
    pub local_path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// How many of them were there already, from a copy that had stopped.
    pub resumed_at: u64,
    /// Its SHA-256 on both sides, in hexadecimal digits.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    fn spec(destination: &str, separate: bool) -> PullSpec {
        PullSpec { path: "/etc/hostname".into(), destination: destination.into(), separate }
    }

    #[test]
    fn a_report_is_json_whatever_the_file_is_called() {
        let report = FileReport {
            guest_path: "/tmp/x".into(),
            local_path: PathBuf::from(OsStr::from_bytes(b"there/\xff")),
            bytes: 1,
            resumed_at: 0,
            sha256: String::new(),
        };
        assert_eq!(serde_json::to_value(report).unwrap()["local_path"], "there/\u{fffd}");
    }

    #[test]
    fn one_file_goes_where_it_is_told_and_several_each_to_a_place_of_its_own() {
        let host: HostId = "h1".parse().unwrap();
        let to = |spec: PullSpec, vm: &str| spec.destination_of(&host, vm);
        assert_eq!(to(spec("/nowhere/copy", false), "vm"), Path::new("/nowhere/copy"));
        assert_eq!(to(spec("/nowhere/", false), "vm"), Path::new("/nowhere/hostname"));
        assert_eq!(to(spec("/tmp", false), "vm"), Path::new("/tmp/hostname"));
        assert_eq!(to(spec("/tmp", true), "vm"), Path::new("/tmp/h1/vm/hostname"));
        assert_eq!(to(spec("/tmp", true), "../x"), Path::new("/tmp/h1/%2e.%2fx/hostname"));
    }
}
