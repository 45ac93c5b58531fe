//! Tests of everything above the `Connector`, over hosts that follow a script, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod breaker;
mod calls;
mod cancel;
mod events;
mod groups;
mod health;
mod hosts;
mod interceptors;
mod laws;
mod maintenance;
mod panics;
mod pool;
mod rate;
mod reload;
mod retry;
mod scripted;
mod several_calls;
mod simulation;
