//! Files that are copied, and pictures that are taken.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// A file to copy into guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PushSpec {
    /// The file, on the machine of the program that copies it.
    #[serde(serialize_with = "lossy_path")]
    #[schemars(with = "String")]
    pub source: PathBuf,
    /// An absolute path in the guests: the file's, or that of a folder it goes into.
    pub destination: String,
    /// The SHA-256 of the file in hexadecimal digits, or of a folder's archive. What has another one is not copied.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Whether the file may be a folder, which is copied with all that is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// Whether `source` is the archive of a folder, in the format of `tar`: the folder itself first, and then sorted by name. It is
    /// copied as the folder that it is of, which has the name of the archive. A service takes folders in this way only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub packed: bool,
}

/// A file to copy out of guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullSpec {
    /// An absolute path in the guests.
    pub path: String,
    /// Where it goes on the machine of the program that copies it: to this file, or into this folder.
    #[serde(serialize_with = "lossy_path")]
    #[schemars(with = "String")]
    pub destination: PathBuf,
    /// Whether `destination` is a folder in which each VM's file has a place of its own, `HOST/VM/NAME`. Planning
    /// sets it where there is more than one VM.
    #[serde(default)]
    pub separate: bool,
    /// Whether the file may be a folder, which is copied with all that is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// Whether a folder is left as an archive in the format of `tar`, as the guest has made it: `NAME/NAME.tar` in the place of the
    /// folder `NAME`. A service gives folders in this way only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub packed: bool,
}

/// A picture to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScreenshotSpec {
    /// The folder, which is made if it is not there. The file of a VM is `HOST/VM.png` in it, for any name of a VM.
    #[serde(serialize_with = "lossy_path")]
    #[schemars(with = "String")]
    pub folder: PathBuf,
    /// Which screen of the VM, from 0.
    #[serde(default)]
    pub screen: u32,
    /// Its limits.
    #[serde(default)]
    pub limits: ScreenshotLimits,
}

/// Limits of a screenshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ScreenshotLimits {
    /// The maximum size of the picture from the hypervisor, in bytes; 64 MiB by default. A 4K screen as PPM is 24 MiB.
    pub max_bytes: usize,
}

impl Default for ScreenshotLimits {
    fn default() -> Self {
        ScreenshotLimits { max_bytes: 64 << 20 }
    }
}

/// Serialises a path as text. A path need not be UTF-8, and JSON has nothing else: bytes that are not become U+FFFD.
pub(crate) fn lossy_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// As [`lossy_path`], of a path that may be absent.
pub(crate) fn optional_lossy_path<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => lossy_path(path, serializer),
        None => serializer.serialize_none(),
    }
}
