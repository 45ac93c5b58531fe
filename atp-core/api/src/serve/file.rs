//! Files that the service keeps for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file that was sent to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileView {
    /// Its id: the source of a push.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}
