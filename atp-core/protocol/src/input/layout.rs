//! The keys that produce each character.

use qapi::qmp::QKeyCode;

use super::chord::Chord;

/// A keyboard layout as configured in the guest: QEMU sends keys, and the guest converts them to characters.
///
/// Layouts are data. Dead keys are left out, because they do not produce a character by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    name: &'static str,
    /// The characters that each of the [`KEYS`] produces alone, with Shift, and with AltGr; a space if it produces
    /// none.
    levels: [&'static str; 3],
}

/// The modifier keys of the three columns.
const LEVELS: [Option<QKeyCode>; 3] = [None, Some(QKeyCode::shift), Some(QKeyCode::alt_r)];

/// The keys that produce characters, row by row, named by their position on an American keyboard. `less` is the key
/// beside the left Shift that an American keyboard does not have.
#[rustfmt::skip]
const KEYS: [QKeyCode; 48] = [
    QKeyCode::grave_accent, QKeyCode::_1, QKeyCode::_2, QKeyCode::_3, QKeyCode::_4, QKeyCode::_5, QKeyCode::_6,
    QKeyCode::_7, QKeyCode::_8, QKeyCode::_9, QKeyCode::_0, QKeyCode::minus, QKeyCode::equal,
    QKeyCode::q, QKeyCode::w, QKeyCode::e, QKeyCode::r, QKeyCode::t, QKeyCode::y, QKeyCode::u, QKeyCode::i, QKeyCode::o,
    QKeyCode::p, QKeyCode::bracket_left, QKeyCode::bracket_right,
    QKeyCode::a, QKeyCode::s, QKeyCode::d, QKeyCode::f, QKeyCode::g, QKeyCode::h, QKeyCode::j, QKeyCode::k, QKeyCode::l,
    QKeyCode::semicolon, QKeyCode::apostrophe, QKeyCode::backslash,
    QKeyCode::less, QKeyCode::z, QKeyCode::x, QKeyCode::c, QKeyCode::v, QKeyCode::b, QKeyCode::n, QKeyCode::m,
    QKeyCode::comma, QKeyCode::dot, QKeyCode::slash,
];

/// A character that the layout has no key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keyboard layout {layout:?} has no key for {character:?} (character {position})")]
pub struct UntypableCharacter {
    /// The character.
    pub character: char,
    /// Its position in the text, from 1.
    pub position: usize,
    /// The layout's name.
    pub layout: &'static str,
}

impl Layout {
    /// The American layout.
    pub const US: Layout = Layout {
        name: "us",
        levels: [
            r#"`1234567890-=qwertyuiop[]asdfghjkl;'\ zxcvbnm,./"#,
            r#"~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"| ZXCVBNM<>?"#,
            "",
        ],
    };
    /// The German layout.
    pub const DE: Layout = Layout {
        name: "de",
        levels: [
            r#" 1234567890ß qwertzuiopü+asdfghjklöä#<yxcvbnm,.-"#,
            r#"°!"§$%&/()=? QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_"#,
            r#"  ²³   {[]}\ @ €        ~            |      µ"#,
        ],
    };

    /// All layouts.
    pub const ALL: [Layout; 2] = [Layout::US, Layout::DE];

    /// The layout with that name, as in `setxkbmap`.
    pub fn by_name(name: &str) -> Option<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.name == name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The key strokes that type a text, one for each character. A line feed, with or without a carriage return before
    /// it, is Enter.
    ///
    /// # Errors
    /// The first character that cannot be typed.
    pub fn strokes(&self, text: &str) -> Result<Vec<Chord>, UntypableCharacter> {
        let mut strokes = Vec::new();
        let mut characters = text.chars().zip(1..).peekable();
        while let Some((character, position)) = characters.next() {
            if character == '\r' && characters.peek().is_some_and(|(next, _)| *next == '\n') {
                continue;
            }
            let stroke = self.stroke(character);
            let untypable = UntypableCharacter { character, position, layout: self.name };
            strokes.push(stroke.ok_or(untypable)?);
        }
        Ok(strokes)
    }

    /// The keys that produce one character.
    pub fn stroke(&self, character: char) -> Option<Chord> {
        let control = match character {
            '\n' | '\r' => Some(QKeyCode::ret),
            '\t' => Some(QKeyCode::tab),
            ' ' => Some(QKeyCode::spc),
            '\u{8}' => Some(QKeyCode::backspace),
            '\u{1b}' => Some(QKeyCode::esc),
            _ => None,
        };
        if let Some(key) = control {
            return Chord::of([key]);
        }
        LEVELS.into_iter().zip(self.levels).find_map(|(held, made)| {
            let place = made.chars().position(|made| made == character)?;
            Chord::of(held.into_iter().chain(KEYS.get(place).copied()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn typed(layout: Layout, text: &str) -> String {
        let strokes = layout.strokes(text).unwrap();
        strokes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn case_and_punctuation_need_shift() {
        assert_eq!(typed(Layout::US, "aB1!"), "a shift-b 1 shift-1");
        assert_eq!(typed(Layout::US, "x\r\ny\tz\n"), "x ret y tab z ret");
        assert_eq!(typed(Layout::DE, "zY@€"), "y shift-z alt_r-q alt_r-e");
        assert_eq!(
            typed(Layout::DE, "\\|µ~#ß?-_"),
            "alt_r-minus alt_r-less alt_r-m alt_r-bracket_right \
                    backslash minus shift-minus slash shift-slash"
        );
        assert_eq!(
            typed(Layout::US, "\\|<>?"),
            "backslash shift-backslash shift-comma shift-dot shift-slash"
        );
    }

    #[test]
    fn a_character_without_a_key_is_named() {
        let error = Layout::US.strokes("naïve").unwrap_err();
        assert_eq!(error, UntypableCharacter { character: 'ï', position: 3, layout: "us" });
    }

    #[test]
    fn every_printable_ascii_character_can_be_typed() {
        let german_dead_keys = ['^', '`'];
        for character in ' '..='~' {
            assert!(Layout::US.stroke(character).is_some(), "us: {character:?}");
            let expected = !german_dead_keys.contains(&character);
            assert_eq!(Layout::DE.stroke(character).is_some(), expected, "de: {character:?}");
        }
    }

    #[test]
    fn a_layout_has_each_character_once() {
        for layout in Layout::ALL {
            assert_eq!(Layout::by_name(layout.name()), Some(layout));
            assert!(layout.levels.iter().all(|made| made.chars().count() <= KEYS.len()), "{}", layout.name());
            let made: Vec<char> = layout.levels.concat().chars().filter(|made| *made != ' ').collect();
            let distinct: HashSet<_> = made.iter().collect();
            assert_eq!(distinct.len(), made.len(), "{}", layout.name());
        }
    }

    proptest! {
        #[test]
        fn one_stroke_a_character(text in "[ -~]{0,60}") {
            prop_assert_eq!(Layout::US.strokes(&text).unwrap().len(), text.len());
        }
    }
}
