//! `atp type`: text typed on the VMs' keyboards.

use std::time::Duration;

use atp_executor::{Operation, TypeSpec};
use atp_protocol::input::Layout;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::verb::Run;
use crate::args::{TargetArgs, hold};
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::{Forms, table};

const EXAMPLES: &str = "\
Examples:
  atp type web-1 --enter -- root
  atp type 'lab-*/' --layout de --hold 20ms -- 'Guten Tag!'";

/// Type text on the VMs' keyboards
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TypeArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// Time to wait after each press and each release of a key; increase it for guests that lose keys
    #[arg(long, value_name = "DURATION", default_value = "10ms", allow_hyphen_values = true, value_parser = hold::parse)]
    hold: Duration,

    /// The keyboard layout that the guests use
    #[arg(long, value_name = "NAME", default_value = "us", value_parser = layout_parser())]
    layout: Layout,

    /// Press Enter at the end
    #[arg(long)]
    enter: bool,

    /// The text, after --; several words are joined by spaces
    #[arg(last = true, required = true, value_name = "TEXT")]
    text: Vec<String>,
}

impl Run for TypeArgs {
    async fn batch(self, context: &Context) -> Result<Batch, Failure> {
        hold::check(self.hold, context)?;
        let mut text = self.text.join(" ");
        if self.enter {
            text.push('\n');
        }
        self.layout.strokes(&text).map_err(|error| {
            Problem::new(error.to_string())
                .hint("choose the guest's layout with --layout, or remove the character")
        })?;
        let spec = TypeSpec { text, layout: self.layout.name().to_owned(), hold: self.hold };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Type(spec),
            dry_run: would_type,
            forms: Forms::new(table::results, &["data"]),
        })
    }
}

/// Parses a layout, and lets the help list all layouts.
fn layout_parser() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(Layout::ALL.map(|layout| layout.name()))
        .try_map(|name| Layout::by_name(&name).ok_or("there is no such layout"))
}

/// Only the number of keys, because the text may be a password.
fn would_type(operation: &Operation) -> Vec<String> {
    let Operation::Type(spec) = operation else { return Vec::new() };
    let layout = Layout::by_name(&spec.layout);
    let strokes = layout.and_then(|layout| layout.strokes(&spec.text).ok()).unwrap_or_default();
    vec![format!("type would press keys: {}", strokes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_does_not_show_the_text() {
        assert_eq!(would_type(&Operation::Type(TypeSpec::new("hi"))), ["type would press keys: 2"]);
    }
}
