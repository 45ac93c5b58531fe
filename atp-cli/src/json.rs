//! JSON that is safe for terminals: characters that JSON allows unescaped (DEL, C1 controls, bidirectional overrides)
//! are escaped too.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::terminal;

/// A value on one line, with a line feed.
pub(crate) fn line(value: &impl Serialize) -> String {
    let mut text = compact(value);
    text.push('\n');
    text
}

/// One array, with one line per value.
pub(crate) fn array(values: &[impl Serialize]) -> String {
    if values.is_empty() {
        return "[]\n".to_owned();
    }
    let lines: Vec<_> = values.iter().map(compact).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// A value on several lines, for people.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A value on one line, without a line feed.
pub(crate) fn compact(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, EscapeUnsafe);
    // Writing to memory does not fail, and all maps written here have strings as keys.
    if value.serialize(&mut serializer).is_err() {
        return "null".to_owned();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct EscapeUnsafe;

impl Formatter for EscapeUnsafe {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !fragment.contains(terminal::is_unsafe) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut safe = String::with_capacity(fragment.len() + 8);
        for c in fragment.chars() {
            // All of them are in the basic plane, where an escape has four digits.
            if terminal::is_unsafe(c) {
                let _ = write!(safe, "\\u{:04x}", c as u32);
            } else {
                safe.push(c);
            }
        }
        writer.write_all(safe.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_none_is_lost() {
        let text = "a\x1b[31m\u{9b}2J\x7f\u{202e}é\n\"";
        let json = compact(&text);
        assert!(!json.contains(terminal::is_unsafe), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn an_array_is_valid_with_no_one_and_many_values() {
        for values in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!(serde_json::from_str::<Vec<i32>>(&array(values)).unwrap(), values);
        }
    }
}
