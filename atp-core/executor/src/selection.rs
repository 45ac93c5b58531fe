//! The selection of targets: selectors that add VMs, selectors that exclude VMs, and filters.

use std::collections::BTreeSet;

use atp_api::{LabelFilter, StateFilter, Targets};
use atp_transport::HostInfo;
use atp_transport::domain::DomainInfo;

use crate::selector::{HostSelector, Selector, SelectorError};

/// A choice of VMs, before it is known which VMs there are.
///
/// The default selects nothing; see [`Selection::all`].
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What is chosen; several add up.
    pub selectors: Vec<Selector>,
    /// What is excluded.
    pub exclude: Vec<Selector>,
    /// Only VMs in this state.
    pub state: StateFilter,
    /// Only VMs that have every one of these labels, through their host or, where that has no label of the key,
    /// themselves.
    pub labels: Vec<LabelFilter>,
}

impl Selection {
    /// Every VM of every host.
    pub fn all() -> Self {
        Selection::of([Selector::all()])
    }

    /// What any of the selectors chooses.
    pub fn of(selectors: impl IntoIterator<Item = Selector>) -> Self {
        Selection { selectors: selectors.into_iter().collect(), ..Selection::default() }
    }

    /// Whole hosts.
    pub fn hosts(hosts: impl IntoIterator<Item = HostSelector>) -> Self {
        Selection::of(hosts.into_iter().map(Selector::all_of))
    }

    /// Whether some VM of the host could be selected, so that the host has to be asked.
    pub fn concerns(&self, host: &HostInfo) -> bool {
        self.selectors.iter().any(|selector| selector.host().matches(host))
            && !self.exclude.iter().any(|selector| selector.is_all_vms() && selector.host().matches(host))
            && self.labels.iter().all(|label| label.may_match(&host.labels))
    }

    /// Whether the VM is chosen and not excluded, by its name and state alone.
    pub(crate) fn chooses(&self, host: &HostInfo, domain: &DomainInfo) -> bool {
        self.selectors
            .iter()
            .any(|selector| selector.host().matches(host) && selector.matches_vm(&domain.name))
            && self.state.matches(domain)
            && !self.excludes(host, &domain.name)
    }

    /// The VMs that are chosen, if all of them are named, on this host and on no other, and its name and state is all that decides
    /// about each.
    pub(crate) fn named_on<'a>(&'a self, host: &HostInfo) -> Option<BTreeSet<&'a str>> {
        let is_here = |selector: &Selector| {
            selector.host().ids() == std::slice::from_ref(&host.id) && !selector.vm_names().is_empty()
        };
        let all_are = self.exclude.is_empty()
            && self.labels_beyond(host).next().is_none()
            && self.selectors.iter().all(is_here);
        all_are.then(|| self.selectors.iter().flat_map(Selector::vm_names).map(String::as_str).collect())
    }

    /// The labels that VMs of the host must have themselves, because the host does not have them.
    pub(crate) fn labels_beyond<'a>(&'a self, host: &'a HostInfo) -> impl Iterator<Item = &'a LabelFilter> {
        self.labels.iter().filter(|label| !label.matches(&host.labels))
    }

    /// Whether the VM of this name is chosen, in any state, and its host has the labels.
    pub fn includes(&self, host: &HostInfo, vm: &str) -> bool {
        self.labels_beyond(host).next().is_none()
            && self.selectors.iter().any(|selector| selector.host().matches(host) && selector.matches_vm(vm))
            && !self.excludes(host, vm)
    }

    /// Whether the VM of this name is excluded.
    pub fn excludes(&self, host: &HostInfo, vm: &str) -> bool {
        self.exclude.iter().any(|selector| selector.host().matches(host) && selector.matches_vm(vm))
    }
}

impl TryFrom<&Targets> for Selection {
    type Error = SelectorError;

    fn try_from(targets: &Targets) -> Result<Self, SelectorError> {
        let parse =
            |texts: &[String]| texts.iter().map(|text| text.parse::<Selector>()).collect::<Result<_, _>>();
        let label = |(key, value): (&String, &String)| LabelFilter { key: key.clone(), value: value.clone() };
        Ok(Selection {
            selectors: parse(&targets.selectors)?,
            exclude: parse(&targets.exclude)?,
            state: targets.state,
            labels: targets.labels.iter().map(label).collect(),
        })
    }
}

impl From<&Selection> for Targets {
    fn from(selection: &Selection) -> Self {
        let texts = |selectors: &[Selector]| selectors.iter().map(ToString::to_string).collect();
        Targets {
            selectors: texts(&selection.selectors),
            exclude: texts(&selection.exclude),
            state: selection.state,
            labels: selection.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use atp_transport::domain::{DomainState, StateReason};

    use super::*;

    fn host(id: &str) -> HostInfo {
        HostInfo::new(id, "127.0.0.1").with_group("lab").with_label("arch", "x86").with_label("zone", "a")
    }

    fn selection(selectors: &[&str], exclude: &[&str], labels: &[&str]) -> Selection {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Selection {
            selectors: parse(selectors),
            exclude: parse(exclude),
            state: StateFilter::Any,
            labels: labels.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_host_is_concerned_if_a_selector_can_match_there() {
        for (selectors, concerned) in [
            (&["web"][..], true),
            (&["h1/web"], true),
            (&["h2/web", "@lab/x"], true),
            (&["h2/web"], false),
            (&[], false),
        ] {
            assert_eq!(selection(selectors, &[], &[]).concerns(&host("h1")), concerned, "{selectors:?}");
        }
    }

    #[test]
    fn a_host_excluded_as_a_whole_is_not_concerned() {
        for exclude in ["h1/", "h1/*", "@lab/", "*"] {
            assert!(!selection(&["*"], &[exclude], &[]).concerns(&host("h1")), "{exclude}");
        }
        for exclude in ["h1/web*", "h2/"] {
            assert!(selection(&["*"], &[exclude], &[]).concerns(&host("h1")), "{exclude}");
        }
    }

    #[test]
    fn a_vm_is_included_if_it_is_chosen_and_not_excluded() {
        let selection = selection(&["h1/web-*", "@lab/db"], &["web-9"], &[]);
        for (vm, included) in [("web-1", true), ("db", true), ("web-9", false), ("cache", false)] {
            assert_eq!(selection.includes(&host("h1"), vm), included, "{vm}");
        }
        assert!(!selection.includes(&host("h2"), "web-1"));
    }

    #[test]
    fn vms_are_named_if_nothing_but_their_names_on_one_host_decides() {
        for (selectors, exclude, labels, named) in [
            (&["h1/web"][..], &[][..], &[][..], Some(&["web"][..])),
            (&["h1/web-{1..2}", "h1/db"], &[], &["zone=a"], Some(&["db", "web-1", "web-2"])),
            (&["web"], &[], &[], None),
            (&["h1/web*"], &[], &[], None),
            (&["h1/web", "h1/"], &[], &[], None),
            // Whether it is the other's VM too is only known if both are listed.
            (&["h1/web", "h2/db"], &[], &[], None),
            (&["h{1..2}/web"], &[], &[], None),
            (&["@lab/web"], &[], &[], None),
            (&["h1/web"], &["db"], &[], None),
            (&["h1/web"], &[], &["rack=1"], None),
        ] {
            let selection = selection(selectors, exclude, labels);
            let named = named.map(|named| named.iter().copied().collect::<BTreeSet<_>>());
            assert_eq!(selection.named_on(&host("h1")), named, "{selectors:?}");
        }
    }

    #[test]
    fn vms_may_have_labels_that_their_host_has_not() {
        let beyond = |labels: &[&str]| {
            let (selection, host) = (selection(&["*"], &[], labels), host("h1"));
            selection.labels_beyond(&host).map(|label| label.value.clone()).collect::<Vec<_>>()
        };
        assert!(beyond(&["arch=x86", "zone=a"]).is_empty());
        assert_eq!(beyond(&["arch=x86", "rack=1"]), ["1"]);
    }

    #[test]
    fn a_host_with_another_value_of_a_label_is_not_concerned() {
        for (labels, concerned) in [
            (&["arch=x86", "zone=a"][..], true),
            (&["rack=1"], true),
            (&["zone=b"], false),
            (&["rack=1", "zone=b"], false),
        ] {
            assert_eq!(selection(&["*"], &[], labels).concerns(&host("h1")), concerned, "{labels:?}");
        }
    }

    #[test]
    fn the_default_selects_nothing() {
        assert!(!Selection::default().concerns(&host("h1")));
        assert!(Selection::all().concerns(&host("h1")));
    }

    #[test]
    fn filters_parse_or_say_what_is_expected() {
        assert_eq!("shut-off".parse(), Ok(StateFilter::ShutOff));
        assert_eq!(
            "off".parse::<StateFilter>().unwrap_err().to_string(),
            r#"expected a state (any, running, shut-off, paused, crashed, pmsuspended, io-error, saved or migrating), not "off""#
        );
        for word in StateFilter::NAMES {
            assert_eq!(word.parse::<StateFilter>().unwrap().to_string(), *word);
        }
        let label: LabelFilter = "a=b=c".parse().unwrap();
        assert_eq!((label.key.as_str(), label.value.as_str()), ("a", "b=c"));
        assert!("=x".parse::<LabelFilter>().is_err());
        assert!("x".parse::<LabelFilter>().is_err());
    }

    #[test]
    fn each_state_is_selected_by_its_word() {
        let info = |state, reason| DomainInfo { reason, ..DomainInfo::new("a", uuid::Uuid::nil(), state) };
        for (state, reason, words) in [
            (DomainState::Running, None, "any running"),
            (DomainState::Blocked, None, "any running"),
            (DomainState::ShutOff, Some(StateReason::Destroyed), "any shut-off"),
            (DomainState::ShutOff, Some(StateReason::Saved), "any shut-off saved"),
            (DomainState::Paused, Some(StateReason::User), "any paused"),
            (DomainState::Paused, Some(StateReason::IoError), "any paused io-error"),
            (DomainState::Paused, Some(StateReason::Migrating), "any paused migrating"),
            (DomainState::Crashed, Some(StateReason::Panicked), "any crashed"),
            (DomainState::PmSuspended, None, "any pmsuspended"),
        ] {
            let domain = info(state, reason);
            let matching: Vec<&str> = StateFilter::NAMES
                .iter()
                .copied()
                .filter(|word| word.parse::<StateFilter>().unwrap().matches(&domain))
                .collect();
            assert_eq!(matching.join(" "), words, "{state} {reason:?}");
        }
    }

    #[test]
    fn what_a_client_writes_is_parsed_or_refused() {
        let labels = [("rack".to_owned(), "1".to_owned())].into();
        let targets = Targets { exclude: vec!["web-9".to_owned()], labels, ..Targets::of(["h1/web-*"]) };
        let parsed = Selection::try_from(&targets).unwrap();
        assert_eq!((parsed.selectors[0].to_string().as_str(), parsed.exclude.len()), ("h1/web-*", 1));
        assert_eq!((parsed.labels[0].key.as_str(), parsed.labels[0].value.as_str()), ("rack", "1"));
        assert!(Selection::try_from(&Targets::of(["web["])).is_err());
    }
}
