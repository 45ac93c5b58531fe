//! The text of a serial console: its lines, and what the guest's kernel reports in them.
//!
//! ```
//! use atp_api::KernelFault;
//! use atp_protocol::console::{Lines, kernel_fault};
//!
//! let mut lines = Lines::default();
//! let mut faults = Vec::new();
//! lines.push(b"[    9.1] Kernel panic - not syncing: no init\r\nlogin: ", |line| faults.extend(kernel_fault(line)));
//! assert_eq!(faults, [KernelFault::Panic]);
//! assert_eq!(lines.unfinished(), "login: ");
//! ```

mod fault;
mod lines;

pub use fault::kernel_fault;
pub use lines::Lines;
