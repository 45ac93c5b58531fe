//! Text from guests, daemons and VM names, made safe for terminals, logs and files that people read.

use std::borrow::Cow;
use std::fmt::Write as _;

use atp_api::{Outcome, Stream};
use atp_transport::HostId;

/// Untrusted text as one line: control characters become readable escapes.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Untrusted text as a block: as [`line()`], but line feeds and tabs are kept, and CR LF becomes LF.
pub fn block(text: &str) -> String {
    escape(&text.replace("\r\n", "\n"), |c| c == '\n' || c == '\t').into_owned()
}

/// The output of a process as a block: text in its encoding, or bytes.
pub fn stream_block(stream: &Stream) -> String {
    match stream.text() {
        Some((text, _)) => block(&text),
        None => byte_block(&stream.bytes),
    }
}

/// Untrusted bytes as a block: as [`block`], and bytes that are not UTF-8 become `\xNN`.
fn byte_block(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    block(&text)
}

/// `HOST/VM`, `HOST`, or `VM` if it was found on no host; safe for a terminal.
pub fn target_name(host: Option<&HostId>, vm: Option<&str>) -> String {
    match (host, vm) {
        (Some(host), Some(vm)) => format!("{host}/{}", line(vm)),
        (Some(host), None) => host.to_string(),
        (None, vm) => line(vm.unwrap_or("?")).into_owned(),
    }
}

/// The name of an outcome's target.
pub fn name_of(outcome: &Outcome) -> String {
    target_name(outcome.host.as_ref(), outcome.vm.as_deref())
}

/// Whether a character can control a terminal, or change the reading direction of a line.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |c: char| is_unsafe(c) && !keep(c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' if is_escaped(c) => safe.push_str("\\n"),
            '\t' if is_escaped(c) => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            c if !is_escaped(c) => safe.push(c),
            c if c.is_ascii() => {
                let _ = write!(safe, "\\x{:02x}", c as u32);
            }
            c => {
                let _ = write!(safe, "\\u{{{:x}}}", c as u32);
            }
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_text() {
        assert_eq!(line("\x1b[2Jweb\x07"), "\\x1b[2Jweb\\x07");
        assert_eq!(line("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(line("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(line("two\nlines\tand\rmore\x7f"), "two\\nlines\\tand\\rmore\\x7f");
    }

    #[test]
    fn safe_text_is_kept() {
        for text in ["web-1", "日本語", "é", "a \\ b", "→ ü 😀"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn blocks_keep_lines_and_tabs() {
        assert_eq!(block("a\tb\r\nc\n\x1b]0;title\x07"), "a\tb\nc\n\\x1b]0;title\\x07");
        assert_eq!(block("50%\r100%"), "50%\\r100%");
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_as_hex() {
        assert_eq!(byte_block(b"ok\xff\xfe\n"), "ok\\xff\\xfe\n");
        assert_eq!(byte_block(b"\x9b1m\x1b"), "\\x9b1m\\x1b");
    }
}
