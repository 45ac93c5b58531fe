//! What is reported of hosts and calls: counters, latencies, events, health.

pub(crate) mod call_counters;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod latency;
pub(crate) mod seconds;
