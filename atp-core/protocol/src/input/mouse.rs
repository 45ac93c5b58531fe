//! Mouse actions and points of the screen.

use std::fmt;
use std::str::FromStr;

use qapi::qmp::InputButton;
use strum::{Display, EnumString};

/// The largest value of an absolute axis (`INPUT_EVENT_ABS_MAX`).
const AXIS_MAX: u32 = 0x7fff;

/// A mouse action.
///
/// ```
/// use atp_protocol::input::MouseAction;
///
/// let action = MouseAction::from_words(["click", "right", "50%", "50%"])?;
/// assert!(!action.needs_screen_size());
/// assert!(MouseAction::from_words(["move", "640", "360"])?.needs_screen_size());
/// # Ok::<(), atp_protocol::input::MouseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum MouseAction {
    /// Move the pointer to a point.
    Move(Point),
    /// Press and release a button, where the pointer is or at a point.
    Click {
        /// The button.
        button: Button,
        /// The number of clicks: 2 is a double click.
        times: u8,
        /// The point, or none for the present position.
        at: Option<Point>,
    },
    /// Turn the wheel.
    Scroll {
        /// The number of notches: down if positive, up if negative.
        notches: i16,
    },
    /// Press a button at one point, move, and release it at another.
    Drag {
        /// The button.
        button: Button,
        /// The point where it is pressed.
        from: Point,
        /// The point where it is released.
        to: Point,
    },
}

/// A mouse button.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString)]
#[strum(serialize_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Button {
    #[default]
    Left,
    Middle,
    Right,
    Side,
    Extra,
}

/// A point of the screen, measured from its left and upper edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The distance from the left edge.
    pub x: Coordinate,
    /// The distance from the upper edge.
    pub y: Coordinate,
}

/// A distance to the right, or down. Written as `640` (pixels), or `0.5` or `50%` (of the screen).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinate {
    /// A pixel, from 0.
    Pixel(u32),
    /// A fraction of the screen, from 0 to 1.
    Fraction(f64),
}

/// The size of a screen, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenSize {
    /// The width.
    pub width: u32,
    /// The height.
    pub height: u32,
}

/// Why words do not form a mouse action, or a point is not on the screen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MouseError {
    /// None of the known forms.
    #[error(
        "{words:?} is none of: move X Y, click [BUTTON] [X Y], double-click [BUTTON] [X Y], scroll N, \
         drag [BUTTON] X Y X Y"
    )]
    NoAction {
        /// The words.
        words: String,
    },
    /// Not a coordinate.
    #[error("{text:?} is not a coordinate: expected a pixel (640), or a fraction of the screen (0.5 or 50%)")]
    NoCoordinate {
        /// The text.
        text: String,
    },
    /// A pixel outside of the screen.
    #[error("there is no pixel {pixel}: the screen has {size} pixels, counted from 0")]
    OffScreen {
        /// The pixel.
        pixel: u32,
        /// The number of pixels in that direction.
        size: u32,
    },
}

impl MouseAction {
    /// Parses an action as a user types it; see [`MouseError::NoAction`] for the forms.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub fn from_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Self, MouseError> {
        let words: Vec<W> = words.into_iter().collect();
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let no_action = || MouseError::NoAction { words: words.join(" ") };
        let (verb, rest) = words.split_first().ok_or_else(no_action)?;
        let (button, rest) = match rest.split_first() {
            Some((first, others)) if matches!(*verb, "click" | "double-click" | "drag") => {
                first.parse().map_or((Button::default(), rest), |button| (button, others))
            }
            _ => (Button::default(), rest),
        };
        match (*verb, rest) {
            ("move", [x, y]) => Ok(MouseAction::Move(Point::parse(x, y)?)),
            ("click" | "double-click", []) => Ok(MouseAction::Click { button, times: times(verb), at: None }),
            ("click" | "double-click", [x, y]) => {
                Ok(MouseAction::Click { button, times: times(verb), at: Some(Point::parse(x, y)?) })
            }
            ("scroll", [notches]) => {
                Ok(MouseAction::Scroll { notches: notches.parse().map_err(|_| no_action())? })
            }
            ("drag", [x1, y1, x2, y2]) => {
                Ok(MouseAction::Drag { button, from: Point::parse(x1, y1)?, to: Point::parse(x2, y2)? })
            }
            _ => Err(no_action()),
        }
    }

    /// Whether it contains pixels, and therefore needs the size of the screen.
    pub fn needs_screen_size(&self) -> bool {
        let pixels = |point: &Point| {
            [point.x, point.y].iter().any(|coordinate| matches!(coordinate, Coordinate::Pixel(_)))
        };
        match self {
            MouseAction::Move(point) | MouseAction::Click { at: Some(point), .. } => pixels(point),
            MouseAction::Drag { from, to, .. } => pixels(from) || pixels(to),
            MouseAction::Click { at: None, .. } | MouseAction::Scroll { .. } => false,
        }
    }
}

fn times(verb: &str) -> u8 {
    if verb == "double-click" { 2 } else { 1 }
}

impl From<Button> for InputButton {
    fn from(button: Button) -> Self {
        match button {
            Button::Left => InputButton::left,
            Button::Middle => InputButton::middle,
            Button::Right => InputButton::right,
            Button::Side => InputButton::side,
            Button::Extra => InputButton::extra,
        }
    }
}

impl Point {
    fn parse(x: &str, y: &str) -> Result<Self, MouseError> {
        Ok(Point { x: x.parse()?, y: y.parse()? })
    }

    /// The values of the two absolute axes. Without a screen size, pixels count as off the screen.
    pub(super) fn axes(&self, screen: Option<ScreenSize>) -> Result<[i64; 2], MouseError> {
        let ScreenSize { width, height } = screen.unwrap_or(ScreenSize { width: 0, height: 0 });
        Ok([self.x.axis(width)?, self.y.axis(height)?])
    }
}

impl Coordinate {
    /// The value of an absolute axis for a screen of `size` pixels in that direction.
    ///
    /// It is the middle of the pixel, so that the guest's scaling hits the same pixel with and without rounding.
    fn axis(self, size: u32) -> Result<i64, MouseError> {
        match self {
            Coordinate::Pixel(pixel) if pixel >= size => Err(MouseError::OffScreen { pixel, size }),
            Coordinate::Pixel(pixel) => {
                let middle = 2 * u64::from(pixel) + 1;
                let value = middle * u64::from(AXIS_MAX + 1) / (2 * u64::from(size));
                Ok(value.min(u64::from(AXIS_MAX)).cast_signed())
            }
            // A cast from a float saturates.
            Coordinate::Fraction(part) => Ok((part.clamp(0.0, 1.0) * f64::from(AXIS_MAX)).round() as i64),
        }
    }
}

impl FromStr for Coordinate {
    type Err = MouseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fraction = match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().ok().map(|percent| percent / 100.0),
            None if text.contains('.') => text.parse().ok(),
            None => return text.parse().map(Coordinate::Pixel).map_err(|_| no_coordinate(text)),
        };
        match fraction {
            Some(fraction) if (0.0..=1.0).contains(&fraction) => Ok(Coordinate::Fraction(fraction)),
            _ => Err(no_coordinate(text)),
        }
    }
}

fn no_coordinate(text: &str) -> MouseError {
    MouseError::NoCoordinate { text: text.to_owned() }
}

impl fmt::Display for MouseAction {
    /// The words that [`from_words`](MouseAction::from_words) parses, including the optional ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MouseAction::Move(to) => write!(f, "move {to}"),
            MouseAction::Click { button, times, at } => {
                let double = if *times > 1 { "double-" } else { "" };
                write!(f, "{double}click {button}")?;
                at.map_or(Ok(()), |at| write!(f, " {at}"))
            }
            MouseAction::Scroll { notches } => write!(f, "scroll {notches}"),
            MouseAction::Drag { button, from, to } => write!(f, "drag {button} {from} {to}"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.x, self.y)
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Coordinate::Pixel(pixel) => write!(f, "{pixel}"),
            Coordinate::Fraction(part) => write!(f, "{part:?}"),
        }
    }
}

impl fmt::Display for ScreenSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn action(words: &str) -> Result<MouseAction, MouseError> {
        MouseAction::from_words(words.split_whitespace())
    }

    const MIDDLE: Point = Point { x: Coordinate::Fraction(0.5), y: Coordinate::Pixel(7) };

    #[test]
    fn words_are_actions() {
        for (words, expected) in [
            ("move 0.5 7", MouseAction::Move(MIDDLE)),
            ("click", MouseAction::Click { button: Button::Left, times: 1, at: None }),
            ("click right", MouseAction::Click { button: Button::Right, times: 1, at: None }),
            ("double-click 50% 7", MouseAction::Click { button: Button::Left, times: 2, at: Some(MIDDLE) }),
            ("scroll -3", MouseAction::Scroll { notches: -3 }),
            (
                "drag middle 50% 7 50% 7",
                MouseAction::Drag { button: Button::Middle, from: MIDDLE, to: MIDDLE },
            ),
        ] {
            assert_eq!(action(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn other_words_are_refused_with_the_list_of_forms() {
        for words in ["", "hover 1 2", "move 1", "move 1 2 3", "scroll x", "scroll 99999", "drag 1 2"] {
            assert!(matches!(action(words), Err(MouseError::NoAction { .. })), "{words}");
        }
        for words in ["move -1 2", "move 1.5 0", "move 101% 0", "move a b", "click lefty 2", "move NaN% 0"] {
            assert!(action(words).is_err(), "{words}");
        }
    }

    #[test]
    fn the_edges_of_the_screen_are_the_ends_of_the_axes() {
        assert_eq!(Coordinate::Fraction(0.0).axis(0), Ok(0));
        assert_eq!(Coordinate::Fraction(1.0).axis(0), Ok(0x7fff));
        assert_eq!(Coordinate::Pixel(720).axis(720), Err(MouseError::OffScreen { pixel: 720, size: 720 }));
    }

    proptest! {
        /// A guest scales the value back to pixels and rounds down.
        #[test]
        fn a_pixel_is_hit(size in 1u32..=16384, part in 0.0f64..1.0) {
            let pixel = (f64::from(size) * part) as u32;
            let value = Coordinate::Pixel(pixel).axis(size).unwrap();
            prop_assert_eq!((value as u64 * u64::from(size) / 0x8000) as u32, pixel);
        }

        #[test]
        fn no_words_make_it_panic(words in proptest::collection::vec("(move|click|drag|scroll|right|-?[0-9.]{0,6}%?)", 0..7)) {
            if let Ok(action) = MouseAction::from_words(&words) {
                let _ = action.needs_screen_size();
                prop_assert!(action.to_string().starts_with(&words[0]), "{action}");
            }
        }
    }
}
