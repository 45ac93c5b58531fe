//! Random secrets, and their hashes.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The bytes of a secret: enough that nothing slower than one hash is needed to keep it.
const BYTES: usize = 32;

/// A random text that opens something. [`Debug`](fmt::Debug) does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new one, with what its text starts with.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(format!("{prefix}{}", hex(&bytes))))
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash.
    pub fn hash(&self) -> String {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The SHA-256 of a text, in hexadecimal digits.
pub(crate) fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Whether two texts are the same, in a time that depends on their lengths only.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_are_not_shown() {
        let (one, other) = (Secret::new("atp_").unwrap(), Secret::new("atp_").unwrap());
        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), 4 + 64);
        assert!(!format!("{one:?}").contains(&one.reveal()[4..]));
        assert!(is_same(&hash(one.reveal()), &one.hash()) && !is_same(&one.hash(), &other.hash()));
        assert!(!is_same("a", "ab") && !is_same("a", "b"));
    }
}
