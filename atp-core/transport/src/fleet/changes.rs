//! What a change of the fleet changed.

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
