//! Reservations of VMs.

use std::collections::HashMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::duration;
use crate::host_id::HostId;
use crate::outcome::Outcome;
use crate::targets::Targets;

/// A VM that an owner uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The VM's host when it was reserved.
    pub host: HostId,
    /// The VM's name when it was reserved.
    pub vm: String,
    /// The VM. It is reserved on whatever host it is, if it is not a copy.
    pub uuid: Uuid,
    /// Whether it is a copy, by the setting `shared_uuids` of its host: then a VM of another host with its UUID is another VM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_copy: bool,
    /// The user of it: a job.
    pub owner: String,
    /// Until when, milliseconds since 1970.
    pub until_ms: u64,
}

/// Reserved VMs. No two are one VM.
#[derive(Debug, Clone, Default)]
pub struct ReservedVms(HashMap<Uuid, Vec<Reservation>>);

impl ReservedVms {
    /// Adds a VM. False if it is there already.
    pub fn insert(&mut self, new: Reservation) -> bool {
        let of_uuid = self.0.entry(new.uuid).or_default();
        let is_free = of_uuid.iter().all(|one| one.host != new.host && (one.is_copy || new.is_copy));
        if is_free {
            of_uuid.push(new);
        }
        is_free
    }

    /// The reservation of the VM of this UUID on a host, if it has one.
    pub fn of(&self, host: &HostId, uuid: Uuid) -> Option<&Reservation> {
        let of_uuid = self.0.get(&uuid)?;
        let own = of_uuid.iter().find(|one| one.host == *host);
        own.or_else(|| of_uuid.iter().find(|one| !one.is_copy))
    }
}

impl FromIterator<Reservation> for ReservedVms {
    fn from_iter<I: IntoIterator<Item = Reservation>>(all: I) -> Self {
        let mut reserved = ReservedVms::default();
        all.into_iter().for_each(|one| reserved.0.entry(one.uuid).or_default().push(one));
        reserved
    }
}

/// Asks for free VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReserveRequest {
    /// The VMs to choose from.
    pub targets: Targets,
    /// How many.
    pub count: u32,
    /// Who uses them: a name that no other job has.
    pub owner: String,
    /// How long they are reserved.
    #[serde(rename = "for_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub time: Duration,
}

/// What came of a request for free VMs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReserveAnswer {
    /// As many as were asked for; none if fewer are free.
    pub reservations: Vec<Reservation>,
    /// How many of the selected were free.
    pub free: u64,
    /// How many are selected.
    pub selected: u64,
    /// The hosts that could not be listed, with the reason: none of their VMs is among the selected.
    pub settled: Vec<Outcome>,
}

/// Ends reservations before their time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseRequest {
    /// Whose.
    pub owner: String,
    /// Which, as `[HOST/]VM` by the names that they were reserved under; all without one.
    #[serde(default)]
    pub selectors: Vec<String>,
}
