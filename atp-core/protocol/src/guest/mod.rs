//! What else the guest's agent can do: tell of the system, freeze its file systems, set passwords and keys, and end it.
//!
//! Each function is one command, with the reply as the crate [`qapi`] has it where that says enough. They all end by
//! their deadline, and dropping one gives up the wait, not the command.

mod access;
mod freeze;
mod power;
mod system;

pub use access::{Password, add_ssh_keys, remove_ssh_keys, set_password, ssh_keys};
pub use freeze::{FreezePolicy, freeze, frozen, thaw, with_frozen};
pub use power::{PowerAction, PowerPolicy, PoweredBy, power};
pub use system::{
    Address, Interface, disks, filesystems, host_name, info, interfaces, os, ping, set_time, time, timezone,
    uptime, users,
};
