//! Raw commands in steps of a scenario, for `qmp` and `qga`.

use atp_protocol::RawCommand;

use super::scenario::node::Node;
use super::scenario::read::{Names, Result, words};
use super::scenario::template::{Template, Values, fill_all};

/// Reads a command from a step.
pub(super) fn read(node: &Node, names: &Names) -> Result<Vec<Template>> {
    words(node, names, |words| parse(words.to_vec()).map(drop))
}

/// The command with values in it. The error says what is wrong.
pub(super) fn fill(words: &[Template], values: &Values) -> Result<RawCommand, String> {
    parse(fill_all(words, values)?)
}

fn parse(words: Vec<String>) -> Result<RawCommand, String> {
    RawCommand::from_words(words).map_err(|error| error.to_string())
}
