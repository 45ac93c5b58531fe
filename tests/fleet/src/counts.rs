//! Counts of what was executed, for tests that assert that each thing was done once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most different names that are counted one by one.
const NAMES: usize = 10_000;

/// The longest name that is kept, bytes.
const NAME: usize = 256;

/// What is counted beyond [`NAMES`].
const OTHERS: &str = "(others)";

/// How often something was executed, by its name.
///
/// 10,000 names are counted one by one, and all others as `(others)`. A name is cut after 256 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(crate) fn add(&mut self, name: &str) {
        let name = &name[..name.floor_char_boundary(NAME)];
        match self.0.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                let name = if self.0.len() < NAMES { name } else { OTHERS };
                *self.0.entry(name.to_owned()).or_default() += 1;
            }
        }
    }

    /// How often this was executed.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// How often anything was.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each name with its count, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

/// What a VM has executed. A call that failed, or hangs, was not executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmCounts {
    /// Calls of libvirt's API, by the names of its functions: `virDomainCreate`.
    pub calls: Tally,
    /// Commands to QEMU's monitor: `query-status`.
    pub monitor: Tally,
    /// Commands to the guest agent: `guest-ping`.
    pub agent: Tally,
    /// Programs that were started in the guest, as path and arguments with a space between: `echo one`.
    pub programs: Tally,
}

impl VmCounts {
    pub(crate) fn is_empty(&self) -> bool {
        [&self.calls, &self.monitor, &self.agent, &self.programs].iter().all(|tally| tally.0.is_empty())
    }
}

/// What a host has executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCounts {
    /// Connections that were accepted, those that were then reset or never answered included.
    pub connections: u64,
    /// Calls of libvirt's API that are about no single VM: `virConnectGetHostname`.
    pub calls: Tally,
    /// What its VMs have executed, by their names; VMs that have executed nothing are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vms: BTreeMap<String, VmCounts>,
}

/// What a fleet has executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By the hosts' names; hosts that nothing has connected to are left out.
    pub hosts: BTreeMap<String, HostCounts>,
    /// Faults that hosts (`h7`) and VMs (`h7/vm1`) have by seed.
    pub faults: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limits_are_counted_together_and_cut() {
        let mut tally = Tally::default();
        for number in 0..NAMES + 3 {
            tally.add(&number.to_string());
        }
        tally.add("7");
        assert_eq!((tally.of("7"), tally.of(OTHERS), tally.total()), (2, 3, NAMES as u64 + 4));
        let mut tally = Tally::default();
        tally.add(&"ä".repeat(NAME));
        assert_eq!(tally.of(&"ä".repeat(NAME / 2)), 1);
    }
}
