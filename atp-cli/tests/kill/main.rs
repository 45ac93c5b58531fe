//! `atp serve` killed at any moment of a run: what was shown is there, and nothing that was started is repeated. Also where
//! several share a database, with other faults.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails the test that calls it"
)]

#[path = "../cli/atp.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod atp;
mod cluster;
mod proxy;
mod service;
