//! Files that were copied, and pictures that were taken.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::lossy_path;

/// A file that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileReport {
    /// Where it is in the guest.
    pub guest_path: String,
    /// Where it is on the machine of the program that copied it.
    #[serde(serialize_with = "lossy_path")]
    #[schemars(with = "String")]
    pub local_path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// How many of them were there already, from a copy that had stopped.
    pub resumed_at: u64,
    /// Its SHA-256 on both sides, in hexadecimal digits.
    pub sha256: String,
}

/// A picture that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScreenshotReport {
    /// The PNG file.
    #[serde(serialize_with = "lossy_path")]
    #[schemars(with = "String")]
    pub file: PathBuf,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// The file's size, bytes.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_report_is_json_with_any_file_name() {
        let report = FileReport {
            guest_path: "/tmp/x".into(),
            local_path: PathBuf::from(OsStr::from_bytes(b"there/\xff")),
            bytes: 1,
            resumed_at: 0,
            sha256: String::new(),
        };
        assert_eq!(serde_json::to_value(report).unwrap()["local_path"], "there/\u{fffd}");
    }
}
