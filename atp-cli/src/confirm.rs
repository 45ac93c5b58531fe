//! Confirmation before running VMs are taken away from their users.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use atp_api::{PlanReport, PlannedTarget};
use atp_executor::Folded;

use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::group_by;
use crate::signals::Interrupts;
use crate::terminal::{self, HEADING, styled};
use crate::words;

/// Maximum number of folded names in the question; of more, the count is shown.
const NAMED: usize = 20;

/// What has to happen before a plan is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    NotNeeded,
    Ask,
    /// Consent is needed, and there is no terminal to ask on.
    Refuse,
}

fn consent(is_disruptive: bool, targets: usize, yes: bool, can_ask: bool) -> Consent {
    match (is_disruptive && targets > 1, yes, can_ask) {
        (false, _, _) | (_, true, _) => Consent::NotNeeded,
        (true, false, true) => Consent::Ask,
        (true, false, false) => Consent::Refuse,
    }
}

/// Asks for consent to a plan, if it needs consent.
///
/// # Errors
/// It was refused, or a signal came.
pub(crate) async fn confirm(
    plan: &PlanReport,
    context: &Context,
    interrupts: &Interrupts,
) -> Result<(), Failure> {
    let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    match consent(plan.disruptive, plan.targets.len(), context.yes, can_ask) {
        Consent::NotNeeded => Ok(()),
        Consent::Refuse => {
            let what = words::verb(&plan.op);
            let problem =
                format!("`atp {what}` of {} VMs needs confirmation; nothing was done", plan.targets.len());
            Err(Problem::new(problem).hint("add --yes to confirm, or --dry-run to see the targets").into())
        }
        Consent::Ask => ask(plan, interrupts).await,
    }
}

async fn ask(plan: &PlanReport, interrupts: &Interrupts) -> Result<(), Failure> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let question = question(plan);
    // A separate thread, because reading from a terminal cannot be cancelled and must not keep the process alive.
    std::thread::spawn(move || {
        let mut stderr = anstream::stderr().lock();
        let _ = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
        drop(stderr);
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line);
        let _ = answer.send(is_yes(&line));
    });
    let agreed = tokio::select! {
        agreed = answered => agreed.unwrap_or(false),
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    if agreed { Ok(()) } else { Err(Problem::new("not confirmed; nothing was done").into()) }
}

fn question(plan: &PlanReport) -> String {
    let count = plan.targets.len();
    let heading = format!("`atp {}` of {count} VMs:", words::verb(&plan.op));
    let mut text = format!("{}\n", styled(HEADING, heading));
    let state = |target: &PlannedTarget| target.state.map(|state| format!(" ({state})")).unwrap_or_default();
    let name = |target: &&PlannedTarget| match &target.vm {
        Some(vm) => format!("{}/{vm}", target.host),
        None => target.host.to_string(),
    };
    let (mut left, mut more) = (NAMED, 0);
    for targets in group_by(&plan.targets, state) {
        let state = targets.first().map(|target| state(target)).unwrap_or_default();
        let (shown, rest) = Folded::of(targets.iter().map(name)).shown(left);
        left -= shown.len();
        more += rest;
        for names in shown {
            text.push_str(&format!("  {}{state}\n", terminal::line(&names)));
        }
    }
    if more > 0 {
        text.push_str(&format!("  … and {more} more\n"));
    }
    text.push_str("Go ahead? [y/N] ");
    text
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disruptive_work_on_several_vms_needs_consent() {
        for (is_disruptive, targets, yes, can_ask, expected) in [
            (true, 2, false, true, Consent::Ask),
            (true, 2, false, false, Consent::Refuse),
            (true, 2, true, false, Consent::NotNeeded),
            (true, 1, false, false, Consent::NotNeeded),
            (true, 0, false, false, Consent::NotNeeded),
            (false, 9, false, false, Consent::NotNeeded),
        ] {
            assert_eq!(consent(is_disruptive, targets, yes, can_ask), expected);
        }
    }

    #[test]
    fn only_y_and_yes_are_consent() {
        for yes in ["y\n", "Y", "yes\r\n", " Yes "] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "yep", "all"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
