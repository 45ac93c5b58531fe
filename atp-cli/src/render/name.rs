//! Targets as exact selectors, which other `atp` commands accept.

use std::fmt::Write as _;

use atp_executor::{Outcome, Status, escape};
use atp_transport::HostId;

use crate::terminal;

/// One line per successful outcome or, in a dry run, per target that would be processed.
pub(crate) fn names(outcomes: &[Outcome]) -> String {
    let is_named = |outcome: &&Outcome| {
        outcome.status.is_success() || (outcome.status == Status::Skipped && outcome.error.is_none())
    };
    outcomes.iter().filter(is_named).filter_map(name).map(|name| name + "\n").collect()
}

fn name(outcome: &Outcome) -> Option<String> {
    Some(selector_of(outcome.host.as_ref()?, outcome.vm.as_deref()))
}

/// The selector of exactly this target.
pub(crate) fn selector_of(host: &HostId, vm: Option<&str>) -> String {
    match vm {
        None => host.to_string(),
        // Only a regular expression can name a character without containing it.
        Some(vm) if vm.contains(terminal::is_unsafe) => format!("{host}//^{}$/", expression(vm)),
        Some(vm) => format!("{host}/{}", escape(vm)),
    }
}

fn expression(vm: &str) -> String {
    let mut text = String::new();
    for c in vm.chars() {
        if terminal::is_unsafe(c) || c == '/' {
            let _ = write!(text, "\\x{{{:x}}}", c as u32);
        } else {
            text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;
    use atp_executor::Selector;

    fn outcome(vm: Option<&str>, status: Status) -> Outcome {
        Outcome { status, ..fixture::outcome(vm) }
    }

    #[test]
    fn a_name_selects_its_vm_and_no_other() {
        let names =
            ["web-1", "a b", "[x]*?", "{a,b}", "back\\slash", "@x", "a\u{9b}31mb", "c\u{202e}d", "é", "^.$"];
        for vm in names {
            let text = name(&outcome(Some(vm), Status::Ok)).unwrap();
            assert!(!text.contains(terminal::is_unsafe), "{text}");
            let selector: Selector = text.parse().unwrap_or_else(|error| panic!("{error}"));
            for other in names {
                assert_eq!(selector.matches_vm(other), other == vm, "{text} on {other}");
            }
        }
    }

    #[test]
    fn only_successful_targets_are_named() {
        let text = names(&[
            outcome(None, Status::Ok),
            outcome(Some("a"), Status::Unchanged),
            outcome(Some("b"), Status::Failed),
            outcome(Some("c"), Status::Skipped),
        ]);
        assert_eq!(text, "h1\nh1/a\nh1/c\n");
    }
}
