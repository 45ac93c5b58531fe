//! A fleet as its clients see it: atp-rpc in virtual time, and `virsh`, which knows best what a daemon answers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod bed;
mod calls;
mod faults;
mod limits;
mod once;
mod process;
mod virsh;
