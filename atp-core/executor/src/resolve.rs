//! From a selection and the listings of the hosts concerned to targets and settled outcomes. Pure functions: hosts were
//! asked before.
//!
//! The rules where several hosts are involved:
//!
//! - A selector without a host part, or with a glob or group there, stands for as many VMs as it finds. On a
//!   host that cannot be listed it yields one `unreachable` without a VM, also when its VM part is a name
//!   and was found on another host: names are unique on one host only.
//! - A VM name that is on none of the hosts that were listed is one `vm-not-found`, also when other
//!   hosts could not be listed: those have their own outcome. It names a host only if the selector can mean
//!   just one.
//! - Names spelled out by numbers (`h[1-2]/web-[1-100]`) are the same as selectors with a name each.
//! - A VM that exists but is excluded, or has not the state or the labels asked for, was found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use atp_api::{Outcome, OutcomeError, StateFilter, Status, millis};
use atp_transport::domain::DomainInfo;
use atp_transport::{ErrorKind, Hint, HostId, HostInfo};
use uuid::Uuid;

use crate::folded::Folded;
use crate::plan::{Names, PlanError};
use crate::selection::Selection;
use crate::selector::Selector;
use crate::target::Target;

/// The listing of a host, or why there is none.
pub(crate) struct Listing {
    /// The host's id, checked.
    pub(crate) id: HostId,
    /// The host.
    pub(crate) host: HostInfo,
    /// Its VMs, or why it could not be listed.
    pub(crate) domains: Result<Vec<DomainInfo>, OutcomeError>,
    /// The VMs' own labels, if they were asked for.
    pub(crate) labels: HashMap<Uuid, BTreeMap<String, String>>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Checks that every host and group that a selector names literally exists.
pub(crate) fn check_names(selection: &Selection, hosts: &[HostInfo]) -> Result<(), PlanError> {
    if hosts.is_empty() {
        return Err(PlanError::NoHosts);
    }
    for selector in selection.selectors.iter().chain(&selection.exclude) {
        let lacking = |names: &[String], is_known: &dyn Fn(&str) -> bool| {
            let lacking = Folded::of(names.iter().filter(|name| !is_known(name)));
            (!lacking.is_empty()).then(|| lacking.to_string())
        };
        let is_host = |id: &str| hosts.iter().any(|host| host.id == id);
        if let Some(host) = lacking(selector.host().ids(), &is_host) {
            return Err(PlanError::UnknownHost {
                selector: selector.to_string(),
                host,
                known: Names(hosts.iter().map(|host| host.id.clone()).collect()),
            });
        }
        let is_group = |name: &str| hosts.iter().any(|host| host.groups.iter().any(|group| group == name));
        if let Some(group) = lacking(selector.host().groups(), &is_group) {
            let groups: BTreeSet<_> = hosts.iter().flat_map(|host| host.groups.iter().cloned()).collect();
            return Err(PlanError::UnknownGroup {
                selector: selector.to_string(),
                group,
                known: Names(groups.into_iter().collect()),
            });
        }
    }
    Ok(())
}

/// Checks that a selection for an operation on hosts chooses by nothing that only VMs have: who names a VM does not mean its host, or
/// every host.
pub(crate) fn check_hosts(selection: &Selection, op: &'static str) -> Result<(), PlanError> {
    for selector in selection.selectors.iter().chain(&selection.exclude) {
        if !selector.is_all_vms() {
            let text = selector.to_string();
            let instead = match selector.host().to_string() {
                host if !host.is_empty() => format!("{host}/"),
                _ if text.starts_with('/') => "*/".to_owned(),
                // A host typed without its `/` reads as the name of a VM.
                _ => format!("{text}/"),
            };
            let choice = format!("the selector {text:?}");
            return Err(PlanError::VmsForHosts { op, choice, instead: Some(instead) });
        }
    }
    match selection.state {
        StateFilter::Any => Ok(()),
        state => Err(PlanError::VmsForHosts {
            op,
            choice: format!("the state {state:?}", state = state.to_string()),
            instead: None,
        }),
    }
}

/// The hosts that a selector spells out, each for itself; or once all that it can mean.
pub(crate) fn scopes(selector: &Selector) -> Vec<Option<&str>> {
    match selector.host().ids() {
        [] => vec![None],
        ids => ids.iter().map(|id| Some(id.as_str())).collect(),
    }
}

/// Whether the host is one of such a scope.
pub(crate) fn is_in_scope(selector: &Selector, scope: Option<&str>, host: &HostInfo) -> bool {
    match scope {
        Some(id) => host.id == id,
        None => selector.host().matches(host),
    }
}

/// The number of VMs that the selectors match, before filters.
pub(crate) fn matched(selection: &Selection, listings: &[Listing]) -> usize {
    let matched = |listing: &Listing| {
        let here: Vec<_> =
            selection.selectors.iter().filter(|selector| selector.host().matches(&listing.host)).collect();
        let domains = listing.domains.iter().flatten();
        domains.filter(|domain| here.iter().any(|selector| selector.matches_vm(&domain.name))).count()
    };
    listings.iter().map(matched).sum()
}

/// The exclusions that name a VM which none of their hosts has. All of their hosts must have been listed.
pub(crate) fn unmatched_exclusions(selection: &Selection, listings: &[Listing]) -> Vec<String> {
    let mut unmatched = Vec::new();
    for selector in &selection.exclude {
        let mut names: BTreeSet<&str> = selector.vm_names().iter().map(String::as_str).collect();
        let here: Vec<_> = listings.iter().filter(|listing| selector.host().matches(&listing.host)).collect();
        if here.is_empty() || here.iter().any(|listing| listing.domains.is_err()) {
            continue;
        }
        for domain in here.iter().flat_map(|listing| &listing.domains).flatten() {
            names.remove(domain.name.as_str());
        }
        if names.len() == selector.vm_names().len() && !names.is_empty() {
            unmatched.push(selector.to_string());
        } else if !names.is_empty() {
            unmatched.push(Folded::of(names).to_string());
        }
    }
    unmatched
}

/// The targets, by host and VM, and the outcomes that are settled.
pub(crate) fn resolve(
    op: &'static str,
    selection: &Selection,
    mut listings: Vec<Listing>,
) -> (Vec<Target>, Vec<Outcome>) {
    listings.sort_by(|a, b| a.id.cmp(&b.id));
    let mut settled: Vec<Outcome> = Vec::new();
    for listing in &listings {
        if let Err(error) = &listing.domains {
            settled.extend(unreachable(op, selection, listing, error));
        }
    }
    settled.extend(not_found(op, selection, &listings));
    settled.sort_by(Outcome::report_order);

    let mut targets = Vec::new();
    for Listing { id, host, domains, labels, .. } in listings {
        let mut domains = domains.unwrap_or_default();
        domains.retain(|domain| {
            selection.chooses(&host, domain)
                && selection
                    .labels_beyond(&host)
                    .all(|label| labels.get(&domain.uuid).is_some_and(|labels| label.matches(labels)))
        });
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        targets.extend(domains.into_iter().map(|domain| Target { host: id.clone(), domain: Some(domain) }));
    }
    (targets, settled)
}

/// One outcome for each selector that could have matched on a host that could not be listed; if it names the host as well, one
/// for each VM that it names.
fn unreachable(
    op: &'static str,
    selection: &Selection,
    listing: &Listing,
    error: &OutcomeError,
) -> Vec<Outcome> {
    let here = selection.selectors.iter().filter(|selector| selector.host().matches(&listing.host));
    let mut texts = BTreeSet::new();
    let mut names = BTreeSet::new();
    for selector in here {
        if selector.host().ids().is_empty() || selector.vm_names().is_empty() {
            texts.insert(selector.to_string());
        } else {
            names.extend(selector.vm_names().iter().map(String::as_str));
        }
    }
    let alone = texts.len() + names.len() == 1;
    let outcome = |vm: Option<&str>, error: OutcomeError| {
        let status = if error.kind == ErrorKind::Stopped { Status::Skipped } else { Status::Unreachable };
        settle(op, Some(listing.id.clone()), vm, status, error, listing.took)
    };
    let globs = texts.into_iter().map(|text| {
        let mut error = error.clone();
        if !alone {
            // Otherwise several outcomes of one host would look the same.
            error.message = format!("{} (selector {text})", error.message);
        }
        outcome(None, error)
    });
    let names = names.iter().filter(|vm| !selection.excludes(&listing.host, vm));
    globs.chain(names.map(|vm| outcome(Some(vm), error.clone()))).collect()
}

/// One outcome for each VM name that is on none of the hosts that were listed.
fn not_found(op: &'static str, selection: &Selection, listings: &[Listing]) -> Vec<Outcome> {
    let names_of = |listing: &Listing| {
        listing
            .domains
            .as_ref()
            .ok()
            .map(|domains| domains.iter().map(|domain| domain.name.clone()).collect())
    };
    let known: Vec<Option<HashSet<String>>> = listings.iter().map(names_of).collect();
    let mut seen = HashSet::new();
    let mut outcomes = Vec::new();
    for selector in &selection.selectors {
        for scope in scopes(selector) {
            let possible = listings.iter().zip(&known);
            let possible: Vec<_> =
                possible.filter(|(listing, _)| is_in_scope(selector, scope, &listing.host)).collect();
            let host = match possible[..] {
                [(only, _)] => Some(only.id.clone()),
                _ => None,
            };
            let text = scope.map_or_else(|| selector.host().to_string(), str::to_owned);
            for vm in selector.vm_names() {
                let listed =
                    || possible.iter().filter_map(|(listing, known)| Some((*listing, known.as_ref()?)));
                if listed().any(|(_, known)| known.contains(vm)) || !seen.insert((text.clone(), vm)) {
                    continue;
                }
                let lacking: Vec<_> = listed()
                    .map(|(listing, _)| listing)
                    .filter(|listing| !selection.excludes(&listing.host, vm))
                    .collect();
                if lacking.is_empty() {
                    continue;
                }
                let took = lacking.iter().map(|listing| listing.took).max().unwrap_or_default();
                let ids = Names(lacking.iter().map(|listing| listing.id.to_string()).collect());
                let error =
                    OutcomeError::new(ErrorKind::VmNotFound, format!("no VM is named {vm:?} on {ids}"))
                        .with_hint(not_found_hint(vm, listings));
                outcomes.push(settle(op, host.clone(), Some(vm), Status::Failed, error, took));
            }
        }
    }
    outcomes
}

/// A host or group typed without its `/` reads as a VM name: say so.
fn not_found_hint(vm: &str, listings: &[Listing]) -> Hint {
    let is_host = listings.iter().any(|listing| listing.host.id == vm);
    let is_group = vm.strip_prefix('@').is_some_and(|name| {
        listings.iter().any(|listing| listing.host.groups.iter().any(|group| group == name))
    });
    if is_host || is_group {
        Hint::from(format!("for all VMs of {vm} write {vm}/"))
    } else {
        ErrorKind::VmNotFound.hint()
    }
}

/// An outcome without a run.
pub(crate) fn settle(
    op: &'static str,
    host: Option<HostId>,
    vm: Option<&str>,
    status: Status,
    error: OutcomeError,
    took: Duration,
) -> Outcome {
    Outcome {
        host,
        vm: vm.map(str::to_owned),
        duration_ms: millis(took),
        error: Some(error),
        ..Outcome::not_started(op, status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_transport::Effect;
    use atp_transport::domain::DomainState;

    fn domain(name: &str, state: DomainState) -> DomainInfo {
        let uuid = Uuid::from_u128(name.bytes().fold(7, |hash, byte| hash * 131 + u128::from(byte)));
        DomainInfo::new(name, uuid, state)
    }

    fn listed(id: &str, vms: &[&str]) -> Listing {
        Listing {
            id: id.parse().unwrap(),
            host: HostInfo::new(id, "x").with_group("lab"),
            domains: Ok(vms.iter().map(|name| domain(name, DomainState::Running)).collect()),
            labels: HashMap::new(),
            took: Duration::from_millis(3),
        }
    }

    fn dead(id: &str) -> Listing {
        Listing {
            domains: Err(OutcomeError::new(
                ErrorKind::ConnectionRefused,
                format!("host {id}: cannot connect"),
            )),
            ..listed(id, &[])
        }
    }

    fn selection(selectors: &[&str], exclude: &[&str]) -> Selection {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Selection { selectors: parse(selectors), exclude: parse(exclude), ..Selection::default() }
    }

    /// Targets as `host/vm`, settled outcomes as `host/vm status kind`.
    fn outline(selection: &Selection, listings: Vec<Listing>) -> (Vec<String>, Vec<String>) {
        let (targets, settled) = resolve("exec", selection, listings);
        let settled = settled.iter().map(|outcome| {
            assert_eq!((outcome.effect, outcome.attempts), (Effect::None, 0));
            format!(
                "{}/{} {} {}",
                outcome.host.as_ref().map_or("-", HostId::as_str),
                outcome.vm.as_deref().unwrap_or("-"),
                outcome.status,
                outcome.error.as_ref().unwrap().kind
            )
        });
        (targets.iter().map(Target::to_string).collect(), settled.collect())
    }

    #[test]
    fn targets_are_ordered_and_each_there_once() {
        let listings = vec![listed("h2", &["b", "a"]), listed("h1", &["c", "a"])];
        let (targets, settled) = outline(&selection(&["*", "a", "h1/", "@lab/c"], &[]), listings);
        assert_eq!(targets, ["h1/a", "h1/c", "h2/a", "h2/b"]);
        assert!(settled.is_empty());
    }

    #[test]
    fn a_dead_host_is_one_outcome_a_glob_and_one_a_literal() {
        let listings = vec![listed("h1", &["web-1"]), dead("h2")];
        let selectors = ["web-*", "h2/db", r"h2/d\b", "h1/web-1", "@lab/x?", "web-*"];
        let (targets, settled) = outline(&selection(&selectors, &[]), listings);
        assert_eq!(targets, ["h1/web-1"]);
        assert_eq!(
            settled,
            [
                "h2/- unreachable connection-refused",
                "h2/- unreachable connection-refused",
                "h2/db unreachable connection-refused",
            ]
        );
    }

    #[test]
    fn a_literal_for_every_host_is_unknown_on_a_dead_one_even_if_found_elsewhere() {
        let (targets, settled) =
            outline(&selection(&["web-1"], &[]), vec![listed("h1", &["web-1"]), dead("h2")]);
        assert_eq!(targets, ["h1/web-1"]);
        assert_eq!(settled, ["h2/- unreachable connection-refused"]);
    }

    #[test]
    fn a_literal_that_is_nowhere_is_one_outcome() {
        let hosts = || vec![listed("h1", &["a"]), listed("h2", &["b"])];
        let (targets, settled) = outline(&selection(&["web-1", "h2/a", "z*"], &[]), hosts());
        assert!(targets.is_empty());
        assert_eq!(settled, ["h2/a failed vm-not-found", "-/web-1 failed vm-not-found"]);
        let (_, settled) = outline(&selection(&["web-1"], &[]), vec![listed("h1", &[])]);
        assert_eq!(settled, ["h1/web-1 failed vm-not-found"]);
        let (_, settled) = outline(&selection(&["web-1"], &[]), vec![listed("h1", &[]), dead("h2")]);
        assert_eq!(settled, ["h2/- unreachable connection-refused", "-/web-1 failed vm-not-found"]);
        let (_, settled) = outline(&selection(&["web-1"], &[]), vec![dead("h2")]);
        assert_eq!(settled, ["h2/- unreachable connection-refused"]);
    }

    #[test]
    fn each_name_that_numbers_spell_out_is_found_or_reported() {
        let names: Vec<String> = (1..=40).map(|n| format!("web-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hosts = || vec![listed("h1", &names), listed("h2", &["web-41"]), dead("h3")];
        let (targets, settled) = outline(&selection(&["web-[1-42]"], &[]), hosts());
        assert_eq!(targets.len(), 41);
        assert_eq!(settled, ["h3/- unreachable connection-refused", "-/web-42 failed vm-not-found"]);
        let (targets, settled) =
            outline(&selection(&["h{1..3}/web-[40-41]", "h1/web-41"], &["h1/web-40"]), hosts());
        assert_eq!(targets, ["h2/web-41"]);
        assert_eq!(
            settled,
            [
                "h1/web-41 failed vm-not-found",
                "h2/web-40 failed vm-not-found",
                "h3/web-40 unreachable connection-refused",
                "h3/web-41 unreachable connection-refused",
            ]
        );
        let (_, settled) = outline(&selection(&["h{2..3}/web-[41,50]"], &[]), hosts());
        assert_eq!(
            settled,
            [
                "h2/web-50 failed vm-not-found",
                "h3/web-41 unreachable connection-refused",
                "h3/web-50 unreachable connection-refused",
            ]
        );
    }

    #[test]
    fn globs_that_match_nothing_are_nothing() {
        let (targets, settled) = outline(&selection(&["z*", "h1//q/"], &[]), vec![listed("h1", &["a"])]);
        assert!(targets.is_empty() && settled.is_empty());
    }

    #[test]
    fn excluded_vms_have_no_outcome() {
        let (targets, settled) = outline(
            &selection(&["*", "h1/a", "h1/nosuch", "h2/x"], &["a", "h1/no*", "h2/x"]),
            vec![listed("h1", &["a", "b"]), dead("h2")],
        );
        assert_eq!(targets, ["h1/b"]);
        assert_eq!(settled, ["h2/- unreachable connection-refused"]);
    }

    #[test]
    fn an_exclusion_that_names_no_vm_is_reported() {
        let unmatched = |exclude: &[&str], listings: &[Listing]| {
            unmatched_exclusions(&selection(&["*"], exclude), listings)
        };
        let listings = [listed("h1", &["a"]), listed("h2", &["b"])];
        assert_eq!(unmatched(&["c", "a", "z*", "h1/b", "h2/b"], &listings), ["c", "h1/b"]);
        let listings = [listed("h1", &["w1"]), listed("h2", &["w12"])];
        assert_eq!(unmatched(&["w[1-12]", "w[13-14]"], &listings), ["w[2-11]", "w[13-14]"]);
        // It may be on a host that could not be listed, or that nothing was asked of.
        assert!(unmatched(&["c", "h3/c"], &[listed("h1", &["a"]), dead("h2")]).is_empty());
    }

    #[test]
    fn a_vm_in_another_state_was_found() {
        let mut listing = listed("h1", &["a"]);
        listing.domains.as_mut().unwrap().push(domain("off", DomainState::ShutOff));
        let running = Selection { state: StateFilter::Running, ..selection(&["off", "a"], &[]) };
        assert_eq!(matched(&running, std::slice::from_ref(&listing)), 2);
        let (targets, settled) = outline(&running, vec![listing]);
        assert_eq!(targets, ["h1/a"]);
        assert!(settled.is_empty());
    }

    #[test]
    fn labels_are_the_hosts_or_the_vms_own() {
        let mut listing = listed("h1", &["a", "b"]);
        listing.host = listing.host.with_label("site", "east");
        let uuid = listing.domains.as_ref().unwrap()[0].uuid;
        listing.labels.insert(uuid, BTreeMap::from([("role".to_owned(), "web".to_owned())]));
        for (labels, expected) in [
            (&["site=east"][..], &["h1/a", "h1/b"][..]),
            (&["role=web"], &["h1/a"]),
            (&["site=east", "role=web"], &["h1/a"]),
            (&["role=db"], &[]),
        ] {
            let labels = labels.iter().map(|label| label.parse().unwrap()).collect();
            let labelled = Selection { labels, ..selection(&["*"], &[]) };
            let (labels, domains) = (listing.labels.clone(), listing.domains.clone());
            let again = Listing { labels, domains, host: listing.host.clone(), ..listed("h1", &[]) };
            assert_eq!(outline(&labelled, vec![again]).0, expected);
        }
    }

    #[test]
    fn a_host_typed_without_its_slash_gets_a_hint() {
        for (text, hint) in [("h1", "write h1/"), ("@lab", "write @lab/"), ("nosuch", "check the name")] {
            let (_, settled) = resolve("exec", &selection(&[text], &[]), vec![listed("h1", &["a"])]);
            let said = settled[0].error.as_ref().unwrap().hint.clone().unwrap();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }

    #[test]
    fn names_of_hosts_and_groups_are_checked() {
        let hosts = [HostInfo::new("h1", "x").with_group("lab"), HostInfo::new("h2", "x")];
        assert_eq!(check_names(&selection(&["h1/a", "@lab/", "h9*/x", "a"], &["h2/"]), &hosts), Ok(()));
        let unknown = check_names(&selection(&["h3/a"], &[]), &hosts).unwrap_err();
        assert_eq!(unknown.kind(), "unknown-host");
        assert!(unknown.to_string().contains("h[1-2]"), "{unknown}");
        let unknown = check_names(&selection(&["h[1-12]/"], &[]), &hosts).unwrap_err();
        assert!(unknown.to_string().contains("the host \"h[3-12]\""), "{unknown}");
        assert_eq!(check_names(&selection(&["*"], &["h3/a"]), &hosts).unwrap_err().kind(), "unknown-host");
        assert_eq!(check_names(&selection(&["@dev/"], &[]), &hosts).unwrap_err().kind(), "unknown-group");
        assert_eq!(check_names(&selection(&["*"], &[]), &[]), Err(PlanError::NoHosts));
    }

    #[test]
    fn hosts_are_not_chosen_by_vms() {
        let refused = |selection: &Selection| check_hosts(selection, "host-check").unwrap_err();
        for selectors in [&["*"][..], &["*/", "h1/", "@lab/", "h[1-2]/*"]] {
            assert_eq!(check_hosts(&selection(selectors, &["h2/"]), "host-check"), Ok(()), "{selectors:?}");
        }
        for (text, instead) in [
            ("h1", "write h1/"),
            ("@lab", "write @lab/"),
            ("h*", "write h*/"),
            ("h1/web-1", "write h1/"),
            ("@lab/web-*", "write @lab/"),
            ("/^web/", "write */"),
        ] {
            for selection in [selection(&["h1/", text], &[]), selection(&["*/"], &[text])] {
                let error = refused(&selection);
                assert_eq!(error.kind(), ErrorKind::InvalidSelector);
                let expected = format!("host-check is for hosts, and the selector {text:?} chooses VMs");
                assert_eq!(error.to_string(), expected);
                assert!(error.hint().ends_with(instead), "{text}: {}", error.hint());
            }
        }
        let running = Selection { state: StateFilter::Running, ..selection(&["h1/"], &[]) };
        assert!(refused(&running).to_string().contains("the state \"running\""));
    }
}
