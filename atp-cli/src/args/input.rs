//! `atp key`, `atp type`, `atp mouse`.

use std::time::Duration;

use atp_protocol::input::{Chord, Layout};
use atp_transport::settings::{DurationError, parse_duration};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::targets::TargetArgs;

/// `atp key …`
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// How long to wait after each key goes down or comes up; more for guests that lose keys
    #[arg(long, value_name = "DURATION", default_value = "10ms", allow_hyphen_values = true, value_parser = parse_hold)]
    pub(crate) hold: Duration,

    /// Keys pressed together, by name: ctrl-alt-del, shift-f10, enter, a; after --
    #[arg(last = true, required = true, value_name = "CHORD")]
    pub(crate) chords: Vec<Chord>,
}

/// `atp type …`
#[derive(Debug, Args)]
pub(crate) struct TypeArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// How long to wait after each key goes down or comes up; more for guests that lose keys
    #[arg(long, value_name = "DURATION", default_value = "10ms", allow_hyphen_values = true, value_parser = parse_hold)]
    pub(crate) hold: Duration,

    /// The keyboard layout the guests are set to
    #[arg(long, value_name = "NAME", default_value = "us", value_parser = layout_parser())]
    pub(crate) layout: Layout,

    /// Press Enter at the end
    #[arg(long)]
    pub(crate) enter: bool,

    /// The text, after --; several words are joined by spaces
    #[arg(last = true, required = true, value_name = "TEXT")]
    pub(crate) text: Vec<String>,
}

/// `atp mouse …`
#[derive(Debug, Args)]
pub(crate) struct MouseArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// How long a button is held, and how long the pauses are
    #[arg(long, value_name = "DURATION", default_value = "50ms", allow_hyphen_values = true, value_parser = parse_hold)]
    pub(crate) hold: Duration,

    /// What is done, after `--`.
    #[arg(
        help = "move X Y | click [BUTTON] [X Y] | double-click [BUTTON] [X Y] | scroll N | drag [BUTTON] X Y X Y, after --; X and Y are pixels (640) or parts of the screen (0.5, 50%), N is notches, down if positive",
        last = true,
        required = true,
        value_name = "ACTION"
    )]
    pub(crate) action: Vec<String>,
}

fn parse_hold(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(hold) if hold >= Duration::from_millis(1) => Ok(hold),
        Err(error @ DurationError::TooLong) => Err(error.to_string()),
        _ => Err("expected a duration of at least 1ms".to_owned()),
    }
}

/// Reads a layout, and lets the help list those there are.
fn layout_parser() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(Layout::ALL.map(|layout| layout.name()))
        .try_map(|name| Layout::by_name(&name).ok_or("there is no such layout"))
}

pub(super) const KEY_EXAMPLES: &str = "\
Examples:
  atp key 'kiosk-*' -- ctrl-alt-del
  atp key web-1 -- esc down down enter";

pub(super) const TYPE_EXAMPLES: &str = "\
Examples:
  atp type web-1 --enter -- root
  atp type 'lab-*/' --layout de --hold 20ms -- 'Guten Tag!'";

pub(super) const MOUSE_EXAMPLES: &str = "\
Examples:
  atp mouse 'kiosk-*' -- click 50% 50%
  atp mouse web-1 -- drag 10 10 640 400";
