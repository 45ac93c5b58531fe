//! How well a host does its work.

use std::fmt;

use serde::Serialize;

/// How well a host, or the fleet, does its work; from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Work is done, in good time.
    Healthy,
    /// Work is done, but not all of it, or slowly.
    Degraded,
    /// There is more work than can be done.
    Overloaded,
    /// No work can be done.
    Unavailable,
}

impl HealthState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthState::Healthy => "healthy",
            HealthState::Degraded => "degraded",
            HealthState::Overloaded => "overloaded",
            HealthState::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
