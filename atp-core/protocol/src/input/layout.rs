//! Which keys make which characters.

use qapi::qmp::QKeyCode;

use super::chord::Chord;

/// A keyboard layout as the guest has it configured: QEMU sends keys, and the guest makes characters of them.
///
/// Layouts are data. Dead keys are left out: they make no character by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    name: &'static str,
    keys: &'static [LayoutKey],
}

/// One key: what it makes alone, with Shift, and with AltGr.
type LayoutKey = (QKeyCode, [Option<char>; 3]);

/// What is held for each of the three.
const LEVELS: [Option<QKeyCode>; 3] = [None, Some(QKeyCode::shift), Some(QKeyCode::alt_r)];

/// A character that the layout has no key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keyboard layout {layout:?} has no key for {character:?} (character {position})")]
pub struct UntypableCharacter {
    /// The character.
    pub character: char,
    /// Which one of the text it is, from 1.
    pub position: usize,
    /// The layout's name.
    pub layout: &'static str,
}

impl Layout {
    /// The American layout.
    pub const US: Layout = Layout { name: "us", keys: &US };
    /// The German layout.
    pub const DE: Layout = Layout { name: "de", keys: &DE };

    /// All of them.
    pub const ALL: [Layout; 2] = [Layout::US, Layout::DE];

    /// The layout of that name, as `setxkbmap` names it.
    pub fn by_name(name: &str) -> Option<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.name == name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The strokes that type a text, one for each character. A line feed, with or without a carriage return before
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

    /// The keys that make one character.
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
        self.keys.iter().find_map(|(key, characters)| {
            let level = characters.iter().position(|made| *made == Some(character))?;
            Chord::of(LEVELS[level].into_iter().chain([*key]))
        })
    }
}

/// A key that makes one character alone and another with Shift.
const fn pair(key: QKeyCode, plain: char, shift: char) -> LayoutKey {
    (key, [Some(plain), Some(shift), None])
}

/// The same with a third, by AltGr.
const fn triple(key: QKeyCode, plain: char, shift: char, alt_gr: char) -> LayoutKey {
    (key, [Some(plain), Some(shift), Some(alt_gr)])
}

const US: [LayoutKey; 47] = [
    pair(QKeyCode::grave_accent, '`', '~'),
    pair(QKeyCode::_1, '1', '!'),
    pair(QKeyCode::_2, '2', '@'),
    pair(QKeyCode::_3, '3', '#'),
    pair(QKeyCode::_4, '4', '$'),
    pair(QKeyCode::_5, '5', '%'),
    pair(QKeyCode::_6, '6', '^'),
    pair(QKeyCode::_7, '7', '&'),
    pair(QKeyCode::_8, '8', '*'),
    pair(QKeyCode::_9, '9', '('),
    pair(QKeyCode::_0, '0', ')'),
    pair(QKeyCode::minus, '-', '_'),
    pair(QKeyCode::equal, '=', '+'),
    pair(QKeyCode::q, 'q', 'Q'),
    pair(QKeyCode::w, 'w', 'W'),
    pair(QKeyCode::e, 'e', 'E'),
    pair(QKeyCode::r, 'r', 'R'),
    pair(QKeyCode::t, 't', 'T'),
    pair(QKeyCode::y, 'y', 'Y'),
    pair(QKeyCode::u, 'u', 'U'),
    pair(QKeyCode::i, 'i', 'I'),
    pair(QKeyCode::o, 'o', 'O'),
    pair(QKeyCode::p, 'p', 'P'),
    pair(QKeyCode::bracket_left, '[', '{'),
    pair(QKeyCode::bracket_right, ']', '}'),
    pair(QKeyCode::backslash, '\\', '|'),
    pair(QKeyCode::a, 'a', 'A'),
    pair(QKeyCode::s, 's', 'S'),
    pair(QKeyCode::d, 'd', 'D'),
    pair(QKeyCode::f, 'f', 'F'),
    pair(QKeyCode::g, 'g', 'G'),
    pair(QKeyCode::h, 'h', 'H'),
    pair(QKeyCode::j, 'j', 'J'),
    pair(QKeyCode::k, 'k', 'K'),
    pair(QKeyCode::l, 'l', 'L'),
    pair(QKeyCode::semicolon, ';', ':'),
    pair(QKeyCode::apostrophe, '\'', '"'),
    pair(QKeyCode::z, 'z', 'Z'),
    pair(QKeyCode::x, 'x', 'X'),
    pair(QKeyCode::c, 'c', 'C'),
    pair(QKeyCode::v, 'v', 'V'),
    pair(QKeyCode::b, 'b', 'B'),
    pair(QKeyCode::n, 'n', 'N'),
    pair(QKeyCode::m, 'm', 'M'),
    pair(QKeyCode::comma, ',', '<'),
    pair(QKeyCode::dot, '.', '>'),
    pair(QKeyCode::slash, '/', '?'),
];

/// Keys are named by where they are on an American keyboard; `y` and `z` have changed places.
const DE: [LayoutKey; 47] = [
    (QKeyCode::grave_accent, [None, Some('°'), None]),
    pair(QKeyCode::_1, '1', '!'),
    triple(QKeyCode::_2, '2', '"', '²'),
    triple(QKeyCode::_3, '3', '§', '³'),
    pair(QKeyCode::_4, '4', '$'),
    pair(QKeyCode::_5, '5', '%'),
    pair(QKeyCode::_6, '6', '&'),
    triple(QKeyCode::_7, '7', '/', '{'),
    triple(QKeyCode::_8, '8', '(', '['),
    triple(QKeyCode::_9, '9', ')', ']'),
    triple(QKeyCode::_0, '0', '=', '}'),
    triple(QKeyCode::minus, 'ß', '?', '\\'),
    triple(QKeyCode::q, 'q', 'Q', '@'),
    pair(QKeyCode::w, 'w', 'W'),
    triple(QKeyCode::e, 'e', 'E', '€'),
    pair(QKeyCode::r, 'r', 'R'),
    pair(QKeyCode::t, 't', 'T'),
    pair(QKeyCode::y, 'z', 'Z'),
    pair(QKeyCode::u, 'u', 'U'),
    pair(QKeyCode::i, 'i', 'I'),
    pair(QKeyCode::o, 'o', 'O'),
    pair(QKeyCode::p, 'p', 'P'),
    pair(QKeyCode::bracket_left, 'ü', 'Ü'),
    triple(QKeyCode::bracket_right, '+', '*', '~'),
    pair(QKeyCode::a, 'a', 'A'),
    pair(QKeyCode::s, 's', 'S'),
    pair(QKeyCode::d, 'd', 'D'),
    pair(QKeyCode::f, 'f', 'F'),
    pair(QKeyCode::g, 'g', 'G'),
    pair(QKeyCode::h, 'h', 'H'),
    pair(QKeyCode::j, 'j', 'J'),
    pair(QKeyCode::k, 'k', 'K'),
    pair(QKeyCode::l, 'l', 'L'),
    pair(QKeyCode::semicolon, 'ö', 'Ö'),
    pair(QKeyCode::apostrophe, 'ä', 'Ä'),
    pair(QKeyCode::backslash, '#', '\''),
    triple(QKeyCode::less, '<', '>', '|'),
    pair(QKeyCode::z, 'y', 'Y'),
    pair(QKeyCode::x, 'x', 'X'),
    pair(QKeyCode::c, 'c', 'C'),
    pair(QKeyCode::v, 'v', 'V'),
    pair(QKeyCode::b, 'b', 'B'),
    pair(QKeyCode::n, 'n', 'N'),
    triple(QKeyCode::m, 'm', 'M', 'µ'),
    pair(QKeyCode::comma, ',', ';'),
    pair(QKeyCode::dot, '.', ':'),
    pair(QKeyCode::slash, '-', '_'),
];

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
    }

    #[test]
    fn what_no_key_makes_is_named() {
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
    fn a_layout_has_each_key_and_each_character_once() {
        for layout in Layout::ALL {
            assert_eq!(Layout::by_name(layout.name()), Some(layout));
            let keys: HashSet<_> = layout.keys.iter().map(|(key, _)| *key as usize).collect();
            assert_eq!(keys.len(), layout.keys.len(), "{}", layout.name());
            let made: Vec<char> =
                layout.keys.iter().flat_map(|(_, made)| made.iter().flatten().copied()).collect();
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
