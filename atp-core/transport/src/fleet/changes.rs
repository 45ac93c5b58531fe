//! What a change of the fleet changed.

use std::fmt;

use serde::Serialize;

use crate::host::HostId;

/// What applying a fleet changed, by host id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Hosts that were not there before.
    pub added: Vec<HostId>,
    /// Hosts that are there no more. Work under way on them has their `drain_timeout` to end.
    pub removed: Vec<HostId>,
    /// Hosts that are reached in another way than before: drained as if removed, and added anew.
    pub replaced: Vec<HostId>,
    /// Hosts with another configuration, weight, groups or labels than before; work on them goes on.
    pub reconfigured: Vec<HostId>,
}

impl Changes {
    /// Whether all was as it should be already.
    pub fn is_empty(&self) -> bool {
        let Changes { added, removed, replaced, reconfigured } = self;
        [added, removed, replaced, reconfigured].iter().all(|hosts| hosts.is_empty())
    }
}

/// The ids by what was done to them: `added: a, b; removed: c`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { added, removed, replaced, reconfigured } = self;
        let mut between = "";
        for (word, hosts) in
            [("added", added), ("removed", removed), ("replaced", replaced), ("reconfigured", reconfigured)]
        {
            if !hosts.is_empty() {
                let ids: Vec<_> = hosts.iter().map(HostId::as_str).collect();
                write!(f, "{between}{word}: {}", ids.join(", "))?;
                between = "; ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_what_was_done() {
        let id = |id: &str| id.parse::<HostId>().unwrap();
        let changes =
            Changes { added: vec![id("a"), id("b")], replaced: vec![id("c")], ..Changes::default() };
        assert_eq!(changes.to_string(), "added: a, b; replaced: c");
        assert_eq!(Changes::default().to_string(), "");
    }
}
