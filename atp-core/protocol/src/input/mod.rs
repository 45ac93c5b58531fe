//! Keyboard and mouse input (`send-key`, `input-send-event`).
//!
//! A [`Chord`] is pressed together and released. A [`Layout`] converts text to one key stroke per character. A
//! [`MouseAction`] is an action of the mouse. QEMU delivers them to the input device that the guest uses. Success does
//! not mean that a program in the guest reacted.

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
