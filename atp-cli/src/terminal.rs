//! Text for terminals: text from guests, daemons and VM names is made safe, and the styles of this program have
//! names.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use atp_executor::Stream;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorMode {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Sets whether stdout and stderr are coloured from now on. With `auto` they are coloured on a terminal, unless
/// `NO_COLOR` is set.
pub(crate) fn set_colors(mode: ColorMode) {
    match mode {
        ColorMode::Auto => anstream::ColorChoice::Auto,
        ColorMode::Always => anstream::ColorChoice::Always,
        ColorMode::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Headings of tables and of groups of targets.
pub(crate) const HEADING: Style = Style::new().bold();
/// The word `error`, and unsuccessful states.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// The word `hint`.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// Success.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Less important text.
pub(crate) const DIM: Style = Style::new().dimmed();

/// The text in a style, with a reset after it.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Untrusted text as one line: control characters become readable escapes.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Untrusted text as a block: as [`line()`], but line feeds and tabs are kept, and CR LF becomes LF.
pub(crate) fn block(text: &str) -> String {
    escape(&text.replace("\r\n", "\n"), |c| c == '\n' || c == '\t').into_owned()
}

/// The output of a process as a block: text in its encoding, or bytes.
pub(crate) fn stream_block(stream: &Stream) -> String {
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

/// Whether a character can control a terminal, or change the reading direction of a line.
pub(crate) fn is_unsafe(c: char) -> bool {
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
