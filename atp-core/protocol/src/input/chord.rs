//! Keys that are pressed together, by name.

use std::fmt;
use std::str::FromStr;

use qapi::Enum;
use qapi::qmp::QKeyCode;

use crate::nearest::nearest;

/// The most keys in one chord, which is the limit of one `send-key`.
pub const CHORD_MAX: usize = 16;

/// Keys that are pressed one after another and held, then released in the opposite order.
///
/// Written as names joined by `-` or `+`: `ctrl-alt-del`, `shift+f10`, `a`. A name is one of QEMU's (`QKeyCode`), a
/// common alternative (`enter`, `esc`, `win`, `pageup`, …), or the character on the key (`;`, `/`, a final `-`). Case
/// is ignored: `A` is the key, and `shift-a` the capital letter.
///
/// ```
/// use atp_protocol::input::Chord;
///
/// let chord: Chord = "Ctrl-Alt-Del".parse()?;
/// assert_eq!(chord.to_string(), "ctrl-alt-delete");
/// assert!("ctrl-altt".parse::<Chord>().unwrap_err().to_string().contains("alt"));
/// # Ok::<(), atp_protocol::input::ChordError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chord {
    keys: Vec<QKeyCode>,
}

/// Why text is not a chord.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChordError {
    /// It contains no key.
    #[error("{chord:?} has no key, or none between two separators: write it as ctrl-alt-del")]
    Empty {
        /// The text.
        chord: String,
    },
    /// There is no key with that name.
    #[error("there is no key {name:?}{}", nearest.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The name.
        name: String,
        /// The most similar name, if there is one.
        nearest: Option<&'static str>,
    },
    /// It contains a key twice.
    #[error("the key {name:?} is in {chord:?} twice")]
    Twice {
        /// The text.
        chord: String,
        /// The key.
        name: &'static str,
    },
    /// It contains more keys than QEMU accepts at once.
    #[error("{chord:?} has {keys} keys, and at most {CHORD_MAX} can be pressed together")]
    TooMany {
        /// The text.
        chord: String,
        /// The number of keys in it.
        keys: usize,
    },
}

/// Alternative names of QEMU's keys.
const ALIASES: [(&str, QKeyCode); 49] = [
    ("enter", QKeyCode::ret),
    ("return", QKeyCode::ret),
    ("space", QKeyCode::spc),
    ("escape", QKeyCode::esc),
    ("del", QKeyCode::delete),
    ("ins", QKeyCode::insert),
    ("bs", QKeyCode::backspace),
    ("pageup", QKeyCode::pgup),
    ("pagedown", QKeyCode::pgdn),
    ("pgdown", QKeyCode::pgdn),
    ("control", QKeyCode::ctrl),
    ("ctrl_l", QKeyCode::ctrl),
    ("shift_l", QKeyCode::shift),
    ("alt_l", QKeyCode::alt),
    ("altgr", QKeyCode::alt_r),
    ("win", QKeyCode::meta_l),
    ("super", QKeyCode::meta_l),
    ("meta", QKeyCode::meta_l),
    ("cmd", QKeyCode::meta_l),
    ("apps", QKeyCode::compose),
    ("contextmenu", QKeyCode::compose),
    ("capslock", QKeyCode::caps_lock),
    ("numlock", QKeyCode::num_lock),
    ("scrolllock", QKeyCode::scroll_lock),
    ("printscreen", QKeyCode::print),
    ("prtsc", QKeyCode::print),
    ("period", QKeyCode::dot),
    ("equals", QKeyCode::equal),
    ("dash", QKeyCode::minus),
    ("hyphen", QKeyCode::minus),
    ("quote", QKeyCode::apostrophe),
    ("backtick", QKeyCode::grave_accent),
    ("grave", QKeyCode::grave_accent),
    ("kp_minus", QKeyCode::kp_subtract),
    ("kp_plus", QKeyCode::kp_add),
    ("mute", QKeyCode::audiomute),
    (" ", QKeyCode::spc),
    ("-", QKeyCode::minus),
    ("=", QKeyCode::equal),
    ("[", QKeyCode::bracket_left),
    ("]", QKeyCode::bracket_right),
    (";", QKeyCode::semicolon),
    ("'", QKeyCode::apostrophe),
    ("`", QKeyCode::grave_accent),
    ("\\", QKeyCode::backslash),
    (",", QKeyCode::comma),
    (".", QKeyCode::dot),
    ("/", QKeyCode::slash),
    ("<", QKeyCode::less),
];

impl Chord {
    /// A chord of these keys. None if they are not keys, too many, or if one of them is given twice.
    pub fn of(keys: impl IntoIterator<Item = QKeyCode>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().collect();
        let twice = keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key));
        (!keys.is_empty() && keys.len() <= CHORD_MAX && !twice).then_some(Chord { keys })
    }

    /// The keys, in the order in which they are pressed.
    pub fn keys(&self) -> &[QKeyCode] {
        &self.keys
    }
}

impl FromStr for Chord {
    type Err = ChordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let keys = words(text).map(key).collect::<Result<Vec<_>, _>>()?;
        let chord = || text.to_owned();
        if keys.is_empty() || text.is_empty() {
            return Err(ChordError::Empty { chord: chord() });
        }
        if keys.len() > CHORD_MAX {
            return Err(ChordError::TooMany { chord: chord(), keys: keys.len() });
        }
        match keys.iter().enumerate().find(|(at, key)| keys[..*at].contains(key)) {
            Some((_, key)) => Err(ChordError::Twice { chord: chord(), name: key.name() }),
            None => Ok(Chord { keys }),
        }
    }
}

/// The names in a chord. A `-` at its end, behind a separator or alone, is a key and not a separator.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let separators = ['-', '+'];
    let (rest, last) = match text.strip_suffix('-') {
        Some("") => (None, Some("-")),
        Some(rest) if rest.ends_with(separators) => (Some(&rest[..rest.len() - 1]), Some("-")),
        _ => (Some(text), None),
    };
    rest.into_iter().flat_map(move |rest| rest.split(separators)).chain(last)
}

fn key(name: &str) -> Result<QKeyCode, ChordError> {
    let lower = name.to_ascii_lowercase();
    if lower.is_empty() {
        return Err(ChordError::Empty { chord: name.to_owned() });
    }
    let found = QKeyCode::from_name(&lower)
        .filter(|&code| code != QKeyCode::unmapped)
        .or_else(|| ALIASES.iter().find(|(alias, _)| *alias == lower).map(|&(_, code)| code));
    let known = QKeyCode::NAMES.iter().copied().chain(ALIASES.iter().map(|(alias, _)| *alias));
    found.ok_or_else(|| ChordError::UnknownKey { name: name.to_owned(), nearest: nearest(&lower, known) })
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.keys.iter().enumerate() {
            if at > 0 {
                f.write_str("-")?;
            }
            f.write_str(key.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<Chord>().map_or_else(|error| format!("error: {error}"), |chord| chord.to_string())
    }

    #[test]
    fn names_are_qemus_or_common_alternatives() {
        for (text, expected) in [
            ("a", "a"),
            ("A", "a"),
            ("ctrl-alt-del", "ctrl-alt-delete"),
            ("Ctrl+Alt+Delete", "ctrl-alt-delete"),
            ("shift-f10", "shift-f10"),
            ("win-r", "meta_l-r"),
            ("enter", "ret"),
            ("ctrl--", "ctrl-minus"),
            ("ctrl+-", "ctrl-minus"),
            ("-", "minus"),
            ("shift-;", "shift-semicolon"),
            ("kp_5", "kp_5"),
            ("1", "1"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn an_invalid_chord_is_an_error_with_a_reason() {
        for (text, said) in [
            ("", "no key"),
            ("+", "no key"),
            ("ctrl-", "no key"),
            ("ctrl--alt", "no key"),
            ("ctrl-entr", "did you mean \"enter\"?"),
            ("unmapped", "no key \"unmapped\""),
            ("ctrl-control", "twice"),
            ("a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q", "17 keys"),
        ] {
            assert!(
                parsed(text).starts_with("error: ") && parsed(text).contains(said),
                "{text}: {}",
                parsed(text)
            );
        }
    }

    #[test]
    fn no_alias_hides_a_key_of_qemu() {
        for (alias, _) in ALIASES {
            assert_eq!(QKeyCode::from_name(alias), None, "{alias}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_again(keys in proptest::collection::hash_set(1..QKeyCode::COUNT, 1..=CHORD_MAX)) {
            let chord = Chord::of(keys.into_iter().map(|at| QKeyCode::VARIANTS[at])).unwrap();
            prop_assert_eq!(chord.to_string().parse::<Chord>().unwrap(), chord);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), likely in "[-+a-c]{0,40}") {
            let _ = text.parse::<Chord>();
            if let Ok(chord) = likely.parse::<Chord>() {
                prop_assert!(chord.keys().len() <= CHORD_MAX);
            }
        }
    }
}
