//! What operations yield.

mod console;
mod diagnosis;
mod exec;
mod file;
mod host;
mod scenario;
mod stream;
mod vm;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use console::{ConsoleGap, ConsoleReport, KernelFault, KernelFinding};
pub use diagnosis::{Diagnosis, Finding, Verdict};
pub use exec::ExecReport;
pub use file::{FileReport, ScreenshotReport};
pub use host::HostReport;
pub use scenario::{EvidenceReport, Isolation, MissedEvidence, ScenarioReport, StepReport};
pub use stream::Stream;
pub use vm::{Address, GuestReport, Interface, OsReport, VmReport};

use crate::domain::{DomainInfo, DomainState, Snapshot};

/// What an operation yields, serialised as the bare object without a tag. Which it is follows from the operation's name.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Data {
    /// A process in the guest that ended.
    Exec(ExecReport),
    /// A row of a listing. A dry run yields it for every operation on VMs.
    Domain(DomainInfo),
    /// Everything known of one VM.
    Vm(Box<VmReport>),
    /// A file that was copied.
    File(FileReport),
    /// How a wait ended.
    Waited(WaitReport),
    /// What a host answered when it was checked.
    Host(HostReport),
    /// What a diagnosis found.
    Diagnosis(Diagnosis),
    /// The reply to a raw monitor or agent command: what QEMU or the agent put under `return`. Also the data of an operation
    /// that this version does not know.
    Reply(Value),
    /// The steps of a scenario.
    Scenario(ScenarioReport),
    /// A picture of the screen.
    Screenshot(ScreenshotReport),
    /// What was captured of a serial console.
    Console(Box<ConsoleReport>),
    /// A VM's definition.
    Xml(XmlReport),
    /// The snapshots of a VM.
    Snapshots(SnapshotList),
    /// A snapshot that was made.
    Snapshot(Snapshot),
    /// The state in which a lifecycle operation, or a revert to a snapshot, left the VM.
    Lifecycle {
        /// The state when it was last asked for.
        state: DomainState,
    },
}

/// A VM's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct XmlReport {
    /// libvirt's XML, without passwords.
    pub xml: String,
}

/// The snapshots of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotList {
    /// The snapshots: each after the one that it was made from, and otherwise by time.
    pub snapshots: Vec<Snapshot>,
}

/// How a wait ended: the condition was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitReport {
    /// The number of looks.
    pub looks: u64,
}

impl Data {
    /// Reads what the operation of the name `op` yielded. JSON that is not of the operation's type is a row of a listing if
    /// it has the form of one, and else kept as it is.
    pub fn read(op: &str, data: Value) -> Self {
        let known = match op {
            "exec" => read(&data, Data::Exec),
            "vm-info" => read(&data, Data::Vm),
            "vm-list" => read(&data, Data::Domain),
            "cp" | "push" | "pull" => read(&data, Data::File),
            "wait" => read(&data, Data::Waited),
            "host-check" => read(&data, Data::Host),
            "doctor" => read(&data, Data::Diagnosis),
            "run" => read(&data, Data::Scenario),
            "screenshot" => read(&data, Data::Screenshot),
            "console" => read(&data, |report| Data::Console(Box::new(report))),
            "vm-xml" => read(&data, Data::Xml),
            "snapshot-list" => read(&data, Data::Snapshots),
            "snapshot-create" => read(&data, Data::Snapshot),
            "vm-start" | "vm-shutdown" | "vm-reboot" | "vm-reset" | "vm-destroy" | "vm-suspend"
            | "vm-resume" | "vm-save" | "vm-restore" | "snapshot-revert" => {
                read(&data, |state: StateOnly| Data::Lifecycle { state: state.state })
            }
            _ => None,
        };
        let row =
            || read(&data, Data::Domain).filter(|row| serde_json::to_value(row).is_ok_and(|row| row == data));
        known.or_else(row).unwrap_or(Data::Reply(data))
    }
}

/// What a lifecycle operation yields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateOnly {
    state: DomainState,
}

fn read<T: DeserializeOwned>(data: &Value, make: impl Fn(T) -> Data) -> Option<Data> {
    T::deserialize(data).ok().map(make)
}
