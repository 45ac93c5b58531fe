//! One operation over many virtual machines: select, plan, run, report.
//!
//! ```text
//! Selection ──plan──► Plan ──run──► RunEvents, with one Outcome for each target
//! which VMs   lists   what    starts targets as
//!             hosts   to do   the Policy allows
//! ```
//!
//! A [`Selection`] of [`Selector`]s says which VMs are meant. [`Executor::plan`] asks the hosts concerned for their VMs and
//! makes a [`Plan`]: a plain value, to be printed, counted, or confirmed before anything is done. [`Executor::run`] carries
//! it out and yields [`RunEvent`]s. Reporters render them; this crate prints nothing. The promise: **every target gets
//! exactly one [`Outcome`] by its deadline**, even if something below hangs, fails or panics, and each outcome says how it
//! went ([`Status`]) and whether anything happened ([`Effect`](atp_transport::Effect)).
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
//! [`run_targets`] is the scheduler by itself, for other work over planned targets.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | operation, verb | what is done to each target ([`Operation`]); a verb is its kind, with its [`VerbFacts`] in one file of `verbs/` |
//! | selection | which VMs or hosts are meant, before any host is asked ([`Selection`]) |
//! | target | one VM, or one host, that the operation is done to ([`Target`]) |
//! | plan | the targets, the operation and the policy as a value, before anything is done ([`Plan`]) |
//! | settled | an outcome that is known when the plan is made: a host that cannot be listed, a VM that does not exist |
//! | dry run | what the operation would do to a target, as far as its state tells ([`DryRun`]) |
//! | policy | the limits, deadlines and retries of a run ([`Policy`]) |
//! | admitted, under way | a target that was started and has no outcome yet; its deadline runs |
//! | attempt | one try to carry out the operation on a target, with a deadline ([`Attempt`]) |
//! | mark | set by an attempt before it sends something that may change the target ([`Attempt::mark_sent`]) |
//! | effect | whether anything happened to the target: `none`, `done` or `unknown` ([`Effect`](atp_transport::Effect)); unknown is never repeated |
//! | completion | how the work on a target ended ([`Completion`]); with the target it makes the outcome |
//! | outcome | the result of a target: status, effect, data or error ([`Outcome`]) |
//! | canary | the first batch of a run with batches: if one of its targets fails, the run ends |
//! | journal | a file in which targets are recorded before they start and when they end, so that a run can be resumed ([`Journal`], [`History`]) |
//! | recorder | where a run records its targets: a journal, or the database of a service ([`Recorder`]) |
//! | scenario, step | an operation made of steps ([`Scenario`]) |
//! | teardown | the last steps of a scenario, carried out in any case |

// Public API
mod executor;
mod folded;
mod html;
mod journal;
mod junit;
mod placement;
mod plan;
mod reservations;
mod run;
mod sampler;
mod selection;
mod selector;
mod target;
pub mod text;
mod verbs;
mod watch;

// Implementation
mod host_watches;
mod number_range;
mod pattern;
mod resolve;
mod safe_name;
mod same_daemon;
mod sought;

pub use atp_api::serve::Reservation;
pub use atp_api::{
    AutostartSpec, Await, Condition, ConsoleGap, ConsoleReport, ConsoleSpec, Data, Diagnosis, DryRun,
    EvidenceReport, ExecReport, ExecSpec, FileReport, FilterError, Finding, GuestReport, HostReport,
    Isolation, KernelFault, KernelFinding, KeySpec, LabelFilter, LibvirtCode, LifecycleSpec, MissedEvidence,
    MouseSpec, OperationSpec, OsReport, Outcome, OutcomeError, PlanReport, PlannedTarget, Policy, Portion,
    PullSpec, PushSpec, RawCommand, RevertSpec, RunEvent, RunStart, RunStatistics, ScenarioReport,
    ScenarioSpec, ScreenshotLimits, ScreenshotReport, ScreenshotSpec, SnapshotDeleteSpec, SnapshotList,
    SnapshotSpec, StartCheck, StateFilter, StatisticsRound, Status, StatusCounts, StepReport, StopReason,
    Stream, Targets, TypeSpec, Verdict, VmReport, VmStatistics, WaitReport, XmlReport, XmlSpec,
    check_snapshot_name, millis,
};
pub use executor::Executor;
pub use folded::Folded;
pub use html::Html;
pub use journal::{
    History, Journal, JournalError, JournalProgress, JournalReport, JournalTarget, RecordedTarget, Recorder,
    RunHead,
};
pub use junit::Junit;
pub use placement::Placements;
pub use plan::{Doubt, Names, Notice, Plan, PlanError};
pub use reservations::{Candidate, ReservationError, Reservations, Reserved};
pub use run::{Attempt, Run, RunControl, RunSpec, run_targets};
pub use sampler::{SampleOptions, Sampler};
pub use selection::Selection;
pub use selector::{HostSelector, Selector, SelectorError, escape};
pub use target::Target;
pub use verbs::completion::Completion;
pub use verbs::relocation::has_copies;
pub use verbs::{
    Action, Assertion, Evidence, ExecTemplate, FileAssertion, FilePlaces, Matcher, Needs, Operation, Place,
    PreparedPush, Retry, Scenario, ScenarioError, ScreenAssertion, Step, StepOperation, Template, VerbFacts,
    WaitFor, When, scenario_schema,
};
pub use watch::{Watch, WatchedVms};
