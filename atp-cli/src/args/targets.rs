//! Arguments that select VMs.

use atp_executor::{LabelFilter, Selection, Selector, StateFilter};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::completer;

/// The VMs to process.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// VMs, as [HOST/]VM: both parts are globs; HOST can be @GROUP; HOST/ alone selects all VMs of the host;
    /// [HOST/]/RE/ matches VM names with a regular expression
    #[arg(value_name = "SEL", required = true, add = completer::selectors())]
    selectors: Vec<Selector>,
    #[command(flatten)]
    narrow: NarrowArgs,
}

/// Options that narrow a selection.
#[derive(Debug, Default, Args)]
pub(crate) struct NarrowArgs {
    /// Exclude the VMs that this selects; may be repeated
    #[arg(long, value_name = "SEL", add = completer::selectors())]
    exclude: Vec<Selector>,

    /// Only VMs in this state
    #[arg(long, value_name = "STATE", default_value = "any", value_parser = state_parser())]
    state: StateFilter,

    /// Only VMs with this label, set on their host or else in their own metadata; may be repeated, and then all must
    /// match
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<LabelFilter>,
}

impl TargetArgs {
    /// The VMs that these arguments select.
    pub(crate) fn selection(self) -> Selection {
        self.narrow.narrow(Selection::of(self.selectors))
    }
}

impl NarrowArgs {
    /// The selection, narrowed by these options.
    pub(crate) fn narrow(self, selection: Selection) -> Selection {
        Selection { exclude: self.exclude, state: self.state, labels: self.labels, ..selection }
    }
}

/// Parses a state, and lets the help list all states.
fn state_parser() -> impl TypedValueParser<Value = StateFilter> {
    PossibleValuesParser::new(StateFilter::NAMES.iter().copied()).try_map(|text| text.parse::<StateFilter>())
}
