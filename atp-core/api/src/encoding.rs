//! Decodes a guest's output from a named text encoding, or from that of a byte order mark.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use encoding_rs::Encoding;
use oem_cp::code_table::DECODING_TABLE_CP_MAP;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text encoding by one of its names in the WHATWG registry (`windows-1252`, `utf-16le`, `shift_jis`, `ibm866`, …), or by
/// the number of a code page as Windows' `chcp` shows it (`850`, `cp852`, `ibm437`, `65001`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TextEncoding(Table);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// One of the registry.
    Registry(&'static Encoding),
    /// A code page of consoles that the registry lacks. It is known to have a table.
    CodePage(u16),
}

/// There is no encoding with this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a known encoding: try utf-8, utf-16, windows-1252, iso-8859-1, cp437, cp850, cp852, cp866, gbk, shift_jis or euc-kr"
)]
pub struct UnknownEncoding {
    /// The name.
    pub name: String,
}

impl TextEncoding {
    /// The encoding that a byte order mark at the beginning names: one of UTF-8 and UTF-16, and something after it.
    pub fn by_mark(bytes: &[u8]) -> Option<TextEncoding> {
        let (encoding, mark) = Encoding::for_bom(bytes)?;
        (bytes.len() > mark).then_some(TextEncoding(Table::Registry(encoding)))
    }

    /// The name, in lower case.
    pub fn name(self) -> String {
        match self.0 {
            Table::Registry(encoding) => encoding.name().to_ascii_lowercase(),
            Table::CodePage(page) => format!("cp{page}"),
        }
    }

    /// The text, without a byte order mark, and the encoding that it was in: a byte order mark counts for more than a name, as in
    /// the encoding standard. None if some of the bytes are none in this encoding.
    pub fn decode(self, bytes: &[u8]) -> Option<(Cow<'_, str>, TextEncoding)> {
        let encoding = TextEncoding::by_mark(bytes).unwrap_or(self);
        let text = match encoding.0 {
            Table::Registry(table) => {
                let (text, malformed) = table.decode_with_bom_removal(bytes);
                (!malformed).then_some(text)
            }
            Table::CodePage(page) => {
                DECODING_TABLE_CP_MAP.get(&page)?.decode_string_checked(bytes).map(Cow::Owned)
            }
        };
        Some((text?, encoding))
    }
}

impl TryFrom<String> for TextEncoding {
    type Error = UnknownEncoding;

    fn try_from(name: String) -> Result<Self, UnknownEncoding> {
        name.parse()
    }
}

impl From<TextEncoding> for String {
    fn from(encoding: TextEncoding) -> Self {
        encoding.name()
    }
}

impl FromStr for TextEncoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        // The registry's `replacement` label marks encodings that must not be decoded.
        let known = Encoding::for_label(name.as_bytes()).filter(|known| *known != encoding_rs::REPLACEMENT);
        let table = known.map(Table::Registry).or_else(|| code_page(name));
        table.map(TextEncoding).ok_or_else(|| UnknownEncoding { name: name.to_owned() })
    }
}

/// The table of a code page by its number, with or without one of the usual words before it.
fn code_page(name: &str) -> Option<Table> {
    let name = name.trim().to_ascii_lowercase();
    let number =
        ["cp", "ibm", "oem", "windows"].iter().find_map(|word| name.strip_prefix(word)).unwrap_or(&name);
    let page = number.trim_start_matches(['-', '_']).parse().ok()?;
    match codepage::to_encoding_no_replacement(page) {
        Some(encoding) => Some(Table::Registry(encoding)),
        None => DECODING_TABLE_CP_MAP.contains_key(&page).then_some(Table::CodePage(page)),
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

    fn decoded(name: &str, bytes: &[u8]) -> Option<String> {
        encoding(name).decode(bytes).map(|(text, _)| text.into_owned())
    }

    #[test]
    fn consoles_of_european_windows_are_read() {
        for (name, bytes, text) in [
            ("cp437", &b"Gr\x81\xe1e \x9b \xc9\xcd\xbb"[..], "Grüße ¢ ╔═╗"),
            ("437", b"\x81", "ü"),
            ("ibm437", b"\x81", "ü"),
            ("cp850", b"Gr\x81\xe1e \x9b", "Grüße ø"),
            ("850", b"\xd0", "ð"),
            ("cp852", b"\x9d\xa2d\xab", "Łódź"),
            ("cp858", b"\xd5", "€"),
            ("cp866", b"\x8f\xe0\xa8", "При"),
            ("cp1252", b"\x80", "€"),
            ("1252", b"\x80", "€"),
            ("windows-1250", b"\xb3", "ł"),
            ("65001", "é".as_bytes(), "é"),
            ("1200", b"h\0i\0", "hi"),
            ("932", b"\x83\x65", "テ"),
        ] {
            assert_eq!(decoded(name, bytes).as_deref(), Some(text), "{name}");
        }
        assert_eq!(encoding("850").to_string(), "cp850");
        assert_eq!(encoding("oem-850").to_string().parse(), Ok(encoding("850")));
        // A code page with gaps.
        assert_eq!(decoded("cp857", b"\xd5"), None);
    }

    #[test]
    fn a_byte_order_mark_counts_for_more_than_the_name() {
        let by_mark = |name: &str, bytes: &[u8]| {
            encoding(name).decode(bytes).map(|(text, encoding)| (text.into_owned(), encoding.name()))
        };
        let (big, little) = (&b"\xfe\xff\0h\0i"[..], &b"\xff\xfeh\0i\0"[..]);
        for name in ["utf-16", "utf-16le", "utf-16be", "cp850", "utf-8"] {
            assert_eq!(by_mark(name, big), Some(("hi".to_owned(), "utf-16be".to_owned())), "{name}");
            assert_eq!(by_mark(name, little), Some(("hi".to_owned(), "utf-16le".to_owned())), "{name}");
        }
        assert_eq!(by_mark("utf-16", b"h\0i\0"), Some(("hi".to_owned(), "utf-16le".to_owned())));
        assert_eq!(by_mark("cp850", b"\xef\xbb\xbf\xc3\xa9"), Some(("é".to_owned(), "utf-8".to_owned())));
        assert_eq!(TextEncoding::by_mark(big), Some(encoding("utf-16be")));
        for bytes in [&b"\xff\xfe"[..], b"\xfe\xff", b"hi", b""] {
            assert_eq!(TextEncoding::by_mark(bytes), None, "{bytes:?}");
        }
        // Half a character at the end is no text.
        assert_eq!(by_mark("utf-16", b"\xfe\xff\0h\0"), None);
    }

    #[test]
    fn bytes_become_text_by_the_named_encoding() {
        assert_eq!(decoded("windows-1252", b"Gr\xfc\xdfe \x80").as_deref(), Some("Grüße €"));
        assert_eq!(decoded("UTF-16LE", b"\xff\xfeh\0i\0").as_deref(), Some("hi"));
        assert_eq!(decoded("utf-8", "é".as_bytes()).as_deref(), Some("é"));
    }

    #[test]
    fn what_is_no_text_is_not_made_one() {
        assert_eq!(decoded("utf-8", b"\xff"), None);
        assert_eq!(decoded("utf-16le", b"h\0i"), None);
        assert_eq!(decoded("shift_jis", b"\x82"), None);
    }

    #[test]
    fn names_are_those_of_the_registry() {
        assert_eq!(encoding("latin1").to_string(), "windows-1252");
        for name in ["", "nope", "cp99999", "cp1", "850x", "-", "utf-7", "hz-gb-2312", "65000"] {
            assert_eq!(name.parse::<TextEncoding>().unwrap_err().name, name);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for name in ["utf-8", "utf-16le", "utf-16be", "gb18030", "iso-2022-jp", "big5", "euc-kr", "windows-1251", "cp437", "cp850", "cp852", "cp874"] {
                let _ = encoding(name).decode(&bytes);
            }
        }
    }
}
