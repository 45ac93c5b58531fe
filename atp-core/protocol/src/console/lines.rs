//! The lines of a console, without what is for terminals only.

use std::borrow::Cow;

/// Splits what a console writes into lines. Control characters and escape sequences of terminals are left out.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    state: State,
}

/// Where in an escape sequence the text is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and intermediate characters, as of a choice of a character set: one more follows.
    Intermediate,
    /// In a control sequence (`ESC [`), until a letter.
    Control,
    /// In a string for the terminal (`ESC ]` and others), until BEL or ESC.
    String,
}

impl Lines {
    /// The longest line, bytes. A longer one is split.
    pub const LONGEST: usize = 4096;

    /// Takes bytes, and passes on each line that they complete.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            if self.takes(byte) {
                self.line.push(byte);
            }
            // Not inside a character, unless there is no end of such bytes.
            let longest = if byte < 0x80 { Self::LONGEST } else { Self::LONGEST + 4 };
            let is_full = self.line.len() >= longest;
            if (byte == b'\n' && self.state == State::Text) || is_full {
                each(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            }
        }
    }

    /// The line that is not complete, such as a prompt.
    pub fn unfinished(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.line)
    }

    /// Ends the line that is not complete, as nothing follows it directly. None if there is none.
    pub fn finish(&mut self) -> Option<String> {
        self.state = State::Text;
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        (!line.is_empty()).then_some(line)
    }

    /// Whether the byte is part of the line.
    fn takes(&mut self, byte: u8) -> bool {
        const ESC: u8 = 0x1b;
        const BEL: u8 = 0x07;
        // A line ends whatever it is in: a sequence that was cut off does not hide the lines after it.
        if byte == b'\n' {
            self.state = State::Text;
            return false;
        }
        self.state = match (self.state, byte) {
            (_, ESC) => State::Escape,
            (State::Text, b'\t' | b' '..=b'~' | 0x80..) => return true,
            (State::Text, _) => State::Text,
            (State::Escape, b'[') => State::Control,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
            (State::Escape | State::Intermediate, b' '..=b'/') => State::Intermediate,
            (State::Escape | State::Intermediate, _) => State::Text,
            (State::Control, b'@'..=b'~') => State::Text,
            (State::Control, _) => State::Control,
            (State::String, BEL) => State::Text,
            (State::String, _) => State::String,
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut split = Lines::default();
        split.push(bytes, |line| lines.push(line.to_owned()));
        lines.extend(split.finish());
        lines
    }

    #[test]
    fn lines_have_no_ends_and_nothing_for_terminals() {
        assert_eq!(lines(b"a\r\nb\n\nlogin: "), ["a", "b", "", "login: "]);
        assert_eq!(lines(b"\x1b[1;31mred\x1b[0m\x1b]0;title\x07 text\x1b(B\x1bM\x00\x08!\n"), ["red text!"]);
        assert_eq!(lines("grün\n".as_bytes()), ["grün"]);
        assert_eq!(lines(b"cut\x1b[1\nnext\x1b]0;\nlast\n"), ["cut", "next", "last"]);
    }

    #[test]
    fn a_long_line_is_split() {
        let lines = lines(&[b'x'; 3 * Lines::LONGEST + 1]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [4096, 4096, 4096, 1]);
    }

    proptest! {
        #[test]
        fn where_bytes_are_split_makes_no_difference(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(0x1b), Just(b'[')], 0..300),
            at in any::<proptest::sample::Index>(),
        ) {
            let at = at.index(bytes.len() + 1);
            let (mut split, mut apart) = (Lines::default(), Vec::new());
            for part in [&bytes[..at], &bytes[at..]] {
                split.push(part, |line| apart.push(line.to_owned()));
            }
            apart.extend(split.finish());
            prop_assert_eq!(&apart, &lines(&bytes));
            for line in &apart {
                prop_assert!(!line.contains(|c: char| c.is_ascii_control() && c != '\t'), "{:?}", line);
            }
        }
    }
}
