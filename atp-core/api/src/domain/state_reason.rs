//! Why a domain is in its state.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

use super::{DomainInfo, DomainState};

/// Why a domain is in its state, as libvirt gives it. Words are those of `virsh domstate --reason`, but for few. A reason that
/// this version does not know is read as [`Other`](Self::Other).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "lowercase")]
pub enum StateReason {
    /// Running: started.
    Booted,
    /// Running: came from another host. Shut off: went to another host.
    Migrated,
    /// Running: from a file.
    Restored,
    /// By a snapshot that was reverted to.
    #[strum(serialize = "from snapshot")]
    FromSnapshot,
    /// Running: was paused.
    Unpaused,
    /// Running: a migration was canceled.
    #[strum(serialize = "migration canceled")]
    MigrationCanceled,
    /// Running: saving was canceled.
    #[strum(serialize = "save canceled")]
    SaveCanceled,
    /// Running: woken.
    #[strum(serialize = "woken")]
    WokenUp,
    /// The guest crashed.
    Crashed,
    /// A migration after whose switch memory is still copied.
    #[strum(serialize = "post-copy")]
    PostCopy,
    /// Such a migration failed.
    #[strum(serialize = "post-copy failed")]
    PostCopyFailed,
    /// Paused, or asked to shut down, by a client.
    User,
    /// Paused: on its way to another host, or from one.
    #[strum(serialize = "migrating")]
    Migrating,
    /// Paused: its memory is written to a file.
    Saving,
    /// Paused: its memory is dumped.
    Dumping,
    /// Paused: reading or writing a disk failed, for lack of space on the host for example.
    #[strum(serialize = "I/O error")]
    IoError,
    /// Paused by its watchdog.
    Watchdog,
    /// Paused: about to shut down.
    #[strum(serialize = "shutting down")]
    ShuttingDown,
    /// Paused: a snapshot is made.
    #[strum(serialize = "creating snapshot")]
    Snapshot,
    /// Paused: about to run.
    #[strum(serialize = "starting up")]
    StartingUp,
    /// Paused: an operation of libvirt failed.
    #[strum(serialize = "API error")]
    ApiError,
    /// Shut off: the guest powered off.
    Shutdown,
    /// Shut off: by force.
    Destroyed,
    /// Shut off, and its memory is kept in a file of the host (managed save): it goes on from there when it is started.
    Saved,
    /// Shut off: it could not be started.
    Failed,
    /// Shut off: the daemon decided so.
    Daemon,
    /// Crashed: its kernel panicked, and the VM is kept as it was.
    Panicked,
    /// One that this version does not know.
    #[serde(untagged)]
    #[strum(transparent)]
    #[schemars(with = "String")]
    Other(OtherReason),
}

/// A reason that this version does not know: libvirt's number for it, if that is known. In JSON it is `reason-99`, or `other`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct OtherReason(Option<u32>);

impl From<String> for OtherReason {
    fn from(word: String) -> Self {
        OtherReason(word.strip_prefix("reason-").and_then(|number| number.parse().ok()))
    }
}

impl From<OtherReason> for String {
    fn from(reason: OtherReason) -> Self {
        reason.0.map_or_else(|| "other".to_owned(), |number| format!("reason-{number}"))
    }
}

impl fmt::Display for OtherReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "reason {number}"),
            None => f.write_str("another reason"),
        }
    }
}

impl StateReason {
    /// The reason of libvirt's number for it, which depends on the state; none if libvirt gives none.
    pub fn from_number(state: DomainState, number: i32) -> Option<Self> {
        use StateReason as R;
        // From 1 on; 0 is "unknown" in every state.
        let reasons: &[StateReason] = match state {
            DomainState::Running => &[
                R::Booted,
                R::Migrated,
                R::Restored,
                R::FromSnapshot,
                R::Unpaused,
                R::MigrationCanceled,
                R::SaveCanceled,
                R::WokenUp,
                R::Crashed,
                R::PostCopy,
                R::PostCopyFailed,
            ],
            DomainState::Paused => &[
                R::User,
                R::Migrating,
                R::Saving,
                R::Dumping,
                R::IoError,
                R::Watchdog,
                R::FromSnapshot,
                R::ShuttingDown,
                R::Snapshot,
                R::Crashed,
                R::StartingUp,
                R::PostCopy,
                R::PostCopyFailed,
                R::ApiError,
            ],
            DomainState::ShuttingDown => &[R::User],
            DomainState::ShutOff => &[
                R::Shutdown,
                R::Destroyed,
                R::Crashed,
                R::Migrated,
                R::Saved,
                R::Failed,
                R::FromSnapshot,
                R::Daemon,
            ],
            DomainState::Crashed => &[R::Panicked],
            DomainState::NoState | DomainState::Blocked | DomainState::PmSuspended => &[],
        };
        let number = u32::try_from(number).ok().filter(|number| *number > 0)?;
        let known = usize::try_from(number - 1).ok().and_then(|index| reasons.get(index)).copied();
        Some(known.unwrap_or(R::Other(OtherReason(Some(number)))))
    }

    /// Whether a person who looks at the state has to know it: what is going on, or has gone wrong.
    pub fn is_notable(self) -> bool {
        match self {
            StateReason::Migrating
            | StateReason::PostCopy
            | StateReason::PostCopyFailed
            | StateReason::Saving
            | StateReason::Dumping
            | StateReason::IoError
            | StateReason::Watchdog
            | StateReason::Snapshot
            | StateReason::ApiError
            | StateReason::Crashed
            | StateReason::Saved
            | StateReason::Failed
            | StateReason::Panicked
            | StateReason::Migrated
            | StateReason::Other(_) => true,
            StateReason::Booted
            | StateReason::Restored
            | StateReason::FromSnapshot
            | StateReason::Unpaused
            | StateReason::MigrationCanceled
            | StateReason::SaveCanceled
            | StateReason::WokenUp
            | StateReason::User
            | StateReason::ShuttingDown
            | StateReason::StartingUp
            | StateReason::Shutdown
            | StateReason::Destroyed
            | StateReason::Daemon => false,
        }
    }
}

impl DomainInfo {
    /// The state, with the reason for it if a person has to know that: `paused (I/O error)`.
    pub fn state_with_reason(&self) -> String {
        match self.reason.filter(|reason| reason.is_notable() && !self.state.is_running()) {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_a_later_libvirt_is_a_reason_by_its_number() {
        assert_eq!(StateReason::from_number(DomainState::Paused, 5), Some(StateReason::IoError));
        for number in [-1, 0] {
            assert_eq!(StateReason::from_number(DomainState::Paused, number), None);
        }
        let other = StateReason::from_number(DomainState::Paused, 99).unwrap();
        assert_eq!(other.to_string(), "reason 99");
        assert_eq!(serde_json::to_string(&other).unwrap(), r#""reason-99""#);
        assert_eq!(serde_json::from_str::<StateReason>(r#""reason-99""#).unwrap(), other);
    }

    #[test]
    fn a_word_of_a_later_version_is_another_reason() {
        let read = |text| serde_json::from_str::<StateReason>(text);
        assert_eq!(read(r#""io-error""#).unwrap(), StateReason::IoError);
        for word in [r#""asleep-at-the-wheel""#, r#""reason-""#, r#""reason--1""#, r#""""#] {
            assert_eq!(read(word).unwrap(), StateReason::Other(OtherReason(None)), "{word}");
        }
        assert_eq!(read(r#""x""#).unwrap().to_string(), "another reason");
        for no_word in ["3", "null", "{}"] {
            assert!(read(no_word).is_err(), "{no_word}");
        }
    }

    #[test]
    fn a_reason_is_shown_where_a_person_has_to_know_it() {
        let info = |state, reason| DomainInfo { reason, ..DomainInfo::new("a", uuid::Uuid::nil(), state) };
        for (state, reason, text) in [
            (DomainState::Paused, Some(StateReason::IoError), "paused (I/O error)"),
            (DomainState::Paused, Some(StateReason::Migrating), "paused (migrating)"),
            (DomainState::Paused, Some(StateReason::User), "paused"),
            (DomainState::ShutOff, Some(StateReason::Saved), "shut off (saved)"),
            (DomainState::ShutOff, Some(StateReason::Migrated), "shut off (migrated)"),
            (DomainState::ShutOff, Some(StateReason::Destroyed), "shut off"),
            (DomainState::Crashed, Some(StateReason::Panicked), "crashed (panicked)"),
            (DomainState::Paused, StateReason::from_number(DomainState::Paused, 99), "paused (reason 99)"),
            (DomainState::Running, Some(StateReason::Migrated), "running"),
            (DomainState::PmSuspended, None, "pmsuspended"),
        ] {
            assert_eq!(info(state, reason).state_with_reason(), text);
        }
    }
}
