//! Bytes in JSON: a text, or base64 if they are none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes as they are serialised.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum Input {
    /// A text, in UTF-8.
    Text(String),
    /// Any bytes.
    Bytes {
        /// The bytes.
        base64: String,
    },
}

pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    let input = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
        Ok(text) => Input::Text(text.to_owned()),
        Err(_) => Input::Bytes { base64: BASE64.encode(bytes) },
    };
    bytes.as_ref().map(input).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    match Option::deserialize(deserializer)? {
        None => Ok(None),
        Some(Input::Text(text)) => Ok(Some(text.into_bytes())),
        Some(Input::Bytes { base64 }) => BASE64.decode(base64).map(Some).map_err(D::Error::custom),
    }
}
