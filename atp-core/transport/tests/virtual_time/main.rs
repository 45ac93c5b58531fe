//! Everything above the `Connector`, over hosts that do what a script says, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod breaker;
mod calls;
mod cancel;
mod care;
mod events;
mod groups;
mod health;
mod hosts;
mod interceptors;
mod laws;
mod panics;
mod pool;
mod rate;
mod reload;
mod retry;
mod scripted;
mod simulation;
