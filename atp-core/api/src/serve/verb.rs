//! What can be done, for clients that compose a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The facts of a verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerbView {
    /// The word in the field `op` of its operation.
    pub op: String,
    /// What it does, in a sentence.
    pub about: String,
    /// The names that its outcomes may have, one for each of its kinds: permissions are given by them.
    pub names: Vec<VerbName>,
    /// Whether its targets are hosts, and not VMs.
    pub for_hosts: bool,
    /// The JSON Schema of its operation. Definitions that it refers to are in the same object, below `$defs`.
    pub schema: Value,
}

/// A kind of a verb, such as `vm-start` of `lifecycle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerbName {
    /// The name.
    pub name: String,
    /// Whether it takes a running VM away from its users.
    pub disruptive: bool,
    /// Whether it only looks.
    pub read_only: bool,
    /// Whether the client's role and verbs allow it.
    pub allowed: bool,
}
