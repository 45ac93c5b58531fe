//! Arguments that several verbs share: the global options, the policy of a run, and the targets.

mod global;
pub(crate) mod hold;
pub(crate) mod number;
mod pair;
mod policy;
mod targets;

#[cfg(test)]
pub(crate) use global::AdHocHost;
pub(crate) use global::GlobalArgs;
pub(crate) use pair::pair;
pub(crate) use policy::NONE;
#[cfg(test)]
pub(crate) use policy::PolicyArgs;
pub(crate) use targets::{NarrowArgs, TargetArgs};
