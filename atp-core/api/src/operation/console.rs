//! A serial console that is captured.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::optional_lossy_path;

/// Capture a serial console until the deadline, or until the run is asked to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConsoleSpec {
    /// The folder for what the consoles write, which is made if it is not there. The file of a VM is `HOST/VM.log` in it,
    /// for any name of a VM. Without it nothing is written.
    #[serde(serialize_with = "optional_lossy_path")]
    #[schemars(with = "Option<String>")]
    pub folder: Option<PathBuf>,
    /// Whether each line is an event of the run.
    pub lines: bool,
    /// Take the console from another client of the daemon that has it open.
    pub force: bool,
    /// The console's alias in the VM's definition, such as `serial1`; the first console without it.
    pub device: Option<String>,
}
