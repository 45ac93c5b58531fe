//! End to end: the real `atp` and the library, on real daemons and real guests.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test that calls it")]

mod events;
mod exec;
mod faults;
mod interrupt;
mod journal;
mod library;
mod lifecycle;
mod listing;
mod load;
mod messages;
mod raw;
mod scenarios;
mod selectors;
mod sockets;
mod transport;
