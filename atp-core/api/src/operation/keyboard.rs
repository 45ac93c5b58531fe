//! Keys that are pressed, text that is typed, and the mouse.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration;

/// Keys to press.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeySpec {
    /// The chords, pressed one after the other: names of keys joined by `-`, as in `ctrl-alt-del`.
    pub chords: Vec<String>,
    /// The time to wait after each press and each release of a key; 10 ms by default.
    #[serde(default = "key_hold", rename = "hold_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub hold: Duration,
}

impl KeySpec {
    /// These chords, at the usual pace.
    pub fn new<C: Into<String>>(chords: impl IntoIterator<Item = C>) -> Self {
        KeySpec { chords: chords.into_iter().map(Into::into).collect(), hold: key_hold() }
    }
}

/// A text to type. [`Debug`](fmt::Debug) does not show it, for it may be a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TypeSpec {
    /// The text. A line feed is Enter.
    pub text: String,
    /// The keyboard layout that the guests use, by its name; `us` by default.
    #[serde(default = "layout")]
    pub layout: String,
    /// The time to wait after each press and each release of a key; 10 ms by default.
    #[serde(default = "key_hold", rename = "hold_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub hold: Duration,
}

impl TypeSpec {
    /// This text on a US keyboard, at the usual pace.
    pub fn new(text: impl Into<String>) -> Self {
        TypeSpec { text: text.into(), layout: layout(), hold: key_hold() }
    }
}

impl fmt::Debug for TypeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypeSpec")
            .field("layout", &self.layout)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

/// Something to do with the mouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MouseSpec {
    /// What: `move X Y`, `click [BUTTON] [X Y]`, `double-click [BUTTON] [X Y]`, `scroll N` or `drag [BUTTON] X Y X Y`. X and
    /// Y are pixels (`640`) or fractions of the screen (`0.5`, `50%`).
    pub action: String,
    /// How long a button is held, and how long each pause is; 50 ms by default.
    #[serde(default = "button_hold", rename = "hold_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub hold: Duration,
}

impl MouseSpec {
    /// This action, at the usual pace.
    pub fn new(action: impl Into<String>) -> Self {
        MouseSpec { action: action.into(), hold: button_hold() }
    }
}

fn key_hold() -> Duration {
    Duration::from_millis(10)
}

fn button_hold() -> Duration {
    Duration::from_millis(50)
}

fn layout() -> String {
    "us".to_owned()
}
