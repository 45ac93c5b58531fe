//! Against a daemon that a test plays itself, in this process: what a real one does too rarely.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod calls;
mod daemon;
mod dialler;
mod faults;
mod keepalive;
mod streams;
