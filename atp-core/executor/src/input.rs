//! What is done with the keyboard and the mouse of each target.

use atp_protocol::input::{Chord, KeyTiming, Layout, MouseAction, MouseTiming, UntypableCharacter};

/// Keys to press.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// The chords, pressed one after the other.
    pub chords: Vec<Chord>,
    /// How fast.
    pub timing: KeyTiming,
}

impl KeySpec {
    /// These chords, at the usual pace.
    pub fn new(chords: Vec<Chord>) -> Self {
        KeySpec { chords, timing: KeyTiming::default() }
    }

    /// The strokes that type a text on a guest with that keyboard layout.
    ///
    /// # Errors
    /// The first character the layout has no key for.
    pub fn of_text(text: &str, layout: Layout) -> Result<Self, UntypableCharacter> {
        Ok(KeySpec::new(layout.strokes(text)?))
    }
}

/// Something to do with the mouse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MouseSpec {
    /// What.
    pub action: MouseAction,
    /// How fast.
    pub timing: MouseTiming,
}
