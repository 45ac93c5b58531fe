//! The output of a process.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encoding::TextEncoding;

/// The bytes a process wrote to one stream.
///
/// Serialised as `{"text","encoding","truncated"}`: the text itself when the bytes are text in the encoding that a byte order
/// mark or else `encoding` names, which is UTF-8 unless it says another, else base64. Text that is not just these bytes in UTF-8
/// has the bytes beside it, as `base64`.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "Serialised")]
pub struct Stream {
    /// The bytes as they were written.
    pub bytes: Vec<u8>,
    /// Whether less was kept of them than the process wrote.
    pub truncated: bool,
    /// The encoding they are said to be in; none stands for UTF-8.
    pub encoding: Option<TextEncoding>,
}

/// A stream as it is serialised.
#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
struct Serialised {
    /// The text, or base64.
    text: String,
    /// The encoding that the text was decoded from, or `base64`.
    encoding: String,
    /// Whether less was kept than the process wrote.
    truncated: bool,
    /// The bytes, where the text is not just these in UTF-8.
    #[serde(default)]
    base64: Option<String>,
}

impl Stream {
    /// The text, and the name of its encoding; none if the bytes are no text in it.
    pub fn text(&self) -> Option<(Cow<'_, str>, Cow<'static, str>)> {
        let plain = || std::str::from_utf8(&self.bytes).ok();
        match self.encoding.map_or_else(plain, |_| None) {
            Some(text) => Some((Cow::Borrowed(text), Cow::Borrowed("utf-8"))),
            None => {
                let encoding = self.encoding.or_else(|| TextEncoding::by_mark(&self.bytes))?;
                let (text, encoding) = encoding.decode(&self.bytes)?;
                Some((text, Cow::Owned(encoding.name())))
            }
        }
    }

    /// The text, with `\u{fffd}` in place of what is none in UTF-8 if the bytes are no text.
    pub fn lossy_text(&self) -> Cow<'_, str> {
        self.text().map_or_else(|| String::from_utf8_lossy(&self.bytes), |(text, _)| text)
    }
}

impl Serialize for Stream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (text, encoding) =
            self.text().unwrap_or_else(|| (Cow::Owned(BASE64.encode(&self.bytes)), Cow::Borrowed("base64")));
        let bytes =
            (encoding != "base64" && text.as_bytes() != self.bytes).then(|| BASE64.encode(&self.bytes));
        let mut stream = serializer.serialize_struct("Stream", 3 + usize::from(bytes.is_some()))?;
        stream.serialize_field("text", &text)?;
        stream.serialize_field("encoding", &encoding)?;
        stream.serialize_field("truncated", &self.truncated)?;
        match &bytes {
            Some(bytes) => stream.serialize_field("base64", bytes)?,
            None => stream.skip_field("base64")?,
        }
        stream.end()
    }
}

impl<'de> Deserialize<'de> for Stream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Serialised { text, encoding, truncated, base64 } = Serialised::deserialize(deserializer)?;
        let decode = |text: String| BASE64.decode(text).map_err(D::Error::custom);
        let (bytes, encoding) = match (encoding.as_str(), base64) {
            ("base64", _) => (decode(text)?, None),
            (name, Some(bytes)) => (decode(bytes)?, Some(name.parse().map_err(D::Error::custom)?)),
            (_, None) => (text.into_bytes(), None),
        };
        Ok(Stream { bytes, truncated, encoding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_decoded_by_its_encoding_and_what_is_none_is_base64() {
        let json = |bytes: &[u8], name: &str| {
            let encoding = Some(name.parse().unwrap());
            serde_json::to_value(Stream { bytes: bytes.to_vec(), truncated: false, encoding }).unwrap()
        };
        let text = |text: &str, encoding: &str, base64: &str| json!({"text": text, "encoding": encoding, "truncated": false, "base64": base64});
        assert_eq!(json(b"Gr\xfc\xdfe", "latin1"), text("Grüße", "windows-1252", "R3L832U="));
        assert_eq!(json(b"Gr\x81\xe1e", "cp850"), text("Grüße", "cp850", "R3KB4WU="));
        assert_eq!(json(b"h\0i\0", "utf-16le"), text("hi", "utf-16le", "aABpAA=="));
        assert_eq!(
            json(b"h\0i", "utf-16le"),
            json!({"text": "aABp", "encoding": "base64", "truncated": false})
        );
        assert_eq!(json(b"hi", "cp850"), json!({"text": "hi", "encoding": "cp850", "truncated": false}));
    }

    #[test]
    fn utf_16_is_known_by_its_byte_order_mark_without_a_name() {
        let read = |bytes: &[u8]| {
            let stream = Stream { bytes: bytes.to_vec(), ..Stream::default() };
            stream.text().map(|(text, encoding)| format!("{encoding} {text}"))
        };
        assert_eq!(read(b"\xff\xfeh\0i\0").as_deref(), Some("utf-16le hi"));
        assert_eq!(read(b"\xfe\xff\0h\0i").as_deref(), Some("utf-16be hi"));
        assert_eq!(read("é".as_bytes()).as_deref(), Some("utf-8 é"));
        assert_eq!(read(b"Gr\x81\xe1e"), None);
        assert_eq!(read(b"\xff\xfe"), None);
    }

    #[test]
    fn the_bytes_and_the_encoding_can_be_read_back() {
        for (bytes, encoding) in [
            (&b"Gr\x81\xe1e"[..], Some("cp850")),
            (b"\xfe\xff\0h\0i", Some("utf-16be")),
            (b"\xff", None),
            (b"hi", None),
        ] {
            let encoding = encoding.map(|name| name.parse().unwrap());
            let stream = Stream { bytes: bytes.to_vec(), truncated: true, encoding };
            let text = serde_json::to_string(&stream).unwrap();
            assert_eq!(serde_json::from_str::<Stream>(&text).unwrap(), stream, "{text}");
        }
    }
}
