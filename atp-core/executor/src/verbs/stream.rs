//! The output of a process.

use std::borrow::Cow;

use atp_protocol::TextEncoding;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes a process wrote to one stream.
///
/// Serialised as `{"text","encoding","truncated"}`: the text itself when the bytes are text in the encoding they are
/// said to be in, which is UTF-8 unless another is named, else base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The bytes as they were written.
    pub bytes: Vec<u8>,
    /// Whether less was kept of them than the process wrote.
    pub truncated: bool,
    /// The encoding they are said to be in; none stands for UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl Stream {
    /// The text, and the name of its encoding; none if the bytes are no text in it.
    pub fn text(&self) -> Option<(Cow<'_, str>, Cow<'static, str>)> {
        match self.encoding {
            Some(encoding) => Some((encoding.decode(&self.bytes)?, Cow::Owned(encoding.name()))),
            None => Some((Cow::Borrowed(std::str::from_utf8(&self.bytes).ok()?), Cow::Borrowed("utf-8"))),
        }
    }
}

impl Serialize for Stream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (text, encoding) =
            self.text().unwrap_or_else(|| (Cow::Owned(BASE64.encode(&self.bytes)), Cow::Borrowed("base64")));
        let mut stream = serializer.serialize_struct("Stream", 3)?;
        stream.serialize_field("text", &text)?;
        stream.serialize_field("encoding", &encoding)?;
        stream.serialize_field("truncated", &self.truncated)?;
        stream.end()
    }
}

impl<'de> Deserialize<'de> for Stream {
    /// What was text in another encoding becomes text in UTF-8: the bytes themselves are not in what was serialised.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Serialised {
            text: String,
            encoding: String,
            truncated: bool,
        }
        let Serialised { text, encoding, truncated } = Serialised::deserialize(deserializer)?;
        let bytes = match encoding.as_str() {
            "base64" => BASE64.decode(text).map_err(D::Error::custom)?,
            _ => text.into_bytes(),
        };
        Ok(Stream { bytes, truncated, encoding: None })
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
        let text =
            |text: &str, encoding: &str| json!({"text": text, "encoding": encoding, "truncated": false});
        assert_eq!(json(b"Gr\xfc\xdfe", "latin1"), text("Grüße", "windows-1252"));
        assert_eq!(json(b"h\0i\0", "utf-16le"), text("hi", "utf-16le"));
        assert_eq!(json(b"h\0i", "utf-16le"), text("aABp", "base64"));
    }
}
