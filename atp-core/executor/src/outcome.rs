//! What came of one target: the unit every reporter renders and every script reads.
//!
//! An [`Outcome`] serialises to the JSON object of the command line's contract, field for field.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use atp_protocol::guest::Interface;
use atp_protocol::{ExecOutput, TextEncoding};
use atp_transport::domain::{DomainDetails, DomainInfo, DomainState};
use atp_transport::{Effect, HostId, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::copy::FileReport;
use crate::diagnosis::Diagnosis;
use crate::error::OutcomeError;
use crate::screenshot::ScreenshotReport;
use crate::verbs::scenario::report::ScenarioReport;

/// The result of one operation on one target. Every target of a run gets exactly one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The host. None only for a VM name that was asked for on several hosts and found on none of them.
    pub host: Option<HostId>,
    /// The VM's name. None where the target is the host itself, or where the host could not be asked
    /// which VMs it has.
    pub vm: Option<String>,
    /// The VM's identity, where it is known.
    pub uuid: Option<Uuid>,
    /// The operation's name, such as `exec` or `vm-start`; see [`Operation::name`](crate::Operation::name).
    pub op: &'static str,
    /// How it went.
    pub status: Status,
    /// Whether anything happened to the VM.
    pub effect: Effect,
    /// How often the operation was tried; 0 if it was never started.
    pub attempts: u32,
    /// Milliseconds from admission into the window of running targets to the end.
    pub duration_ms: u64,
    /// What the operation yields, where it yields something.
    pub data: Option<Data>,
    /// What went wrong; none for [`Status::Ok`] and [`Status::Unchanged`].
    pub error: Option<OutcomeError>,
}

impl Outcome {
    /// The order of reports: by host, then VM. What names no VM stands before the VMs of its host; what names
    /// no host stands at the end.
    pub fn report_order(&self, other: &Outcome) -> Ordering {
        (self.host.is_none(), &self.host, &self.vm).cmp(&(other.host.is_none(), &other.host, &other.vm))
    }
}

/// How a target's operation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Done.
    Ok,
    /// The state asked for was reached already; nothing was done.
    Unchanged,
    /// It did not work; the error says why.
    Failed,
    /// The target's own deadline passed.
    Timeout,
    /// The host could not be reached.
    Unreachable,
    /// Never started, because the run was stopped before.
    Skipped,
    /// Started, and stopped by us before it ended.
    Cancelled,
}

impl Status {
    /// Every status, in the order in which summaries count them.
    pub const ALL: [Status; 7] = [
        Status::Ok,
        Status::Unchanged,
        Status::Failed,
        Status::Timeout,
        Status::Unreachable,
        Status::Skipped,
        Status::Cancelled,
    ];

    /// The word used in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Unchanged => "unchanged",
            Status::Failed => "failed",
            Status::Timeout => "timeout",
            Status::Unreachable => "unreachable",
            Status::Skipped => "skipped",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether the target is as it was asked to be.
    pub fn is_success(self) -> bool {
        matches!(self, Status::Ok | Status::Unchanged)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an operation yields; serialised as the bare object, without a tag.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Data {
    /// A process in the guest, ended.
    Exec(ExecReport),
    /// A row of a listing.
    Domain(DomainInfo),
    /// Everything known of one VM.
    Vm(Box<VmReport>),
    /// A file that was copied.
    File(FileReport),
    /// How a VM was when what was waited for was seen.
    Waited(WaitReport),
    /// What a host said of itself.
    Host(HostReport),
    /// What an diagnosis found.
    Diagnosis(Diagnosis),
    /// The reply to a raw monitor or agent command: what QEMU or the agent put under `return`.
    Reply(serde_json::Value),
    /// What the steps of a scenario came to.
    Scenario(ScenarioReport),
    /// A picture of the screen.
    Screenshot(ScreenshotReport),
    /// The state a lifecycle operation left the VM in.
    Lifecycle {
        /// The state when it was last asked.
        state: DomainState,
    },
}

impl Data {
    /// What an operation yielded, from its JSON. What is neither a process nor a scenario is passed on as it stands.
    pub(crate) fn noted(op: &str, data: serde_json::Value) -> Self {
        let known = match op {
            "exec" => ExecReport::deserialize(&data).map(Data::Exec).ok(),
            "run" => ScenarioReport::deserialize(&data).map(Data::Scenario).ok(),
            _ => None,
        };
        known.unwrap_or(Data::Reply(data))
    }
}

/// A process that ended in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReport {
    /// The exit code; none if the process died of a signal.
    pub exit_code: Option<i32>,
    /// The signal it died of.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
}

impl ExecReport {
    /// Whether the process exited with code 0.
    pub fn is_success(&self) -> bool {
        self.exit_code == Some(0) && self.signal.is_none()
    }
}

impl ExecReport {
    /// What a process printed, as text in `encoding` if there is one.
    pub fn new(output: ExecOutput, encoding: Option<TextEncoding>) -> Self {
        let stream = |bytes, truncated| Stream { bytes, truncated, encoding };
        ExecReport {
            exit_code: output.exit_code,
            signal: output.signal,
            stdout: stream(output.stdout, output.stdout_truncated),
            stderr: stream(output.stderr, output.stderr_truncated),
        }
    }
}

/// The bytes a process wrote to one stream.
///
/// Serialised as `{"text","encoding","truncated"}`: the text itself when the bytes are text in the encoding they are
/// said to be in, which is UTF-8 unless another is named, else base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The bytes as they were written.
    pub bytes: Vec<u8>,
    /// Whether less was kept of them than the process wrote.
    pub truncated: bool,
    /// The encoding they are said to be in; none stands for UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl Stream {
    /// The text, and the name of its encoding; none if the bytes are no text in it.
    pub fn text(&self) -> Option<(Cow<'_, str>, Cow<'static, str>)> {
        match self.encoding {
            Some(encoding) => Some((encoding.decode(&self.bytes)?, Cow::Owned(encoding.name()))),
            None => Some((Cow::Borrowed(std::str::from_utf8(&self.bytes).ok()?), Cow::Borrowed("utf-8"))),
        }
    }
}

impl Serialize for Stream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (text, encoding) =
            self.text().unwrap_or_else(|| (Cow::Owned(BASE64.encode(&self.bytes)), Cow::Borrowed("base64")));
        let mut stream = serializer.serialize_struct("Stream", 3)?;
        stream.serialize_field("text", &text)?;
        stream.serialize_field("encoding", &encoding)?;
        stream.serialize_field("truncated", &self.truncated)?;
        stream.end()
    }
}

impl<'de> Deserialize<'de> for Stream {
    /// What was text in another encoding becomes text in UTF-8: the bytes themselves are not in what was serialised.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Serialised {
            text: String,
            encoding: String,
            truncated: bool,
        }
        let Serialised { text, encoding, truncated } = Serialised::deserialize(deserializer)?;
        let bytes = match encoding.as_str() {
            "base64" => BASE64.decode(text).map_err(D::Error::custom)?,
            _ => text.into_bytes(),
        };
        Ok(Stream { bytes, truncated, encoding: None })
    }
}

/// A path need not be text, and JSON has nothing else.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Everything known of one VM.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VmReport {
    /// What its host knows.
    #[serde(flatten)]
    pub details: DomainDetails,
    /// What its guest says; none where no agent is connected, or it does not answer.
    pub guest: Option<GuestReport>,
    /// Why an agent that is connected did not answer.
    pub guest_error: Option<OutcomeError>,
}

/// What a guest says of itself, by its agent. What the agent has no command for is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestReport {
    /// Its own name for itself.
    pub hostname: Option<String>,
    /// Its operating system.
    pub os: Option<OsReport>,
    /// The addresses it can be reached by: neither loopback nor bound to one link.
    pub addresses: Vec<IpAddr>,
    /// Its network interfaces, with all their addresses.
    pub interfaces: Vec<Interface>,
}

/// A guest's operating system, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OsReport {
    /// Its name for people, such as `Debian GNU/Linux 12 (bookworm)`.
    pub name: Option<String>,
    /// Its name for programs, such as `debian` or `mswindows`.
    pub id: Option<String>,
    /// Its version, such as `12`.
    pub version: Option<String>,
    /// Its kernel's release.
    pub kernel: Option<String>,
    /// The machine it runs on, such as `x86_64`.
    pub machine: Option<String>,
}

/// How a VM was when what was waited for was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitReport {
    /// How often it was looked at.
    pub looks: u64,
}

/// What a host answered when it was checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostReport {
    /// The host's own name for itself (`virConnectGetHostname`).
    pub hostname: String,
    /// libvirt's version in the daemon.
    pub daemon_version: Version,
    /// The hypervisor's kind, such as `QEMU`.
    pub hypervisor: String,
    /// The hypervisor's version.
    pub hypervisor_version: Version,
    /// Milliseconds from asking for a connection to having one.
    pub connect_ms: f64,
    /// Milliseconds of one small call there and back.
    pub latency_ms: f64,
    /// Domains the host has, active or not.
    pub domains: usize,
    /// Domains that are active.
    pub active_domains: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome() -> Outcome {
        Outcome {
            host: Some("h1".parse().unwrap()),
            vm: Some("web-1".into()),
            uuid: Some(Uuid::nil()),
            op: "exec",
            status: Status::Ok,
            effect: Effect::Done,
            attempts: 1,
            duration_ms: 41,
            data: Some(Data::Exec(ExecReport {
                exit_code: Some(0),
                signal: None,
                stdout: Stream { bytes: b"hi\n".to_vec(), ..Stream::default() },
                stderr: Stream { bytes: vec![0xff, 0xfe], truncated: true, encoding: None },
            })),
            error: None,
        }
    }

    #[test]
    fn an_outcome_is_the_contracts_json() {
        let expected = concat!(
            r#"{"host":"h1","vm":"web-1","uuid":"00000000-0000-0000-0000-000000000000","op":"exec","#,
            r#""status":"ok","effect":"done","attempts":1,"duration_ms":41,"#,
            r#""data":{"exit_code":0,"signal":null,"#,
            r#""stdout":{"text":"hi\n","encoding":"utf-8","truncated":false},"#,
            r#""stderr":{"text":"//4=","encoding":"base64","truncated":true}},"error":null}"#,
        );
        assert_eq!(serde_json::to_string(&outcome()).unwrap(), expected);
    }

    #[test]
    fn text_is_decoded_by_its_encoding_and_what_is_none_is_base64() {
        let json = |bytes: &[u8], name: &str| {
            let encoding = Some(name.parse().unwrap());
            serde_json::to_value(Stream { bytes: bytes.to_vec(), truncated: false, encoding }).unwrap()
        };
        let text =
            |text: &str, encoding: &str| json!({"text": text, "encoding": encoding, "truncated": false});
        assert_eq!(json(b"Gr\xfc\xdfe", "latin1"), text("Grüße", "windows-1252"));
        assert_eq!(json(b"h\0i\0", "utf-16le"), text("hi", "utf-16le"));
        assert_eq!(json(b"h\0i", "utf-16le"), text("aABp", "base64"));
    }

    #[test]
    fn the_report_of_a_process_is_read_back() {
        let Some(Data::Exec(report)) = outcome().data else { panic!("no report") };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ExecReport>(&json).unwrap(), report);
        let stream = json!({"text": "Grüße", "encoding": "windows-1252", "truncated": false});
        assert_eq!(serde_json::from_value::<Stream>(stream).unwrap().bytes, "Grüße".as_bytes());
    }

    #[test]
    fn what_is_not_there_is_null() {
        let bare = Outcome { host: None, vm: None, uuid: None, data: None, ..outcome() };
        let json = serde_json::to_value(&bare).unwrap();
        for field in ["host", "vm", "uuid", "data", "error"] {
            assert_eq!(json[field], json!(null), "{field}");
            assert!(json.as_object().unwrap().contains_key(field), "{field}");
        }
    }

    #[test]
    fn a_lifecycle_reports_the_state_in_virsh_words() {
        let data = Data::Lifecycle { state: DomainState::ShutOff };
        assert_eq!(serde_json::to_value(data).unwrap(), json!({"state": "shut off"}));
    }

    #[test]
    fn reports_are_ordered_by_host_then_vm() {
        let named = |host: Option<&str>, vm: Option<&str>| Outcome {
            host: host.map(|id| id.parse().unwrap()),
            vm: vm.map(str::to_owned),
            ..outcome()
        };
        let mut outcomes = [
            named(None, Some("a")),
            named(Some("h2"), Some("a")),
            named(Some("h1"), Some("b")),
            named(Some("h1"), None),
            named(Some("h1"), Some("a")),
        ];
        outcomes.sort_by(Outcome::report_order);
        let order: Vec<_> =
            outcomes.iter().map(|o| (o.host.as_ref().map(HostId::as_str), o.vm.as_deref())).collect();
        assert_eq!(
            order,
            [
                (Some("h1"), None),
                (Some("h1"), Some("a")),
                (Some("h1"), Some("b")),
                (Some("h2"), Some("a")),
                (None, Some("a")),
            ]
        );
    }
}
