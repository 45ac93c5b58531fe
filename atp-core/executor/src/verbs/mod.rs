//! The verbs: what can be done to a target, one file for each.
//!
//! A verb's file has its facts and how it is carried out. Its parameters and what it yields are plain data in `atp-api`.
//! [`Operation`] is made from the table in `atp_api::operations`. To add a verb, write `verbs/<verb>.rs` with its facts and
//! the function `perform`, and add a line to that table; if it yields a new kind of data, add a variant to `Data`.
//!
//! ```text
//! job  answer  reconnect_retry  completion  facts    what several verbs use
//! transfer  input                                    what two of them share
//! ```

mod answer;
mod autostart;
pub(crate) mod completion;
mod console;
mod diagnose;
mod exec;
mod facts;
mod host_check;
mod input;
pub(crate) mod job;
pub(crate) mod key;
mod lifecycle;
pub(crate) mod mouse;
mod nmi;
mod pull;
mod push;
mod qga;
mod qmp;
mod raw_command;
mod reconnect_retry;
pub(crate) mod relocation;
mod scenario;
mod screenshot;
mod snapshot;
mod transfer;
pub(crate) mod type_text;
mod vm_info;
mod vm_list;
mod vm_xml;
mod wait;

use std::fmt;
use std::sync::Arc;

use atp_api::{Condition, DryRun, OperationSpec, OutcomeError, Status, check_snapshot_name};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{ErrorKind, HostId};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

pub use self::exec::ExecTemplate;
pub use self::facts::{Needs, VerbFacts};
pub use self::push::PreparedPush;
pub use self::scenario::{
    Action, Assertion, Evidence, FileAssertion, FilePlaces, Matcher, Place, Retry, Scenario, ScenarioError,
    ScreenAssertion, Step, StepOperation, Template, When, schema as scenario_schema,
};
pub use self::wait::WaitFor;

use self::completion::Completion;
use self::job::Job;
use self::relocation::Next;

/// Makes [`Operation`] from the table of operations, what is known of its verb, and the call that carries it out.
macro_rules! operation {
    (
        hosts { $($(#[$host_doc:meta])* $host:ident => $($host_module:ident)::+, $host_facts:expr;)+ }
        vms { $($(#[$doc:meta])* $verb:ident $(($spec:ident: $type:ty))? => $($module:ident)::+, $facts:expr;)+ }
        prepared {
            $($(#[$late_doc:meta])* $late:ident($ready:ident: $late_type:ty, $ready_type:ty) =>
                $late_module:ident, $late_facts:expr;)+
        }
    ) => {
        /// One operation, the same for every target of a run: an [`OperationSpec`] that was made ready.
        ///
        /// Its [`Debug`](fmt::Debug) is its name, for its parameters may be secret.
        #[derive(Clone, PartialEq)]
        pub enum Operation {
            $($(#[$host_doc])* $host,)+
            $($(#[$doc])* $verb $(($type))?,)+
            $($(#[$late_doc])* $late($ready_type),)+
        }

        impl Operation {
            /// Makes an operation ready: opens the file that is to be copied, and checks what can be checked without a host.
            ///
            /// # Errors
            /// A file cannot be read, or the operation cannot be expressed; nothing was sent.
            ///
            /// Cancel safe.
            pub async fn prepare(spec: OperationSpec) -> Result<Self, OutcomeError> {
                check(&spec)?;
                Ok(match spec {
                    $(OperationSpec::$host => Operation::$host,)+
                    $(OperationSpec::$verb $(($spec))? => Operation::$verb $(($spec))?,)+
                    OperationSpec::Push(spec) => Operation::Push(PreparedPush::open(spec).await?),
                    OperationSpec::Scenario(spec) => Operation::Scenario(Arc::new(Scenario::prepare(&spec)?)),
                })
            }

            /// The operation as plain data.
            pub fn spec(&self) -> OperationSpec {
                match self {
                    $(Operation::$host => OperationSpec::$host,)+
                    $(Operation::$verb $(($spec))? => OperationSpec::$verb $(($spec.clone()))?,)+
                    Operation::Push(file) => OperationSpec::Push(file.spec.clone()),
                    Operation::Scenario(scenario) => OperationSpec::Scenario(scenario.spec().clone()),
                }
            }

            /// The facts about its verb.
            pub fn facts(&self) -> &'static VerbFacts {
                match self {
                    $(Operation::$host => $host_facts,)+
                    $(Operation::$verb $(($spec))? => {
                        // The facts of most verbs are the same for every spec.
                        $(let _ = $spec;)?
                        $facts
                    })+
                    $(Operation::$late($ready) => {
                        let _ = $ready;
                        $late_facts
                    })+
                }
            }

            /// Whether its targets are hosts, and not VMs.
            pub fn is_for_hosts(&self) -> bool {
                matches!(self, $(Operation::$host)|+)
            }
        }

        /// Carries out `operation` on the target of `job` on its host.
        async fn perform_here(operation: &Operation, job: &Job) -> Completion {
            let work = match (operation, &job.target.domain) {
                $((Operation::$host, _) => boxed(|| $($host_module)::+::perform(job)),)+
                $((Operation::$verb $(($spec))?, Some(domain)) => {
                    boxed(|| $($module)::+::perform(job, domain $(, $spec)?))
                })+
                $((Operation::$late($ready), Some(domain)) => {
                    boxed(|| $late_module::perform(job, domain, $ready))
                })+
                (_, None) => return job.without_vm(),
            };
            work.await
        }
    };
}

atp_api::operations!(operation);

impl Operation {
    /// What it will do to a VM that is listed so: for some the reason of the state decides.
    pub fn dry_run_of(&self, domain: &DomainInfo) -> DryRun {
        match self {
            Operation::Lifecycle(spec) => lifecycle::dry_run(spec, domain),
            _ => self.dry_run(domain.state),
        }
    }

    /// The error of a VM whose state does not allow it.
    pub fn refusal(&self, host: &HostId, domain: &DomainInfo) -> OutcomeError {
        match self {
            Operation::Lifecycle(spec) => lifecycle::refusal(spec, host, domain),
            _ => facts::refusal(self.facts().needs, host, domain),
        }
    }
}

/// Carries out `operation` on the target of `job`, by the deadline of its attempt: on its host, or where the VM is if it moves
/// before anything is sent to it. A wait ends when the run is asked to stop; a step of a scenario is ended by the scenario.
pub(crate) async fn perform(operation: &Operation, job: &Job) -> Completion {
    let ends_on_stop = operation.facts().ends_on_stop && !job.is_step;
    tokio::select! {
        // A wait that has ended counts as ended.
        biased;
        completion = follow(operation, job) => completion,
        () = job.attempt.stop_requested(), if ends_on_stop => stopped(job),
    }
}

/// Takes the target of `job` back to the snapshot of a scenario that an earlier run left in its middle.
pub(crate) async fn undo(operation: &Operation, job: &Job) -> Completion {
    match (operation, &job.target.domain) {
        (Operation::Scenario(scenario), Some(domain)) => scenario::undo(job, domain, scenario).await,
        // Only such scenarios are undone.
        _ => job.without_vm(),
    }
}

/// The completion of a wait that ends as the run was asked to stop.
fn stopped(job: &Job) -> Completion {
    let error = OutcomeError::new(ErrorKind::Stopped, "stopped during the wait, as requested").retryable();
    job.attempt.cut_off(Status::Cancelled, error)
}

/// As [`perform`], whether or not the run is asked to stop.
async fn follow(operation: &Operation, job: &Job) -> Completion {
    let mut moved: Option<Box<Job>> = None;
    let mut is_repeated = false;
    loop {
        let job = moved.as_deref().unwrap_or(job);
        let completion = perform_here(operation, job).await;
        let next = match &job.target.domain {
            Some(domain) => relocation::after(operation, job, domain, &completion).await,
            None => None,
        };
        match next {
            Some(Next::There(there)) => (moved, is_repeated) = (Some(there), false),
            Some(Next::Again)
                if !is_repeated
                    && job.policy.poll_initial < job.deadline().saturating_duration_since(Instant::now()) =>
            {
                sleep(job.policy.poll_initial).await;
                is_repeated = true;
            }
            Some(Next::Ended(completion)) => return job.ended(*completion),
            Some(Next::Again) | None => return job.ended(completion),
        }
    }
}

/// Makes the work of a verb on the heap. An unoptimised build has room for the work of every verb in the frame of the function that
/// makes and awaits it: most of the stack of a thread.
fn boxed<'a, F: Future<Output = Completion> + Send + 'a>(
    work: impl FnOnce() -> F,
) -> BoxFuture<'a, Completion> {
    Box::pin(work())
}

/// Whether what is to be waited for, pressed, typed or pointed at can be expressed.
fn check(spec: &OperationSpec) -> Result<(), OutcomeError> {
    let checked = match spec {
        OperationSpec::Lifecycle(spec) => spec.check(),
        OperationSpec::Key(spec) => key::parse(&spec.chords).map(drop),
        OperationSpec::Type(spec) => type_text::strokes(spec).map(drop),
        OperationSpec::Mouse(spec) => mouse::parse(spec).map(drop),
        OperationSpec::SnapshotCreate(spec) => spec.check(),
        OperationSpec::SnapshotRevert(spec) => check_snapshot_name(&spec.name),
        OperationSpec::SnapshotDelete(spec) => check_snapshot_name(&spec.name),
        // Any word that is no state is read so.
        OperationSpec::Wait(Condition::State(DomainState::NoState)) => {
            let states: Vec<_> = DomainState::AWAITED.map(|(_, state)| state.as_str()).into();
            Err(format!("the state to wait for is none of {}", states.join(", ")))
        }
        _ => Ok(()),
    };
    checked.map_err(|reason| OutcomeError::new(ErrorKind::InvalidCommand, reason))
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operation").field(&self.name()).finish()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use atp_api::{
        Await, ExecSpec, KeySpec, LifecycleSpec, MouseSpec, PushSpec, RevertSpec, ScenarioSpec, SnapshotSpec,
        TypeSpec,
    };
    use atp_transport::domain::Lifecycle;

    use super::*;

    #[tokio::test]
    async fn an_operation_is_made_ready_from_its_spec_and_gives_it_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = file.path().to_owned();
        let text = "name: s\ntargets: '*'\nvariables: {a: b}\nsteps:\n  - exec: uname ${a}\n".to_owned();
        let variables = [("a".to_owned(), "c".to_owned())].into();
        for spec in [
            OperationSpec::HostCheck,
            OperationSpec::VmInfo,
            OperationSpec::Exec(ExecSpec::new("true")),
            OperationSpec::Wait(Condition::Agent),
            OperationSpec::Key(KeySpec::new(["ctrl-alt-del"])),
            OperationSpec::Type(TypeSpec::new("hi")),
            OperationSpec::Mouse(MouseSpec::new("click 50% 50%")),
            OperationSpec::Scenario(ScenarioSpec { text, variables, ..ScenarioSpec::default() }),
        ] {
            assert_eq!(Operation::prepare(spec.clone()).await.unwrap().spec(), spec);
        }
        let push = |sha256| PushSpec {
            source: source.clone(),
            destination: "/x".into(),
            sha256,
            recursive: false,
            packed: false,
        };
        let ready = Operation::prepare(OperationSpec::Push(push(None))).await.unwrap();
        // The SHA-256 of nothing.
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned();
        assert_eq!(ready.spec(), OperationSpec::Push(push(Some(digest))));
        let error = Operation::prepare(OperationSpec::Push(push(Some("00".to_owned())))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::LocalFileError);
        assert!(error.causes[0].contains("its SHA-256 is e3b0"), "{error:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_expressed_is_refused_before_a_host_is_asked() {
        let scenario = ScenarioSpec { text: "name: x".to_owned(), ..ScenarioSpec::default() };
        for spec in [
            OperationSpec::Key(KeySpec::new(["ctrl-nope"])),
            OperationSpec::Type(TypeSpec { layout: "nope".to_owned(), ..TypeSpec::new("hi") }),
            OperationSpec::Type(TypeSpec::new("\u{1f600}")),
            OperationSpec::Lifecycle(LifecycleSpec {
                wait: Await::Agent,
                ..LifecycleSpec::new(Lifecycle::Destroy)
            }),
            OperationSpec::Mouse(MouseSpec::new("jump")),
            OperationSpec::SnapshotCreate(SnapshotSpec::new("a/b")),
            serde_json::from_str(r#"{"op": "wait", "until": "state", "state": "runing"}"#).unwrap(),
            OperationSpec::SnapshotRevert(RevertSpec::new("")),
            OperationSpec::Scenario(scenario),
        ] {
            let error = Operation::prepare(spec.clone()).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidCommand, "{spec:?}: {error:?}");
        }
    }

    #[test]
    fn debug_shows_no_parameter() {
        let operation = Operation::Type(TypeSpec::new("hunter2"));
        assert_eq!(format!("{operation:?}"), "Operation(\"type\")");
    }
}
