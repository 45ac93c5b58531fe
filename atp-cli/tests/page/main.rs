//! The page of `atp serve` in Debian's Chromium, on a simulated fleet.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails the test that calls it"
)]

mod browser;
mod fleet;
mod keyboard;
mod looks;
mod proxy;
mod runs;
mod safety;
mod service;
mod session;
mod vms;
