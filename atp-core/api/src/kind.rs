//! The kinds of failures: words for programs, and what a person can try.

use std::str::FromStr as _;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use crate::hint::Hint;

/// A stable word for the kind of a failure, for programs to match on.
///
/// A word that this version does not know is read as [`Unknown`](Self::Unknown).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    JsonSchema,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No host of that id is registered.
    UnknownHost,
    /// No host is in a group of that name.
    UnknownGroup,
    /// A host of that id is registered already.
    DuplicateHost,
    /// The host's id is not a valid one.
    InvalidHostId,
    /// The host's URI is not one, or not one that can be opened from here.
    InvalidUri,
    /// The configuration has values that cannot be used.
    InvalidConfig,
    /// The host's name has no address.
    NameNotResolved,
    /// The host is up, and nothing listens at that port.
    ConnectionRefused,
    /// No answer, or no route.
    HostUnreachable,
    /// A connection was made, but the daemon did not finish the opening in time.
    ConnectTimeout,
    /// The daemon wants other credentials, or other certificates.
    AuthFailed,
    /// What answers there speaks another protocol: it is no libvirt daemon, or speaks TLS where the URI means plain TCP,
    /// or the reverse.
    WrongProtocol,
    /// The daemon answered the opening with an error that has no kind of its own.
    ConnectFailed,
    /// Every connection of the host was taken until the deadline passed.
    PoolExhausted,
    /// The call was not answered by its deadline.
    CallTimeout,
    /// So many calls to this host hang that no more are sent.
    StuckCalls,
    /// No thread could be had to make a blocking call on.
    ThreadsExhausted,
    /// The connection broke while the call was under way.
    ConnectionLost,
    /// The host has failed so often that it is left alone for a while.
    CircuitOpen,
    /// The call would have had to wait past its deadline for its turn.
    RateLimited,
    /// An interceptor refused the call.
    CallRefused,
    /// The host was removed, or the pool closed.
    Closed,
    /// The closure panicked.
    Panicked,
    /// No domain of that name or UUID.
    VmNotFound,
    /// The domain is not running.
    VmNotRunning,
    /// The domain was migrated to another host, or runs there.
    VmMoved,
    /// The domain is in a state in which the operation is not possible.
    OperationInvalid,
    /// The domain's definition has no guest agent channel.
    AgentNotConfigured,
    /// Nothing in the guest listens on the guest agent's channel.
    AgentNotConnected,
    /// The guest agent did not answer in time.
    AgentUnresponsive,
    /// The guest agent went away with a command: it, or the guest, was stopped or restarted.
    AgentGone,
    /// libvirt has given up the agent's channel after an error; waiting does not bring it back.
    AgentBroken,
    /// Another monitor command holds the domain.
    MonitorBusy,
    /// Another agent command holds the domain.
    AgentBusy,
    /// Another client of the daemon has the domain's virtio-serial channel open.
    ChannelInUse,
    /// The domain has no display to take a picture of.
    NoScreen,
    /// The domain has no snapshot of that name.
    SnapshotNotFound,
    /// The domain has a snapshot of that name already.
    SnapshotExists,
    /// The domain's disks or devices, or the host's daemon, do not allow it to be snapshotted, reverted or saved.
    SnapshotImpossible,
    /// The VM has no device that takes such input: no tablet for points of the screen, no keyboard for keys.
    NoInputDevice,
    /// The daemon's access control says no.
    AccessDenied,
    /// The driver or hypervisor has no such operation.
    NotSupported,
    /// Any other error of libvirt; see its code and domain.
    LibvirtError,
    /// The command cannot be expressed.
    InvalidCommand,
    /// The command is longer than can be carried.
    CommandTooLarge,
    /// There is no way to that side of the VM.
    NoChannel,
    /// The guest's agent is not there, and the guest seems to be booting.
    GuestBooting,
    /// QEMU answered with an error.
    QmpError,
    /// The guest agent's configuration forbids the command.
    AgentCommandDisabled,
    /// The guest agent is too old, or was built without the command.
    AgentCommandUnknown,
    /// The guest's file systems are frozen.
    GuestFrozen,
    /// The guest agent answered with an error.
    GuestError,
    /// The program could not be started in the guest.
    GuestExecFailed,
    /// The guest has no shell.
    GuestShellMissing,
    /// The command was carried out, and its reply is too large to be carried.
    OutputTooLarge,
    /// The reply cannot be read.
    InvalidReply,
    /// The process had not ended by the deadline.
    ExecTimeout,
    /// The guest agent has forgotten the process.
    ProcessLost,
    /// File systems had to be thawed before the work they were frozen for had ended.
    ThawedEarly,
    /// Frozen file systems could not be thawed.
    NotThawed,
    /// The picture is larger than it may be.
    ImageTooLarge,
    /// The picture is not one.
    InvalidImage,
    /// There is no such file.
    FileNotFound,
    /// A file was expected, and there is a directory.
    IsADirectory,
    /// A directory was expected.
    NotADirectory,
    /// A regular file was expected.
    NotARegularFile,
    /// The guest could not read or write.
    GuestFileError,
    /// A file here could not be read or written.
    LocalFileError,
    /// Another transfer writes the same file.
    TransferBusy,
    /// Something that is not ours stands where the file is to go.
    PathOccupied,
    /// The archive that the guest made of a folder has something that is not written here.
    ArchiveRefused,
    /// The copy is not what was sent.
    ChecksumMismatch,
    /// The process ended, and not with exit code 0.
    ExitNonzero,
    /// What was waited for did not come true in time.
    ConditionNotMet,
    /// The VM did not reach the state in time, or went into another.
    StateNotReached,
    /// What was waited for may have happened while no events came.
    EventsLost,
    /// An earlier run started it, and ended before it noted what came of it.
    OutcomeUnknown,
    /// It is in the journal, and not among what is selected now.
    NotSelected,
    /// A VM of the same UUID ran on another host in the journal's run.
    RanElsewhere,
    /// A step of the scenario failed.
    StepFailed,
    /// A step cannot be done on this VM.
    StepUnfit,
    /// What a scenario asserts is not so.
    AssertionFailed,
    /// It was stopped before it was started, or before it ended.
    Stopped,
    /// The run was aborted.
    Aborted,
    /// The work did not end by its deadline.
    DeadlinePassed,
    /// The time for the whole run was used up.
    RunDeadlinePassed,
    /// So many targets failed that the run ended.
    MaxFailuresReached,
    /// A target of the first batch failed.
    CanaryFailed,
    /// The journal cannot be written.
    JournalFailed,
    /// Another run writes the journal.
    JournalInUse,
    /// The journal is of a run that did something else.
    JournalOfAnotherOperation,
    /// The journal cannot be used.
    JournalUnusable,
    /// No hosts are known.
    NoHosts,
    /// The selector is not one.
    InvalidSelector,
    /// A file with secrets can be read or changed by others.
    UnsafePermissions,
    /// Two ids lead to one daemon.
    DuplicateDaemon,
    /// The service does not know who asks: no token, or one that it does not have.
    NotAuthenticated,
    /// The service does not allow it to the one who asks.
    PermissionDenied,
    /// The service refuses all work.
    ReadOnly,
    /// The request to the service is not a valid one.
    InvalidRequest,
    /// The service has nothing there.
    NothingThere,
    /// The request to the service is larger than it may be.
    RequestTooLarge,
    /// The request was not sent in time.
    RequestTimeout,
    /// The request contradicts what was asked for before.
    Conflict,
    /// The service ends.
    ServiceStopping,
    /// The service cannot write its files.
    StorageFailed,
    /// A kind that this version does not know.
    Unknown,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: &'static [ErrorKind] = ErrorKind::VARIANTS;

    /// The word, in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the same work, done again later, may well succeed.
    ///
    /// Says nothing of whether it is safe to repeat: that is the effect.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorKind::NameNotResolved
                | ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::ConnectTimeout
                | ErrorKind::ConnectFailed
                | ErrorKind::PoolExhausted
                | ErrorKind::CallTimeout
                | ErrorKind::StuckCalls
                | ErrorKind::ThreadsExhausted
                | ErrorKind::ConnectionLost
                | ErrorKind::CircuitOpen
                | ErrorKind::RateLimited
                | ErrorKind::AgentNotConnected
                | ErrorKind::AgentUnresponsive
                | ErrorKind::AgentGone
                | ErrorKind::MonitorBusy
                | ErrorKind::AgentBusy
                | ErrorKind::ChannelInUse
        )
    }

    /// Whether the host could not be reached at all, as opposed to having answered with an error.
    pub fn is_unreachable(self) -> bool {
        matches!(
            self,
            ErrorKind::NameNotResolved
                | ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::ConnectTimeout
                | ErrorKind::AuthFailed
                | ErrorKind::WrongProtocol
                | ErrorKind::ConnectFailed
                | ErrorKind::InvalidUri
        )
    }

    /// What a person can try, where no more is known than the kind.
    pub fn hint(self) -> Hint {
        match self {
            ErrorKind::UnknownHost => Hint::CHECK_HOST_ID,
            ErrorKind::UnknownGroup => Hint::CHECK_GROUP,
            ErrorKind::DuplicateHost => Hint::plain("give each host a different id"),
            ErrorKind::InvalidHostId => Hint::plain("use letters, digits, '.', '_' and '-' only"),
            ErrorKind::InvalidUri => Hint::plain(
                "a libvirt URI looks like qemu+tcp://HOST/system, qemu+ssh://USER@HOST/system or qemu:///system",
            ),
            ErrorKind::InvalidConfig => Hint::plain("correct the values named above"),
            ErrorKind::NameNotResolved => {
                Hint::plain("check the spelling, DNS and /etc/hosts, or use an IP address")
            }
            ErrorKind::ConnectionRefused => {
                Hint::plain("check that the daemon of the URI runs and listens there")
            }
            ErrorKind::HostUnreachable => {
                Hint::plain("check that the host is up, the route to it, and the firewalls")
            }
            ErrorKind::ConnectTimeout => Hint::plain(
                "the daemon did not answer in time: check whether it is hung or stopped (systemctl status libvirtd, or virtqemud and virtproxyd)",
            ),
            ErrorKind::AuthFailed => Hint::plain(
                "check the user, the password and where it is read from (the host's `auth`), or the certificates, and the daemon's auth_* settings",
            ),
            ErrorKind::WrongProtocol => Hint::plain(
                "check the port and the transport in the URI: 16509 is for qemu+tcp, 16514 for qemu+tls",
            ),
            ErrorKind::ConnectFailed => {
                Hint::plain("try the same URI with `virsh -c URI list`, and read the daemon's log")
            }
            ErrorKind::PoolExhausted => Hint::plain(
                "raise max_connections_per_host or max_uses_per_connection, or run fewer targets at once",
            ),
            ErrorKind::CallTimeout => Hint::plain(
                "the daemon or the VM does not answer: check the VM with `virsh domcontrol`, or allow more time",
            ),
            ErrorKind::StuckCalls => Hint::plain(
                "earlier calls to this host never returned: find the hung VMs (`virsh domcontrol`), destroy or resume them",
            ),
            ErrorKind::ThreadsExhausted => {
                Hint::plain("many hosts hang at once: find them, or raise calls.max_threads")
            }
            ErrorKind::ConnectionLost => {
                Hint::plain("the daemon restarted or the network broke; check before repeating the work")
            }
            ErrorKind::CircuitOpen => Hint::plain(
                "the host keeps failing, see the cause; it is probed from time to time and used again once it answers",
            ),
            ErrorKind::RateLimited => Hint::plain("allow more time, do less at once, or raise the limit"),
            ErrorKind::CallRefused => {
                Hint::plain("this program is configured to refuse such calls: see the reason")
            }
            ErrorKind::Closed => Hint::plain("the host was removed while work for it was waiting"),
            ErrorKind::Panicked => Hint::plain("this is a bug in the code that was run on the host"),
            ErrorKind::VmNotFound => Hint::CHECK_VM_NAME,
            ErrorKind::VmNotRunning => Hint::START_VM,
            ErrorKind::VmMoved => Hint::FIND_VM,
            ErrorKind::OperationInvalid => Hint::CHECK_VM_STATE,
            ErrorKind::AgentNotConfigured => Hint::plain(
                "add a <channel> with the target org.qemu.guest_agent.0 to the domain, and restart the VM",
            ),
            ErrorKind::AgentNotConnected => {
                Hint::plain("check that qemu-guest-agent is installed, enabled and runs in the guest")
            }
            ErrorKind::AgentUnresponsive => Hint::plain(
                "QEMU, the guest or its agent hangs, or an earlier agent command still runs: look at the guest's console",
            ),
            ErrorKind::AgentGone => Hint::plain(
                "the agent or the guest was stopped or restarted: check in the guest what was done before repeating it",
            ),
            ErrorKind::AgentBroken => Hint::plain("restart the agent in the guest, or reset the VM"),
            ErrorKind::MonitorBusy => Hint::WAIT_FOR_MONITOR,
            ErrorKind::AgentBusy => {
                Hint::plain("another client's agent command to this VM is under way; wait for it")
            }
            ErrorKind::ChannelInUse => Hint::plain(
                "another program has the channel open: wait until it closes the channel, or take the channel over (`ChannelOptions::force`)",
            ),
            ErrorKind::NoScreen => Hint::plain(
                "give the domain a graphics device (<video>) and restart the VM; or use its serial console",
            ),
            ErrorKind::SnapshotNotFound => Hint::LIST_SNAPSHOTS,
            ErrorKind::SnapshotExists => Hint::plain("choose another name, or delete that snapshot first"),
            ErrorKind::SnapshotImpossible => Hint::plain(
                "change what the message names in the domain's definition: convert raw disks to qcow2 (`qemu-img convert -O qcow2`), or detach the device",
            ),
            ErrorKind::NoInputDevice => Hint::plain(
                "give the domain the input device: <input type='tablet' bus='usb'/> (or bus='virtio') for points of the screen, <input type='keyboard' …/> for keys; and restart the VM",
            ),
            ErrorKind::AccessDenied => {
                Hint::plain("request the permission in the daemon's access control (polkit)")
            }
            ErrorKind::NotSupported => Hint::plain("this driver or version has no such operation"),
            ErrorKind::LibvirtError => Hint::plain("read the daemon's log on the host"),
            ErrorKind::NotAuthenticated => {
                Hint::plain("send a token of the service: `Authorization: Bearer TOKEN`, or log in")
            }
            ErrorKind::PermissionDenied => {
                Hint::plain("use a token with the role, the verbs and the VMs that this needs")
            }
            ErrorKind::ReadOnly => Hint::plain("the service was set to refuse all work (`read_only`)"),
            ErrorKind::InvalidRequest => Hint::plain("correct the request; the service describes its API"),
            ErrorKind::ServiceStopping => Hint::plain("try again when the service has started again"),
            ErrorKind::StorageFailed => {
                Hint::plain("check the space and the permissions of the service's folder")
            }
            _ => Hint::plain("see the message and its causes"),
        }
    }
}

impl PartialEq<str> for ErrorKind {
    fn eq(&self, word: &str) -> bool {
        self.as_str() == word
    }
}

impl PartialEq<&str> for ErrorKind {
    fn eq(&self, word: &&str) -> bool {
        self.as_str() == *word
    }
}

impl<'de> Deserialize<'de> for ErrorKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(ErrorKind::from_str(&word).unwrap_or(ErrorKind::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_same_in_every_form_and_is_read_back() {
        for kind in ErrorKind::VARIANTS {
            let word = kind.as_str();
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
            assert_eq!(kind.to_string(), word);
            assert_eq!(serde_json::from_value::<ErrorKind>(word.into()).unwrap(), *kind);
            assert!(!kind.hint().is_empty());
        }
        assert_eq!(serde_json::from_str::<ErrorKind>("\"of-a-later-version\"").unwrap(), ErrorKind::Unknown);
    }
}
