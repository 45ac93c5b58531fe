//! The name of a host.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a host within one fleet: one or more of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`, for hosts give
/// their names to folders.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9._-]+$"))]
pub struct HostId(Arc<str>);

/// A host id with characters outside `A-Z a-z 0-9 . _ -`, with none at all, or that means a folder everywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host id {0:?} is not one or more of A-Z a-z 0-9 . _ -, or it is . or ..")]
pub struct InvalidHostId(pub String);

impl HostId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostId {
    type Err = InvalidHostId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = !["", ".", ".."].contains(&text)
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if valid { Ok(HostId(text.into())) } else { Err(InvalidHostId(text.to_owned())) }
    }
}

impl TryFrom<String> for HostId {
    type Error = InvalidHostId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostId> for String {
    fn from(id: HostId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for HostId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for HostId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_letters_digits_dot_underscore_dash() {
        for good in ["h1", "rack-2.node_7", "A"] {
            assert_eq!(good.parse::<HostId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "@x", "é", "a*"] {
            assert!(bad.parse::<HostId>().is_err(), "{bad:?} was accepted");
        }
    }
}
