//! The outcome of one target: what every reporter renders and every script reads.
//!
//! An [`Outcome`] serialises to the JSON object of the command line's contract, field by field.

use std::borrow::Cow;
use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use strum::{Display, EnumString, IntoStaticStr, VariantArray};
use uuid::Uuid;

use crate::data::Data;
use crate::effect::Effect;
use crate::error::OutcomeError;
use crate::host_id::HostId;

/// The result of one operation on one target. Every target of a run gets exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Outcome {
    /// The host. None only for a VM name that was selected on several hosts and found on none of them.
    pub host: Option<HostId>,
    /// The VM's name. None if the target is the host itself, or if the host could not be listed.
    pub vm: Option<String>,
    /// The VM's identity, where it is known.
    pub uuid: Option<Uuid>,
    /// The other host that the VM was found on: it moved there while it was worked on, or [`host`](Self::host) only has
    /// the definition that it left behind. None where that is not known to be so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_on: Option<HostId>,
    /// Whether an earlier run of the same journal had this outcome, which a resumed run only shows: nothing was done now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_earlier_run: bool,
    /// The operation's name, such as `exec` or `vm-start`. It also says what [`data`](Self::data) is.
    pub op: Cow<'static, str>,
    /// How it went.
    pub status: Status,
    /// Whether anything happened to the VM.
    pub effect: Effect,
    /// The number of attempts; 0 if the operation was never started.
    pub attempts: u32,
    /// Milliseconds from admission into the window of running targets to the end.
    pub duration_ms: u64,
    /// What the operation yields, if anything.
    pub data: Option<Data>,
    /// What went wrong; none for [`Status::Ok`] and [`Status::Unchanged`].
    pub error: Option<OutcomeError>,
}

impl Outcome {
    /// The outcome of an operation that was not started, without its target: a base for others.
    pub fn not_started(op: impl Into<Cow<'static, str>>, status: Status) -> Outcome {
        Outcome {
            host: None,
            vm: None,
            uuid: None,
            found_on: None,
            from_earlier_run: false,
            op: op.into(),
            status,
            effect: Effect::None,
            attempts: 0,
            duration_ms: 0,
            data: None,
            error: None,
        }
    }

    /// The order of reports: by host, then VM. Outcomes without a VM come before the VMs of their host, outcomes without
    /// a host come last.
    pub fn report_order(&self, other: &Outcome) -> Ordering {
        (self.host.is_none(), &self.host, &self.vm).cmp(&(other.host.is_none(), &other.host, &other.vm))
    }
}

impl<'de> Deserialize<'de> for Outcome {
    /// Reads the data by the name of the operation.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            host: Option<HostId>,
            vm: Option<String>,
            uuid: Option<Uuid>,
            found_on: Option<HostId>,
            #[serde(default)]
            from_earlier_run: bool,
            op: String,
            status: Status,
            effect: Effect,
            attempts: u32,
            duration_ms: u64,
            data: Option<Value>,
            error: Option<OutcomeError>,
        }
        let fields = Fields::deserialize(deserializer)?;
        let Fields { host, vm, uuid, found_on, from_earlier_run, op, status, effect, .. } = fields;
        let Fields { attempts, duration_ms, data, error, .. } = fields;
        let data = data.map(|data| Data::read(&op, data));
        let op = Cow::Owned(op);
        Ok(Outcome {
            host,
            vm,
            uuid,
            found_on,
            from_earlier_run,
            op,
            status,
            effect,
            attempts,
            duration_ms,
            data,
            error,
        })
    }
}

/// How a target's operation went.
///
/// A word that this version does not know is read as [`Failed`](Self::Failed), for it is no success that is known.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    JsonSchema,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Status {
    /// Done.
    Ok,
    /// The requested state was reached already; nothing was done.
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
    pub const ALL: &[Status] = Status::VARIANTS;

    /// The word used in every output.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the target is in the requested state.
    pub fn is_success(self) -> bool {
        matches!(self, Status::Ok | Status::Unchanged)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Ok(word.parse().unwrap_or(Status::Failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ExecReport, Stream};
    use crate::domain::DomainState;
    use serde_json::json;

    fn outcome() -> Outcome {
        Outcome {
            host: Some("h1".parse().unwrap()),
            vm: Some("web-1".into()),
            uuid: Some(Uuid::nil()),
            found_on: None,
            from_earlier_run: false,
            op: "exec".into(),
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
    fn the_report_of_a_process_is_read_back() {
        let Some(Data::Exec(report)) = outcome().data else { panic!("no report") };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ExecReport>(&json).unwrap(), report);
        let stream = json!({"text": "Grüße", "encoding": "windows-1252", "truncated": false});
        assert_eq!(serde_json::from_value::<Stream>(stream).unwrap().bytes, "Grüße".as_bytes());
    }

    #[test]
    fn missing_values_are_null() {
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
