//! End to end: the real `atp` and the library, on real daemons and real guests.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test that calls it")]

mod auto;
mod capabilities;
mod channels;
mod consoles;
mod copies;
mod doctor;
mod engines;
mod events;
mod exec;
mod exec_full;
mod faults;
mod field;
mod files;
mod guest_info;
mod input;
mod interrupt;
mod journal;
mod lab;
mod languages;
mod library;
mod lifecycle;
mod listing;
mod load;
mod looks;
mod many;
mod messages;
mod migration;
mod names;
mod raw;
mod resilience;
mod rpc;
mod sasl;
mod scenarios;
mod screenshot;
mod selectors;
mod serve;
mod snapshots;
mod sockets;
mod states;
mod stats;
mod support;
mod transport;
mod wait;
mod watching;
