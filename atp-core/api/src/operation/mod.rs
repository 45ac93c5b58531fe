//! What can be done to targets, as plain data: what a client asks for.

mod command;
mod exec;
mod file;
mod input;
mod keyboard;
mod pairs;
mod vm;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use command::{RawCommand, RawCommandError};
pub use exec::ExecSpec;
pub(crate) use file::lossy_path;
pub use file::{PullSpec, PushSpec, ScreenshotLimits, ScreenshotSpec};
pub use keyboard::{KeySpec, MouseSpec, TypeSpec};
pub use vm::{Condition, LifecycleSpec};

/// One operation, the same for every target of a run, as it is asked for. The executor makes it ready: it opens the file
/// that is to be copied, and parses the scenario.
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
    /// Connect to the host and ask what it is.
    HostCheck,
    /// Check each step on the way to the host's daemon.
    DiagnoseHost,
    /// Check what lies between the host and the VM's guest agent.
    DiagnoseAgent,
    /// Report what the host's listing says of the VM; nothing more is asked.
    VmList,
    /// Ask for everything known of the VM.
    VmInfo,
    /// Change the VM's state.
    Lifecycle(LifecycleSpec),
    /// Run a process in the guest.
    Exec(ExecSpec),
    /// Copy a file into the guest.
    Push(PushSpec),
    /// Copy a file out of the guest.
    Pull(PullSpec),
    /// Wait until something is true of the VM, or its deadline has passed.
    Wait(Condition),
    /// Send one command to QEMU's monitor.
    Qmp(RawCommand),
    /// Send one command to the guest agent.
    Qga(RawCommand),
    /// Press keys.
    Key(KeySpec),
    /// Type a text.
    Type(TypeSpec),
    /// Move, click, scroll or drag with the mouse.
    Mouse(MouseSpec),
    /// Take a picture of the screen.
    Screenshot(ScreenshotSpec),
    /// Go through the steps of a scenario.
    Scenario(ScenarioSpec),
}

impl OperationSpec {
    /// The version of the meaning of these types, for fingerprints of operations. It grows when the same JSON means
    /// something else, or the same operation has another JSON.
    pub const SCHEMA: u32 = 1;
}

/// A scenario: steps that each target goes through. [`Debug`](fmt::Debug) does not show the values of its variables.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioSpec {
    /// The text of the scenario's file, in YAML.
    pub text: String,
    /// Variables of the file that have another value than there.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

impl fmt::Debug for ScenarioSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScenarioSpec")
            .field("text_bytes", &self.text.len())
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .finish()
    }
}
