//! What hosts listed, as it is cached.

use std::collections::{BTreeMap, HashMap};

use atp_transport::domain::DomainInfo;
use uuid::Uuid;

use super::order::by_name;

/// What a host was asked for.
#[derive(Debug)]
pub(crate) enum Listed {
    /// Its VMs, by name.
    Vms(Vec<DomainInfo>),
    /// The labels that its VMs have themselves.
    Labels(HashMap<Uuid, BTreeMap<String, String>>),
}

impl Listed {
    /// Its VMs, in the order in which they are shown. They are sorted here, once, and not for each request.
    pub(super) fn of(mut vms: Vec<DomainInfo>) -> Self {
        vms.sort_by(|one, other| by_name(&one.name, &other.name));
        Listed::Vms(vms)
    }

    pub(super) fn vms(&self) -> &[DomainInfo] {
        match self {
            Listed::Vms(vms) => vms,
            Listed::Labels(_) => &[],
        }
    }

    /// The labels that a VM has itself.
    pub(super) fn labels(&self, vm: Uuid) -> Option<&BTreeMap<String, String>> {
        match self {
            Listed::Vms(_) => None,
            Listed::Labels(labels) => labels.get(&vm),
        }
    }
}
