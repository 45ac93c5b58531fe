//! Against a real libvirtd, of this machine, with libvirt's test driver. `virsh` on the same daemon is the oracle.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod calls;
mod commands;
mod daemon;
mod events;
#[cfg(feature = "gssapi")]
mod gssapi;
mod sasl;
mod session;
mod settings;
mod ssh;
mod tls;
mod user;
mod wire;
