//! The service as its clients meet it: over HTTP, on a simulated fleet.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails the test that calls it"
)]

mod bed;
mod clock;
mod files;
mod forgery;
mod listing;
mod permissions;
mod refused;
mod requests;
mod reservations;
mod runs;
mod streams;
mod tls;
mod usage;
