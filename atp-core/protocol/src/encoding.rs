//! Decodes a guest's output from a named text encoding.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use encoding_rs::Encoding;

/// A text encoding by one of its names in the WHATWG registry: `windows-1252`, `utf-16le`, `shift_jis`, `ibm866`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextEncoding(&'static Encoding);

/// There is no encoding with this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a known encoding: try utf-8, utf-16le, windows-1252, iso-8859-1, ibm866, gbk, shift_jis or euc-kr"
)]
pub struct UnknownEncoding {
    /// The name.
    pub name: String,
}

impl TextEncoding {
    /// The name, in lower case.
    pub fn name(self) -> String {
        self.0.name().to_ascii_lowercase()
    }

    /// Decodes to text, without a byte order mark. None if some bytes are invalid in this encoding.
    pub fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        let (text, malformed) = self.0.decode_with_bom_removal(bytes);
        (!malformed).then_some(text)
    }
}

impl FromStr for TextEncoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        // The registry's `replacement` label marks encodings that must not be decoded.
        let known = Encoding::for_label(name.as_bytes()).filter(|known| *known != encoding_rs::REPLACEMENT);
        known.map(TextEncoding).ok_or_else(|| UnknownEncoding { name: name.to_owned() })
    }
}

impl fmt::Display for TextEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoding(name: &str) -> TextEncoding {
        name.parse().unwrap()
    }

    #[test]
    fn bytes_become_text_by_the_named_encoding() {
        assert_eq!(encoding("windows-1252").decode(b"Gr\xfc\xdfe \x80").as_deref(), Some("Grüße €"));
        assert_eq!(encoding("UTF-16LE").decode(b"\xff\xfeh\0i\0").as_deref(), Some("hi"));
        assert_eq!(encoding("cp866").decode(b"\x8f\xe0\xa8").as_deref(), Some("При"));
        assert_eq!(encoding("utf-8").decode("é".as_bytes()).as_deref(), Some("é"));
    }

    #[test]
    fn invalid_bytes_are_not_decoded() {
        assert_eq!(encoding("utf-8").decode(b"\xff"), None);
        assert_eq!(encoding("utf-16le").decode(b"h\0i"), None);
        assert_eq!(encoding("shift_jis").decode(b"\x82"), None);
    }

    #[test]
    fn names_are_those_of_the_registry() {
        assert_eq!(encoding("latin1").to_string(), "windows-1252");
        for name in ["", "nope", "cp437", "utf-7", "hz-gb-2312"] {
            assert_eq!(name.parse::<TextEncoding>().unwrap_err().name, name);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for name in ["utf-8", "utf-16le", "utf-16be", "gb18030", "iso-2022-jp", "big5", "euc-kr", "windows-1251"] {
                let _ = encoding(name).decode(&bytes);
            }
        }
    }
}
