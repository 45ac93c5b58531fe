//! What ATP's programs say to each other, as versioned plain data: the command line, the service, and clients in other
//! languages. A client builds a request and reads its answers without libvirt on its machine.
//!
//! ```text
//! RunRequest ──────────────► PlanReport          what would be done
//! targets, operation, policy  RunEvent …          what happens, from RunStart to RunStatistics
//!                             └ Outcome           one for each target
//! ```
//!
//! ```
//! use atp_api::{ExecSpec, OperationSpec, Outcome, Policy, RunRequest, Status, Targets};
//!
//! let operation = OperationSpec::Exec(ExecSpec::new("uname").arg("-r"));
//! let request = RunRequest::new(Targets::of(["web-*"]), operation, Policy { parallel: 8, ..Policy::default() });
//! let json = serde_json::to_string(&request)?;
//! assert_eq!(serde_json::from_str::<RunRequest>(&json)?, request);
//!
//! let answer = r#"{"host": "h1", "vm": "web-1", "uuid": null, "op": "exec", "status": "ok", "effect": "done",
//!     "attempts": 1, "duration_ms": 41, "data": null, "error": null}"#;
//! let outcome: Outcome = serde_json::from_str(answer)?;
//! assert_eq!((outcome.vm.as_deref(), outcome.status), (Some("web-1"), Status::Ok));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Versions
//!
//! [`VERSION`] grows when a type changes in a way that a reader of the version before cannot read. Within a version, types
//! only gain fields and words:
//!
//! - **Answers are read leniently.** A field that is not known is passed over. A word that is not known has a stated meaning:
//!   a [kind](ErrorKind::Unknown), an [event](RunEvent::Unknown) or a [reason](StopReason::Unknown) is unknown, an
//!   [effect](Effect::Unknown) too, a status is [`Failed`](Status::Failed), and data is [kept as JSON](Data::Reply).
//! - **Requests are read strictly** ([`RunRequest`], [`read_request`]). A field or a word that is not known is an error that
//!   names it, for a request that is half understood would do something else than was asked for.
//!
//! [`json_schema`] describes the types to programs in other languages; it is in the repository as `schema.json`.
//!
//! # Secrets
//!
//! An operation may have secrets in its parameters: a password to type, an environment, a program's input. They are in
//! requests only. Events and plans have the operation's name, journals a hash ([`canonical_json`]), and `Debug` shows no
//! parameter that may be secret.
//!
//! # Glossary
//!
//! - **Operation** ([`OperationSpec`]): what is done to each target, as it is asked for.
//! - **Target** ([`Targets`]): a VM, or a host, that the operation is done to.
//! - **Policy** ([`Policy`]): the limits, deadlines and retries of a run.
//! - **Plan** ([`PlanReport`]): what a run would do, before anything is done.
//! - **Settled**: an outcome that is known when the plan is made.
//! - **Run event** ([`RunEvent`]): something that happened in a run; its start, its numbers at the end, and all between.
//! - **Outcome** ([`Outcome`]): the result of one target: [status](Status), effect, [data](Data) or [error](OutcomeError).
//! - **Effect** ([`Effect`]): what a piece of work did to its target: `none`, `done`, or `unknown` where it was sent and no
//!   answer came.
//! - **Kind** ([`ErrorKind`]): a stable word that says which failure it is, for programs to match on.
//! - **Hint** ([`Hint`]): what a person can try. It is a value; each front end puts it into words of its own.

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
mod plan;
mod policy;
mod portion;
mod request;
mod run;
mod schema;
pub mod serve;
mod statistics;
mod targets;
mod vm_statistics;

pub use canonical::canonical_json;
pub use data::{
    Address, ConsoleGap, ConsoleReport, Data, Diagnosis, EvidenceReport, ExecReport, FileReport, Finding,
    GuestReport, HostReport, Interface, Isolation, KernelFault, KernelFinding, MissedEvidence, OsReport,
    ScenarioReport, ScreenshotReport, SnapshotList, StepReport, Stream, Verdict, VmReport, WaitReport,
    XmlReport,
};
pub use duration::millis;
pub use effect::Effect;
pub use encoding::{TextEncoding, UnknownEncoding};
pub use error::{LibvirtCode, OutcomeError};
pub use hint::Hint;
pub use host_id::{HostId, InvalidHostId};
pub use kind::ErrorKind;
pub use operation::{
    AutostartSpec, Await, Condition, ConsoleSpec, ExecSpec, KeySpec, LifecycleSpec, MouseSpec, OperationSpec,
    PullSpec, PushSpec, RawCommand, RawCommandError, RevertSpec, ScenarioSpec, ScreenshotLimits,
    ScreenshotSpec, SnapshotDeleteSpec, SnapshotSpec, StartCheck, TypeSpec, XmlSpec, check_snapshot_name,
};
pub use outcome::{Outcome, Status};
pub use plan::{DryRun, PlanReport, PlannedTarget};
pub use policy::Policy;
pub use portion::{InvalidPortion, Portion};
pub use request::{RequestError, RunRequest, read_request};
pub use run::{RunEvent, RunStart, StopReason};
pub use schema::json_schema;
pub use statistics::{RunStatistics, StatusCounts};
pub use targets::{FilterError, LabelFilter, StateFilter, Targets};
pub use vm_statistics::{
    CpuUse, DiskUse, HostStatistics, InterfaceUse, MemoryUse, Staleness, StatisticsRound, VmStatistics,
};

/// The version of these types. It grows when a type changes in a way that a reader of the version before cannot read.
pub const VERSION: u32 = 1;
