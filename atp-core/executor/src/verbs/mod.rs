//! The verbs: what can be done to a target, one file for each.
//!
//! A verb's file has its spec (what is to be done), its facts and how it is carried out. What it yields is in `atp-api`.
//! [`Operation`] is made from the table below. To add a verb, write `verbs/<verb>.rs` with the functions `facts` and
//! `perform`, and add it to the table; if it yields a new kind of data, add a variant to [`Data`].
//!
//! ```text
//! job  answer  reconnect_retry  completion  facts    what several verbs use
//! transfer  input                                    what two of them share
//! ```

mod answer;
pub(crate) mod completion;
mod diagnose;
mod exec;
mod facts;
mod host_check;
mod input;
pub(crate) mod job;
mod key;
mod lifecycle;
mod mouse;
mod pull;
mod push;
mod qga;
mod qmp;
mod raw_command;
mod reconnect_retry;
mod scenario;
mod screenshot;
mod transfer;
mod type_text;
mod vm_info;
mod vm_list;
mod wait;

use std::fmt;
use std::sync::Arc;

use atp_protocol::{ExecSpec, RawCommand};

pub use self::exec::ExecTemplate;
pub use self::facts::{DryRun, Needs, VerbFacts};
pub use self::key::KeySpec;
pub use self::lifecycle::LifecycleSpec;
pub use self::mouse::MouseSpec;
pub use self::pull::PullSpec;
pub use self::push::PushSpec;
pub use self::scenario::{
    Action, Assertion, Matcher, Place, Scenario, ScenarioError, Step, StepOperation, Template,
    schema as scenario_schema,
};
pub use self::screenshot::ScreenshotSpec;
pub use self::wait::{Condition, WaitFor};

use self::completion::Completion;
use self::job::Job;

/// Makes [`Operation`], the look at a verb's facts, and the call that carries it out. A line is a variant, its spec if it
/// has one, and the module that knows the verb.
macro_rules! verbs {
    (
        hosts { $($(#[$host_doc:meta])* $host:ident => $($host_module:ident)::+;)+ }
        vms { $($(#[$doc:meta])* $verb:ident $(($spec:ident: $type:ty))? => $($module:ident)::+;)+ }
    ) => {
        /// One operation, the same for every target of a run.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Operation {
            $($(#[$host_doc])* $host,)+
            $($(#[$doc])* $verb $(($type))?,)+
        }

        impl Operation {
            /// The facts about its verb.
            pub fn facts(&self) -> &'static VerbFacts {
                match self {
                    $(Operation::$host => $($host_module)::+::facts(),)+
                    $(Operation::$verb $(($spec))? => $($module)::+::facts($($spec)?),)+
                }
            }

            /// Whether its targets are hosts, and not VMs.
            pub fn is_for_hosts(&self) -> bool {
                matches!(self, $(Operation::$host)|+)
            }
        }

        /// Carries out `operation` on the target of `job`, by the deadline of its attempt.
        pub(crate) async fn perform(operation: &Operation, job: &Job) -> Completion {
            match (operation, &job.target.domain) {
                $((Operation::$host, _) => $($host_module)::+::perform(job).await,)+
                $((Operation::$verb $(($spec))?, Some(domain)) => {
                    $($module)::+::perform(job, domain $(, $spec)?).await
                })+
                (_, None) => job.without_vm(),
            }
        }
    };
}

verbs! {
    hosts {
        /// Connect to the host and ask what it is.
        HostCheck => host_check;
        /// Check each step on the way to the host's daemon.
        DiagnoseHost => diagnose::host;
    }
    vms {
        /// Check what lies between the host and the VM's guest agent.
        DiagnoseAgent => diagnose::agent;
        /// Report what the host's listing says of the VM; nothing more is asked.
        VmList => vm_list;
        /// Ask for everything known of the VM.
        VmInfo => vm_info;
        /// Change the VM's state.
        Lifecycle(spec: LifecycleSpec) => lifecycle;
        /// Run a process in the guest.
        Exec(spec: ExecSpec) => exec;
        /// Copy a file into the guest.
        Push(spec: PushSpec) => push;
        /// Copy a file out of the guest.
        Pull(spec: PullSpec) => pull;
        /// Wait until something is true of the VM, or its deadline has passed.
        Wait(condition: Condition) => wait;
        /// Send one command to QEMU's monitor.
        Qmp(command: RawCommand) => qmp;
        /// Send one command to the guest agent.
        Qga(command: RawCommand) => qga;
        /// Press keys.
        Key(spec: KeySpec) => key;
        /// Type a text.
        Type(spec: KeySpec) => type_text;
        /// Move, click, scroll or drag with the mouse.
        Mouse(spec: MouseSpec) => mouse;
        /// Take a picture of the screen.
        Screenshot(spec: ScreenshotSpec) => screenshot;
        /// Go through the steps of a scenario.
        Scenario(scenario: Arc<Scenario>) => scenario;
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
