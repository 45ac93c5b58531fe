//! Keyboard and mouse, as if someone sat at the VM (`send-key`, `input-send-event`).
//!
//! A [`Chord`] is pressed together and released; text becomes one stroke a character through a [`Layout`]; the
//! mouse is a [`MouseAction`]. QEMU delivers to whatever input device the guest uses. That it did so does not mean
//! that anything in the guest took notice.

mod chord;
mod keyboard;
mod layout;
mod mouse;
mod pointer;

pub use chord::{CHORD_MAX, Chord, ChordError};
pub use keyboard::{KeyTiming, press};
pub use layout::{Layout, UntypableCharacter};
pub use mouse::{Button, Coordinate, MouseAction, MouseError, Point, ScreenSize};
pub use pointer::{MouseTiming, point};
