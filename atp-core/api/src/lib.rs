//! What ATP's programs say to each other, as versioned plain data: the command line, the service, and clients in other
//! languages.
//!
//! Every type here is serialised and read back (serde), and means the same on both sides. A word that this version does
//! not know is read as unknown, and not refused.
//!
//! ```
//! use atp_api::{Effect, ErrorKind, Hint};
//!
//! let kind: ErrorKind = serde_json::from_str("\"vm-not-running\"")?;
//! assert_eq!(kind, ErrorKind::VmNotRunning);
//! assert_eq!(kind.hint(), Hint::START_VM);
//! assert_eq!(serde_json::to_string(&Effect::Unknown)?, "\"unknown\"");
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Glossary
//!
//! - **Effect**: what a piece of work did to its target: `none`, `done`, or `unknown` where it was sent and no answer came.
//! - **Kind**: a stable word that says which failure it is, for programs to match on.
//! - **Hint**: what a person can try. It is a value; each front end puts it into words of its own.

mod canonical;
mod data;
pub mod domain;
mod duration;
mod effect;
mod encoding;
mod error;
mod hint;
mod host_id;
mod kind;
mod operation;
mod outcome;
mod policy;
mod portion;
mod run;
mod statistics;

pub use canonical::canonical_json;
pub use data::{
    Address, Data, Diagnosis, ExecReport, FileReport, Finding, GuestReport, HostReport, Interface, OsReport,
    ScenarioReport, ScreenshotReport, StepReport, Stream, Verdict, VmReport, WaitReport,
};
pub use duration::millis;
pub use effect::Effect;
pub use encoding::{TextEncoding, UnknownEncoding};
pub use error::{LibvirtCode, OutcomeError};
pub use hint::Hint;
pub use host_id::{HostId, InvalidHostId};
pub use kind::ErrorKind;
pub use operation::{
    Condition, ExecSpec, KeySpec, LifecycleSpec, MouseSpec, OperationSpec, PullSpec, PushSpec, RawCommand,
    RawCommandError, ScenarioSpec, ScreenshotLimits, ScreenshotSpec, TypeSpec,
};
pub use outcome::{Outcome, Status};
pub use policy::Policy;
pub use portion::{InvalidPortion, Portion};
pub use run::{RunEvent, RunStart, StopReason};
pub use statistics::{RunStatistics, StatusCounts};

/// The version of these types. It grows when a type changes in a way that a reader of the version before cannot read.
pub const VERSION: u32 = 1;
