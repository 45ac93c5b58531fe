//! A fleet with its clients: atp-rpc in virtual time, and `virsh`, the reference for what a daemon answers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod bed;
mod calls;
mod faults;
mod limits;
mod once;
mod process;
mod virsh;
