#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

// What a fleet is made of.
mod counts;
mod faults;
mod fleet;
mod options;

// What runs in it.
mod event;
mod guest;
mod host;
mod monitor;
mod vm;
mod xml;

// How it is reached.
mod calls;
mod control;
mod link;
mod refusal;
mod session;
mod shared;

pub use counts::{HostCounts, Report, Tally, VmCounts};
pub use faults::{FaultError, Faults, HostFault, Share, VmFault};
pub use fleet::{Fleet, SimulatedHost, SimulatedVm};
pub use guest::{Execution, Exit, Programs};
pub use options::{FleetOptions, KeepaliveOptions, MAX_HOSTS, MAX_VMS};
