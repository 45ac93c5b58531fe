//! `atp key`: keys pressed on the VMs' keyboards.

use std::time::Duration;

use atp_executor::{KeySpec, Operation};
use atp_protocol::input::Chord;
use clap::Args;

use super::verb::Run;
use crate::args::{TargetArgs, hold};
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::Failure;
use crate::render::{Forms, table};

const EXAMPLES: &str = "\
Examples:
  atp key 'kiosk-*' -- ctrl-alt-del
  atp key web-1 -- esc down down enter";

/// Press keys on the VMs' keyboards
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// Time to wait after each press and each release of a key; increase it for guests that lose keys
    #[arg(long, value_name = "DURATION", default_value = "10ms", allow_hyphen_values = true, value_parser = hold::parse)]
    hold: Duration,

    /// Keys to press together, by name: ctrl-alt-del, shift-f10, enter, a; after --
    #[arg(last = true, required = true, value_name = "CHORD")]
    chords: Vec<Chord>,
}

impl Run for KeyArgs {
    async fn batch(self, context: &Context) -> Result<Batch, Failure> {
        hold::check(self.hold, context)?;
        let chords = self.chords.iter().map(ToString::to_string).collect();
        let spec = KeySpec { chords, hold: self.hold };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Key(spec),
            dry_run: would_press,
            forms: Forms::new(table::results, &["data"]),
        })
    }
}

fn would_press(operation: &Operation) -> Vec<String> {
    let Operation::Key(spec) = operation else { return Vec::new() };
    vec![format!("key would press: {}", spec.chords.join(" "))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_shows_the_names_of_keys() {
        let keys = KeySpec::new(["ctrl-alt-delete", "a"]);
        assert_eq!(would_press(&Operation::Key(keys)), ["key would press: ctrl-alt-delete a"]);
    }
}
