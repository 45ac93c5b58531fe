//! Other commands of the guest's agent: information about the system, freezing filesystems, passwords and keys,
//! shutdown.
//!
//! Each function is one command. Its reply has the type of the crate [`qapi`] if that is expressive enough. All
//! functions end by their deadline. Dropping one stops the wait and does not cancel the command.

mod access;
mod freeze;
mod power;
mod system;

pub use access::{Password, add_ssh_keys, remove_ssh_keys, set_password, ssh_keys};
pub use atp_api::{Address, Interface};
pub use freeze::{FreezePolicy, freeze, frozen, thaw, with_frozen};
pub use power::{PowerAction, PowerPolicy, PoweredBy, power};
pub use system::{
    disks, filesystems, host_name, info, interfaces, os, ping, set_time, time, timezone, uptime, users,
};
