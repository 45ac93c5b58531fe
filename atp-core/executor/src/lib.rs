//! One operation over many virtual machines: select, plan, run, report.
//!
//! ```text
//! Selection ──plan──► Plan ──run──► RunEvents, with one Outcome for each target
//!  who          lists the  what       starts targets as
//!               hosts      will be    the Policy allows
//!                          done
//! ```
//!
//! A [`Selection`] of [`Selector`]s says which VMs are meant. [`Executor::plan`] asks the hosts concerned which
//! VMs that is and makes a [`Plan`]: a plain value, to be printed, counted, or asked about before anything is
//! done. [`Executor::run`] carries it out and yields [`RunEvent`]s; reporters render them, for this crate
//! prints nothing. The promise: **every target gets exactly one [`Outcome`], by its deadline**, whatever hangs,
//! fails or panics below, and each says how it went ([`Status`]) and whether anything happened
//! ([`Effect`](atp_transport::Effect)).
//!
//! ```
//! use atp_executor::{Executor, Operation, Policy, RunControl, Selection, Status};
//! use atp_transport::{HostInfo, TransportConfig, TransportManager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // libvirt's test driver: a host in memory, with one running domain named `test`.
//! let manager = TransportManager::new(TransportConfig::default());
//! manager.add_host(HostInfo::from_uri("demo", "test:///default")).await?;
//!
//! let executor = Executor::new(manager);
//! let selection = Selection::of(["demo/t*".parse()?]);
//! let plan = executor.plan(&selection, Operation::VmInfo, Policy::default()).await?;
//! print!("{plan}");
//!
//! for outcome in executor.run(plan, &RunControl::default()).outcomes().await {
//!     assert_eq!((outcome.vm.as_deref(), outcome.status), (Some("test"), Status::Ok));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`run_targets`] is the scheduler by itself, for work of one's own over planned targets.

// Public API
mod error;
mod executor;
mod journal;
mod outcome;
mod plan;
mod policy;
mod portion;
mod run;
mod selection;
mod selector;
mod target;
mod verbs;
mod watch;

// Implementation
mod lossy_path;
mod pattern;
mod resolve;
mod safe_name;
mod same_daemon;

pub use error::{LibvirtCode, OutcomeError};
pub use executor::Executor;
pub use journal::{History, Journal, JournalError};
pub use outcome::{Outcome, Status};
pub use plan::{Names, Notice, Plan, PlanError};
pub use policy::Policy;
pub use portion::Portion;
pub use run::{Attempt, Run, RunControl, RunEvent, RunReader, RunSpec, StopReason, run_targets};
pub use selection::{FilterError, LabelFilter, Selection, StateFilter};
pub use selector::{HostSelector, Selector, SelectorError, escape};
pub use target::Target;
pub use verbs::completion::Completion;
pub use verbs::{
    Action, Assertion, Condition, Data, Diagnosis, DryRun, ExecReport, ExecTemplate, FileReport, Finding,
    GuestReport, HostReport, KeySpec, LifecycleSpec, Matcher, MouseSpec, Needs, Operation, OsReport, Place,
    PullSpec, PushSpec, Scenario, ScenarioError, ScenarioReport, ScreenshotReport, ScreenshotSpec, Step,
    StepOperation, StepReport, Stream, Template, VerbFacts, Verdict, VmReport, WaitFor, WaitReport,
    scenario_schema,
};
pub use watch::Watch;
