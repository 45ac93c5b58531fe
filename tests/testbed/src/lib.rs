//! Real libvirt daemons and real QEMU guests with a real guest agent, on one small machine, for tests.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let bed = atp_testbed::Testbed::builder().hosts(3).guests(2).start()?;
//! let host = bed.host("h1")?;
//! println!("{} runs {} guests", host.uri(), host.guests().len());
//!
//! host.guest("vm1")?.pause_qemu()?; // its monitor and its agent do not answer any more
//! bed.host("h2")?.pause_daemon()?; // nothing answers on this host
//! bed.host("h3")?.drop_packets()?; // packets to and from this host are lost
//!
//! bed.restore()?; // undoes all faults
//! host.boot_guest("vm3")?.wait_agent(Duration::from_secs(30))?;
//! # Ok::<(), atp_testbed::Error>(())
//! ```
//!
//! Everything is synchronous, and everything that can hang has a deadline. libvirt is reached only through `virsh`
//! child processes, never through the code under test, so [`Host::virsh`] also serves as an independent check.
//!
//! **Root mode** gives each host a network namespace, an address and system daemon of its own
//! (`qemu+tcp://10.231.N.11/system`); **rootless mode** runs session daemons on ports of 127.0.0.1. The machine's own
//! libvirt, if it has one, is never touched. Nothing is installed by this crate; `cargo xtask setup` does that.
//!
//! In root mode a host may run the libvirt and the QEMU of [another Debian release](Libvirt), which is installed in a
//! folder of the cache.
//!
//! The daemons accept every client without authentication, as the tests need it: every user of this machine can control
//! the hosts of a bed while it is up, and system daemons run as root. Other machines cannot reach them.
//!
//! A bed is removed when it is dropped. If its process was killed, the next start or `testbed down` removes what is
//! left. See [`Testbed`].
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | bed | hosts and guests that belong together, and are removed together ([`Testbed`]) |
//! | host | a libvirt daemon with an address, and the guests that it runs ([`Host`]) |
//! | guest | a VM: a QEMU with a Linux and its guest agent ([`Guest`]) |
//! | fault | a state in which a part does not answer or is lost; [`Testbed::restore`] undoes all of them |
//! | root mode, rootless mode | system daemons in network namespaces, or the user's own daemons on ports of 127.0.0.1 |
//! | release | the libvirt and the QEMU of another Debian release ([`Libvirt`]) |

mod bed;
mod error;
mod guest;
mod host;
mod libvirt;
mod proxy;
mod qemu;
pub mod session;
mod state;

pub use bed::{Builder, Summary, Testbed};
pub use error::{Error, LogTail, Result};
pub use guest::{DiskFormat, Guest};
pub use host::{Host, SmallFolder};
pub use libvirt::Libvirt;
pub use proxy::Proxy;
pub use qemu::Qemu;
pub use state::Mode;

mod cache;
mod command;
mod cpio;
mod daemon;
mod image;
mod language;
mod layout;
mod network;
mod parallel;
mod process;
mod release;
mod sys;
mod virsh;
