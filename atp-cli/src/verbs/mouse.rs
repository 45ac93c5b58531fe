//! `atp mouse`: moves, clicks, scrolls and drags with the VMs' mice.

use std::time::Duration;

use atp_executor::{MouseSpec, Operation};
use atp_protocol::input::MouseAction;
use clap::Args;

use super::verb::Run;
use crate::args::{TargetArgs, hold};
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::{Forms, table};

const EXAMPLES: &str = "\
Examples:
  atp mouse 'kiosk-*' -- click 50% 50%
  atp mouse web-1 -- drag 10 10 640 400";

/// Move, click, scroll and drag with the VMs' mice
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MouseArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// How long a button is held, and how long each pause is
    #[arg(long, value_name = "DURATION", default_value = "50ms", allow_hyphen_values = true, value_parser = hold::parse)]
    hold: Duration,

    /// The action, after `--`.
    #[arg(
        help = "move X Y | click [BUTTON] [X Y] | double-click [BUTTON] [X Y] | scroll N | drag [BUTTON] X Y X Y, after --; X and Y are pixels (640) or fractions of the screen (0.5, 50%); N is a number of notches, positive for down",
        last = true,
        required = true,
        value_name = "ACTION"
    )]
    action: Vec<String>,
}

impl Run for MouseArgs {
    async fn batch(self, context: &Context) -> Result<Batch, Failure> {
        hold::check(self.hold, context)?;
        let action = MouseAction::from_words(&self.action).map_err(|error| {
            Problem::new(error.to_string()).hint("`atp mouse --help` shows how to write an action")
        })?;
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Mouse(MouseSpec { action: action.to_string(), hold: self.hold }),
            dry_run: would_do,
            forms: Forms::new(table::results, &["data"]),
        })
    }
}

fn would_do(operation: &Operation) -> Vec<String> {
    let Operation::Mouse(spec) = operation else { return Vec::new() };
    vec![format!("mouse would do: {}", spec.action)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_shows_the_action() {
        let words = ["click", "right", "50%", "20"].map(str::to_owned);
        let action = MouseAction::from_words(&words).unwrap();
        let mouse = Operation::Mouse(MouseSpec::new(action.to_string()));
        assert_eq!(would_do(&mouse), ["mouse would do: click right 0.5 20"]);
    }
}
