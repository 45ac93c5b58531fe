//! A host as the service sees it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host_id::HostId;

/// A host, its health and its connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostView {
    /// The host.
    pub id: HostId,
    /// Where it is, without a password.
    pub uri: String,
    /// Its address or name.
    pub address: String,
    /// What speaks to its daemon: `native` or `library`.
    pub engine: String,
    /// Its share of work that is spread by weight.
    pub weight: u32,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How well it does its work.
    pub health: HealthView,
    /// The connections to it.
    pub pool: PoolView,
    /// Its circuit breaker.
    pub breaker: BreakerView,
}

/// How well a host does its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthView {
    /// `healthy`, `degraded`, `overloaded` or `unavailable`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// Since when; RFC 3339.
    pub since: String,
    /// Why the host could not be reached when it was last tried, if it could not.
    pub last_connect_error: Option<String>,
}

/// The connections to a host at one moment, and what was counted since it was added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// All connections, in whatever state.
    pub total: usize,
    /// Connected, and not in use.
    pub idle: usize,
    /// Connected, and in use.
    pub active: usize,
    /// Being opened for the first time.
    pub connecting: usize,
    /// Lost, and being opened again.
    pub reconnecting: usize,
    /// Given up for now.
    pub failed: usize,
    /// Out of service because a call on them hangs.
    pub suspect: usize,
    /// Out of service because they are old, or too many.
    pub draining: usize,
    /// The most that there may be.
    pub max: usize,
    /// Work that waits for a connection.
    pub waiting: usize,
    /// Calls under way, with those that hang.
    pub calls_in_flight: usize,
    /// Calls past their deadline that have not returned.
    pub stuck_calls: usize,
    /// Calls made.
    pub requests: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Work that got no connection by its deadline.
    pub acquire_timeouts: u64,
    /// Times that a lost connection was opened again.
    pub reconnects: u64,
}

/// A host's circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Calls that it has refused.
    pub refused: u64,
    /// What opened it, if it is not closed.
    pub last_failure: Option<String>,
}
