//! Paths in JSON.

use std::path::Path;

use serde::Serializer;

/// Serialises a path as text. A path need not be UTF-8, and JSON has nothing else: bytes that are not become U+FFFD.
pub(crate) fn lossy_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
