//! The rules by which several controllers share a fleet: which of them works on a host, and what becomes of a target whose
//! controller is lost. Nothing here does I/O or reads a clock; times are passed in.
//!
//! There are two sides. A **controller** counts its leases by its own clock, from the moment before it asked for them
//! ([`Leases`]). The **database** has a lease for each host ([`HostLease`]) and a state for each target
//! ([`TargetState`]), and its clock alone decides about their ends. The two clocks are never compared: only their rates must
//! be alike.
//!
//! ```text
//! controller   asks ──────────────── half ────────── three quarters ───┐
//!                     starts targets      starts none        aborts all│ what is under way
//! database         grants ─────────────────────────────────────────────┴─── end: another controller may take it,
//!                                                                            with the next epoch
//! ```
//!
//! A target goes `waiting → started → finished`, and never back once something may have been sent:
//!
//! | change | allowed if |
//! |---|---|
//! | started | it waits, and the lease is the controller's, of this epoch, and has not ended |
//! | waiting again | by the claim that started it, if its controller has sent nothing |
//! | finished | by the claim that started it, also if the lease has ended since |
//! | finished, outcome unknown | the host has a later epoch, and the target's deadline and the slack of clocks have passed |
//!
//! Each change is made by one guarded update, so that one of two that compete finds nothing to change. So a target is started
//! at most once, and has one outcome.
//!
//! ```
//! use std::time::Duration;
//! use atp_cluster::{HostLease, Leases};
//!
//! let length = Duration::from_secs(15);
//! let (mut row, mut mine) = (HostLease::default(), Leases::new(length));
//! let epoch = row.take("one", Duration::ZERO, length).ok_or("taken")?;
//! assert!(row.take("two", Duration::from_secs(14), length).is_none());
//! mine.granted(Duration::ZERO, [("host-1".to_owned(), epoch)]);
//! assert_eq!(mine.may_start("host-1", Duration::from_secs(7)), Some(epoch));
//! assert_eq!(mine.may_start("host-1", Duration::from_secs(8)), None);
//! # Ok::<(), &str>(())
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | controller | a service that works on targets of the fleet, one of several |
//! | lease | the right of one controller to start targets on a host, until a time ([`HostLease`], [`Leases`]) |
//! | epoch | the number of a host's lease; it grows when another controller takes the host |
//! | target | a piece of work on one VM, and its row in the database ([`TargetState`]) |
//! | claim | who started a target: the controller, and the epoch of its lease then ([`Claim`]) |
//! | slack | what is added to a target's deadline, as clocks differ in their rates |
//! | owner | the controller that a host falls to, so that hosts are spread evenly ([`owner`]) |

mod lease;
mod leases;
mod spread;
mod target;

pub use lease::HostLease;
pub use leases::Leases;
pub use spread::owner;
pub use target::{Claim, TargetState};
