//! `atp` as its users meet it: the real binary, on libvirt's test driver and on a simulated fleet, which need no daemon.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test that calls it")]

mod atp;
mod configuration;
mod errors;
mod events;
mod far_links;
mod fleet;
mod forms;
mod help;
mod input;
mod interrupts;
mod inventory;
mod isolation;
mod lifecycle;
mod listing;
mod output;
mod passwords;
mod progress;
mod reserve;
mod runs;
mod scenario_steps;
mod scenarios;
mod server;
mod server_streams;
mod shells;
mod situations;
mod snapshots;
mod stats;
mod top;
mod users;
mod ways;
