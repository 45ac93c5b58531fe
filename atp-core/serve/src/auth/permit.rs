//! What a token may do: its role, its verbs, and its VMs.
//!
//! An operation is checked before hosts are asked for it ([`permit_verb`]), and each target of the plan after that
//! ([`permit`]): selectors of the request say nothing of which VMs they match.

use std::collections::BTreeSet;

use atp_api::serve::Role;
use atp_api::{Condition, ErrorKind};
use atp_executor::{Action, Operation, Plan, Selection, Selector, Step, StepOperation, Target, WaitFor};
use atp_transport::HostInfo;

use super::tokens::Token;
use crate::problem::Refusal;

/// The verbs that an operation needs: its own name, and those of all that it does.
pub(crate) fn verbs_of(operation: &Operation) -> BTreeSet<&'static str> {
    let mut verbs = BTreeSet::from([operation.name()]);
    match operation {
        Operation::Wait(Condition::Exec { .. }) => verbs.extend(["exec"]),
        Operation::Scenario(scenario) => {
            verbs.extend(scenario.steps().iter().chain(scenario.teardown()).flat_map(verbs_of_step));
            if scenario.is_isolated() {
                verbs.insert("snapshot-revert");
            }
            if let Some(evidence) = scenario.evidence() {
                verbs.extend(evidence.console.map(|_| "console"));
                verbs.extend(evidence.screenshot.then_some("screenshot"));
                verbs.extend(evidence.commands.first().map(|_| "exec"));
            }
        }
        _ => {}
    }
    verbs
}

fn verbs_of_step(step: &Step) -> Vec<&'static str> {
    match &step.action {
        Action::Do(StepOperation::Push { .. } | StepOperation::Pull { .. }) => vec!["cp"],
        Action::Do(StepOperation::Wait(WaitFor::Exec(_))) => vec!["wait", "exec"],
        Action::Do(_) => vec![step.op()],
        // A file is read by a program in the guest.
        Action::Assert(assertion) => {
            let file = assertion.file.as_ref().map(|_| "exec");
            let console = (!assertion.no_fault_of.is_empty()).then_some("console");
            let screen = assertion.screen.as_ref().map(|_| "screenshot");
            file.into_iter().chain(console).chain(screen).collect()
        }
        Action::AwaitConsole(_) => vec!["wait", "console"],
    }
}

/// Checks the role and the verbs of a token.
pub(crate) fn permit_verb(token: &Token, operation: &Operation) -> Result<(), Refusal> {
    let verbs = verbs_of(operation);
    // A look may need a program in the guest, as a step that asserts a file does, or take a console from its user.
    let by_force = matches!(operation, Operation::Console(spec) if spec.force);
    if token.role < Role::Operator && (!operation.only_looks() || verbs.contains("exec") || by_force) {
        let problem = format!(
            "the token {:?} has the role {}, which may not use {}",
            token.name,
            token.role,
            operation.name()
        );
        return Err(Refusal::new(ErrorKind::PermissionDenied, problem));
    }
    match verbs.into_iter().find(|verb| !has_verb(token, verb)) {
        None => Ok(()),
        Some(verb) => {
            let problem = format!("the token {:?} may not use {verb}", token.name);
            Err(Refusal::new(ErrorKind::PermissionDenied, problem))
        }
    }
}

/// Checks that a token may copy files, before there is an operation.
pub(crate) fn permit_transfer(token: &Token) -> Result<(), Refusal> {
    permit_other(token, Role::Operator, "cp")
}

/// Checks that a token may do what is no operation, from this role on.
pub(crate) fn permit_other(token: &Token, role: Role, verb: &str) -> Result<(), Refusal> {
    if token.role >= role && has_verb(token, verb) {
        return Ok(());
    }
    let problem = format!("the token {:?} may not use {verb}", token.name);
    Err(Refusal::new(ErrorKind::PermissionDenied, problem))
}

/// Whether a token may use a verb of this name, as far as its list of verbs goes.
pub(crate) fn has_verb(token: &Token, name: &str) -> bool {
    token.verbs.is_empty() || token.verbs.iter().any(|verb| verb == name)
}

/// Checks that a token may see each host that a selection concerns, before any is asked.
pub(crate) fn permit_hosts(token: &Token, selection: &Selection, hosts: &[HostInfo]) -> Result<(), Refusal> {
    let is_hidden = |host: &&HostInfo| !may_see_host(token, host) && selection.concerns(host);
    if hosts.iter().any(|host| is_hidden(&host)) { Err(not_all_hosts(token)) } else { Ok(()) }
}

/// The refusal of hosts that a token may not see. It is that of hosts and groups that do not exist, too.
pub(crate) fn not_all_hosts(token: &Token) -> Refusal {
    not_permitted(token, "all of the hosts that are selected")
}

fn not_permitted(token: &Token, what: &str) -> Refusal {
    let problem = format!("the token {:?} may not work on {what}", token.name);
    let hint = format!(
        "its VMs are: {}; name only these, with their host (HOST/VM), or exclude others",
        selectors(token)
    );
    Refusal::new(ErrorKind::PermissionDenied, problem).with_hint(hint)
}

/// A selection of a list, which has the token's VMs only: hosts that the token may not see are left out, unless a selector names
/// them or a group of them.
pub(crate) fn visible_part(token: &Token, selection: Selection, hosts: &[HostInfo]) -> Selection {
    let names = |selector: &Selector, host: &HostInfo| {
        let by = selector.host();
        by.matches(host) && !(by.ids().is_empty() && by.groups().is_empty())
    };
    let hidden = hosts.iter().filter(|host| {
        !may_see_host(token, host) && !selection.selectors.iter().any(|selector| names(selector, host))
    });
    let hidden: Vec<Selector> = hidden.filter_map(|host| format!("{}/", host.id).parse().ok()).collect();
    Selection { exclude: [selection.exclude, hidden].concat(), ..selection }
}

/// Leaves out of a list what is not the token's, unless it is named, and what may tell of it.
pub(crate) fn leave_out(token: &Token, selection: &Selection, plan: &mut Plan, hosts: &[HostInfo]) {
    if !token.selectors.is_empty() {
        plan.notices.clear();
    }
    plan.targets.retain(|target| is_permitted(token, target, hosts) || is_named(selection, target));
}

/// Whether a token may work on a target.
fn is_permitted(token: &Token, target: &Target, hosts: &[HostInfo]) -> bool {
    let host = hosts.iter().find(|host| host.id == target.host.as_str());
    host.is_some_and(|host| match target.vm() {
        Some(vm) => may_see_vm(token, host, vm),
        // A host as a target concerns all of its VMs.
        None => owns_host(token, host),
    })
}

/// Whether a selection has the name of a target.
fn is_named(selection: &Selection, target: &Target) -> bool {
    match target.vm() {
        Some(vm) => {
            selection.selectors.iter().any(|selector| selector.vm_names().iter().any(|name| name == vm))
        }
        None => true,
    }
}

/// Checks each target of a plan. `hosts` are those of the fleet. VMs that are not the token's are not named, unless the request
/// does.
pub(crate) fn permit(
    token: &Token,
    selection: &Selection,
    plan: &Plan,
    hosts: &[HostInfo],
) -> Result<(), Refusal> {
    permit_verb(token, &plan.operation)?;
    if token.selectors.is_empty() {
        return Ok(());
    }
    let refused: Vec<_> = plan.targets.iter().filter(|target| !is_permitted(token, target, hosts)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let what = match refused.iter().find(|target| is_named(selection, target)) {
        Some(named) => named.to_string(),
        None => format!("{} of the VMs that are selected", refused.len()),
    };
    Err(not_permitted(token, &what))
}

/// Whether a token may see a VM, and work on it.
pub(crate) fn may_see_vm(token: &Token, host: &HostInfo, vm: &str) -> bool {
    token.selectors.is_empty()
        || token.selectors.iter().any(|selector| selector.host().matches(host) && selector.matches_vm(vm))
}

/// Whether a token may see a host: some of its VMs may be there.
pub(crate) fn may_see_host(token: &Token, host: &HostInfo) -> bool {
    token.selectors.is_empty() || token.selectors.iter().any(|selector| selector.host().matches(host))
}

/// Whether all VMs of a host, whatever they are called, are a token's.
fn owns_host(token: &Token, host: &HostInfo) -> bool {
    token.selectors.is_empty()
        || token.selectors.iter().any(|selector| selector.is_all_vms() && selector.host().matches(host))
}

fn selectors(token: &Token) -> String {
    let texts: Vec<_> = token.selectors.iter().map(|selector| format!("'{selector}'")).collect();
    texts.join(", ")
}
