//! What can be done to targets, as plain data: what a client asks for.

mod command;
mod console;
mod exec;
mod file;
mod input;
mod keyboard;
mod pairs;
mod snapshot;
mod vm;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use command::{RawCommand, RawCommandError};
pub use console::ConsoleSpec;
pub use exec::ExecSpec;
pub use file::{PullSpec, PushSpec, ScreenshotLimits, ScreenshotSpec};
pub(crate) use file::{lossy_path, optional_lossy_path};
pub use keyboard::{KeySpec, MouseSpec, TypeSpec};
pub use snapshot::{RevertSpec, SnapshotDeleteSpec, SnapshotSpec, check_name as check_snapshot_name};
pub use vm::{AutostartSpec, Await, Condition, LifecycleSpec, StartCheck, XmlSpec};

/// The table of operations, one line for each: its variant, its parameters, and after the arrow what carries it out, which
/// only the executor knows: a module, and the facts about the verb. It passes its lines to the macro `make`, which makes
/// [`OperationSpec`] here, and the executor's `Operation` there.
///
/// The parameters of those under `prepared` are made ready before a run, once for all targets: what they become is named
/// beside them.
#[doc(hidden)]
#[macro_export]
macro_rules! operations {
    ($make:ident) => {
        $make! {
            hosts {
                /// Connect to the host and ask what it is.
                HostCheck => host_check, &host_check::FACTS;
                /// Check each step on the way to the host's daemon.
                DiagnoseHost => diagnose::host, &diagnose::FACTS;
            }
            vms {
                /// Check what lies between the host and the VM's guest agent.
                DiagnoseAgent => diagnose::agent, &diagnose::FACTS;
                /// Report what the host's listing says of the VM; nothing more is asked.
                VmList => vm_list, &vm_list::FACTS;
                /// Ask for everything known of the VM.
                VmInfo => vm_info, &vm_info::FACTS;
                /// Read the VM's definition, as libvirt's XML without passwords.
                VmXml(spec: $crate::XmlSpec) => vm_xml, &vm_xml::FACTS;
                /// Set whether the VM is started with its host.
                VmAutostart(spec: $crate::AutostartSpec) => autostart, &autostart::FACTS;
                /// Send the VM a non-maskable interrupt.
                VmNmi => nmi, &nmi::FACTS;
                /// List the VM's snapshots.
                SnapshotList => snapshot::list, &snapshot::LIST;
                /// Make a snapshot of the VM.
                SnapshotCreate(spec: $crate::SnapshotSpec) => snapshot::create, snapshot::create::facts(spec);
                /// Take the VM back to a snapshot.
                SnapshotRevert(spec: $crate::RevertSpec) => snapshot::revert, &snapshot::REVERT;
                /// Remove a snapshot of the VM.
                SnapshotDelete(spec: $crate::SnapshotDeleteSpec) => snapshot::delete, &snapshot::DELETE;
                /// Change the VM's state.
                Lifecycle(spec: $crate::LifecycleSpec) => lifecycle, lifecycle::facts(spec);
                /// Run a process in the guest.
                Exec(spec: $crate::ExecSpec) => exec, &exec::FACTS;
                /// Copy a file out of the guest.
                Pull(spec: $crate::PullSpec) => pull, &transfer::FACTS;
                /// Wait until something is true of the VM, or its deadline has passed.
                Wait(condition: $crate::Condition) => wait, wait::facts(condition);
                /// Send one command to QEMU's monitor.
                Qmp(command: $crate::RawCommand) => qmp, &qmp::FACTS;
                /// Send one command to the guest agent.
                Qga(command: $crate::RawCommand) => qga, &qga::FACTS;
                /// Press keys.
                Key(spec: $crate::KeySpec) => key, &key::FACTS;
                /// Type a text.
                Type(spec: $crate::TypeSpec) => type_text, &type_text::FACTS;
                /// Move, click, scroll or drag with the mouse.
                Mouse(spec: $crate::MouseSpec) => mouse, &mouse::FACTS;
                /// Take a picture of the screen.
                Screenshot(spec: $crate::ScreenshotSpec) => screenshot, &screenshot::FACTS;
                /// Capture a serial console.
                Console(spec: $crate::ConsoleSpec) => console, &console::FACTS;
            }
            prepared {
                /// Copy a file into the guest.
                Push(file: $crate::PushSpec, PreparedPush) => push, &transfer::FACTS;
                /// Go through the steps of a scenario.
                Scenario(scenario: $crate::ScenarioSpec, Arc<Scenario>) => scenario, scenario::facts(scenario);
            }
        }
    };
}

macro_rules! operation_spec {
    (
        hosts { $($(#[$host_doc:meta])* $host:ident => $host_module:path, $host_facts:expr;)+ }
        vms { $($(#[$doc:meta])* $verb:ident $(($spec:ident: $type:ty))? => $module:path, $facts:expr;)+ }
        prepared {
            $($(#[$late_doc:meta])* $late:ident($late_spec:ident: $late_type:ty, $ready:ty) =>
                $late_module:path, $late_facts:expr;)+
        }
    ) => {
        /// One operation, the same for every target of a run, as it is asked for. The executor makes it ready: it opens the
        /// file that is to be copied, and parses the scenario.
        ///
        /// ```
        /// use atp_api::{ExecSpec, OperationSpec};
        ///
        /// let operation: OperationSpec = serde_json::from_str(r#"{"op": "exec", "program": "uname", "args": ["-r"]}"#)?;
        /// assert_eq!(operation, OperationSpec::Exec(ExecSpec::new("uname").arg("-r")));
        /// # Ok::<(), serde_json::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "op", rename_all = "kebab-case")]
        pub enum OperationSpec {
            $($(#[$host_doc])* $host,)+
            $($(#[$doc])* $verb $(($type))?,)+
            $($(#[$late_doc])* $late($late_type),)+
        }
    };
}

operations!(operation_spec);

impl OperationSpec {
    /// The version of the meaning of these types, for fingerprints of operations. It grows when the same JSON means
    /// something else, or the same operation has another JSON.
    pub const SCHEMA: u32 = 1;
}

/// A scenario: steps that each target goes through. [`Debug`](fmt::Debug) does not show the values of its variables.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioSpec {
    /// The text of the scenario's file, in YAML.
    pub text: String,
    /// Variables of the file that have another value than there.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// The texts of the files of steps that it includes, by their paths from the folder of its file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub included: BTreeMap<String, String>,
    /// For a service, the files that steps push: the ids of files that were sent to it, by their paths in the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub files: Option<BTreeMap<String, String>>,
}

impl fmt::Debug for ScenarioSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScenarioSpec")
            .field("text_bytes", &self.text.len())
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("included", &self.included.keys().collect::<Vec<_>>())
            .field("files", &self.files)
            .finish()
    }
}
