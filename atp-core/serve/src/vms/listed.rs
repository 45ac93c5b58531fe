//! What hosts listed, as it is cached.

use std::collections::{BTreeMap, HashMap};

use atp_transport::domain::DomainInfo;
use uuid::Uuid;

/// What a host was asked for.
#[derive(Debug)]
pub(crate) enum Listed {
    /// Its VMs.
    Vms(Vec<DomainInfo>),
    /// The labels that its VMs have themselves.
    Labels(HashMap<Uuid, BTreeMap<String, String>>),
}
