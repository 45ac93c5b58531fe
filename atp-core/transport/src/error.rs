//! Why work on a host failed: what, where, whether it may have happened, whether a retry can help.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::effect::Effect;
use crate::host::HostId;
use crate::stats::PoolStats;

/// The result of everything in this crate.
pub type Result<T, E = TransportError> = std::result::Result<T, E>;

/// A stable word for the kind of a failure, for programs to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    /// The daemon's access control says no.
    AccessDenied,
    /// The driver or hypervisor has no such operation.
    NotSupported,
    /// Any other error of libvirt; see its code and domain.
    LibvirtError,
}

impl ErrorKind {
    /// The word, in kebab case.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::UnknownHost => "unknown-host",
            ErrorKind::UnknownGroup => "unknown-group",
            ErrorKind::DuplicateHost => "duplicate-host",
            ErrorKind::InvalidHostId => "invalid-host-id",
            ErrorKind::InvalidUri => "invalid-uri",
            ErrorKind::InvalidConfig => "invalid-config",
            ErrorKind::NameNotResolved => "name-not-resolved",
            ErrorKind::ConnectionRefused => "connection-refused",
            ErrorKind::HostUnreachable => "host-unreachable",
            ErrorKind::ConnectTimeout => "connect-timeout",
            ErrorKind::AuthFailed => "auth-failed",
            ErrorKind::ConnectFailed => "connect-failed",
            ErrorKind::PoolExhausted => "pool-exhausted",
            ErrorKind::CallTimeout => "call-timeout",
            ErrorKind::StuckCalls => "stuck-calls",
            ErrorKind::ThreadsExhausted => "threads-exhausted",
            ErrorKind::ConnectionLost => "connection-lost",
            ErrorKind::CircuitOpen => "circuit-open",
            ErrorKind::RateLimited => "rate-limited",
            ErrorKind::CallRefused => "call-refused",
            ErrorKind::Closed => "closed",
            ErrorKind::Panicked => "panicked",
            ErrorKind::VmNotFound => "vm-not-found",
            ErrorKind::VmNotRunning => "vm-not-running",
            ErrorKind::OperationInvalid => "operation-invalid",
            ErrorKind::AgentNotConfigured => "agent-not-configured",
            ErrorKind::AgentNotConnected => "agent-not-connected",
            ErrorKind::AgentUnresponsive => "agent-unresponsive",
            ErrorKind::AgentGone => "agent-gone",
            ErrorKind::AgentBroken => "agent-broken",
            ErrorKind::MonitorBusy => "monitor-busy",
            ErrorKind::AgentBusy => "agent-busy",
            ErrorKind::ChannelInUse => "channel-in-use",
            ErrorKind::AccessDenied => "access-denied",
            ErrorKind::NotSupported => "not-supported",
            ErrorKind::LibvirtError => "libvirt-error",
        }
    }

    /// Whether the same work, done again later, may well succeed.
    ///
    /// Says nothing of whether it is safe to repeat: see [`TransportError::effect`].
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
                | ErrorKind::ConnectFailed
                | ErrorKind::InvalidUri
        )
    }

    /// What a person can try.
    pub fn hint(self) -> &'static str {
        match self {
            ErrorKind::UnknownHost => "check the host's id against the inventory (`atp host list`)",
            ErrorKind::UnknownGroup => {
                "check the group's name against those of the inventory (`atp host list`)"
            }
            ErrorKind::DuplicateHost => "give each host an id of its own",
            ErrorKind::InvalidHostId => "use letters, digits, '.', '_' and '-' only",
            ErrorKind::InvalidUri => {
                "a libvirt URI looks like qemu+tcp://HOST/system, qemu+ssh://USER@HOST/system or qemu:///system"
            }
            ErrorKind::InvalidConfig => "correct the values named above",
            ErrorKind::NameNotResolved => "check the spelling, DNS and /etc/hosts, or use an IP address",
            ErrorKind::ConnectionRefused => {
                "check that the daemon runs there and listens: for TCP by libvirtd --listen or virtproxyd-tcp.socket, on that port"
            }
            ErrorKind::HostUnreachable => {
                "check that the host is up, the route to it and the firewalls between"
            }
            ErrorKind::ConnectTimeout => {
                "the port answers and the daemon does not: check whether it is hung or stopped (systemctl status libvirtd)"
            }
            ErrorKind::AuthFailed => {
                "check the user, the password or the certificates, and the daemon's auth_* settings"
            }
            ErrorKind::ConnectFailed => {
                "try the same URI with `virsh -c URI list`, and read the daemon's log"
            }
            ErrorKind::PoolExhausted => {
                "raise max_connections_per_host or max_uses_per_connection, or run fewer targets at once"
            }
            ErrorKind::CallTimeout => {
                "the daemon or the VM does not answer: check the VM with `virsh domcontrol`, or give more time"
            }
            ErrorKind::StuckCalls => {
                "earlier calls to this host never returned: find the hung VMs (`virsh domcontrol`), destroy or resume them"
            }
            ErrorKind::ThreadsExhausted => "many hosts hang at once: find them, or raise calls.max_threads",
            ErrorKind::ConnectionLost => {
                "the daemon restarted or the network broke; check before repeating the work"
            }
            ErrorKind::CircuitOpen => {
                "the host keeps failing, see the cause; it is probed from time to time and used again once it answers"
            }
            ErrorKind::RateLimited => "give the work more time, do less at once, or raise the limit",
            ErrorKind::CallRefused => "this program was set up to refuse such calls: see the reason",
            ErrorKind::Closed => "the host was removed while work for it was waiting",
            ErrorKind::Panicked => "this is a bug in the code that was run on the host",
            ErrorKind::VmNotFound => "check the name (`atp vm list`)",
            ErrorKind::VmNotRunning => "start it first (`atp vm start`)",
            ErrorKind::OperationInvalid => "check the VM's state (`atp vm info`)",
            ErrorKind::AgentNotConfigured => {
                "add a <channel> with the target org.qemu.guest_agent.0 to the domain, and restart the VM"
            }
            ErrorKind::AgentNotConnected => {
                "check that qemu-guest-agent is installed, enabled and runs in the guest"
            }
            ErrorKind::AgentUnresponsive => {
                "the guest or its agent hangs, or an earlier agent command still runs: look at the guest's console"
            }
            ErrorKind::AgentGone => {
                "the agent or the guest was stopped or restarted: check in the guest what was done before repeating it"
            }
            ErrorKind::AgentBroken => "restart the agent in the guest, or reset the VM",
            ErrorKind::MonitorBusy => {
                "another command holds the VM; wait for it, or look with `virsh domcontrol`"
            }
            ErrorKind::AgentBusy => "another client's agent command to this VM is under way; wait for it",
            ErrorKind::ChannelInUse => {
                "another program has the channel open: wait for it or end it, or take the channel from it (`ChannelOptions::force`)"
            }
            ErrorKind::AccessDenied => "ask for the right in the daemon's access control (polkit)",
            ErrorKind::NotSupported => "this driver or version has no such operation",
            ErrorKind::LibvirtError => "read the daemon's log on the host",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as libvirt reported it (`virError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (libvirt error {code}, domain {domain})")]
pub struct LibvirtError {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`: the part of libvirt that raised it.
    pub domain: u32,
    /// `virErrorLevel`: 1 is a warning, 2 an error.
    pub level: u32,
    /// libvirt's words.
    pub message: String,
}

/// Why a connection to a host could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct ConnectError {
    /// The kind: one of those for which [`ErrorKind::is_unreachable`] is true.
    pub kind: ErrorKind,
    /// What was tried and what came of it.
    pub reason: String,
    /// libvirt's error, where it was libvirt that failed.
    #[source]
    pub source: Option<LibvirtError>,
}

impl ConnectError {
    /// A failure that did not come from libvirt.
    pub fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        ConnectError { kind, reason: reason.into(), source: None }
    }
}

/// What a caller was waiting for when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AcquireStage {
    /// No connection was open yet: the host was being connected to.
    Connecting,
    /// Connections were open, and all of them fully used.
    AllInUse,
}

impl fmt::Display for AcquireStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AcquireStage::Connecting => "while connecting",
            AcquireStage::AllInUse => "with all connections in use",
        })
    }
}

/// Everything that can go wrong between asking for work on a host and its result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No host of that id is registered.
    #[error("host {host:?} is not registered")]
    UnknownHost {
        /// The id asked for.
        host: String,
    },
    /// No host is in a group of that name.
    #[error("no host is in a group {group:?}; {}", groups(known))]
    UnknownGroup {
        /// The name asked for.
        group: String,
        /// The groups there are.
        known: Vec<String>,
    },
    /// A host of that id is registered already.
    #[error("host {host} is registered already")]
    DuplicateHost {
        /// The id.
        host: HostId,
    },
    /// The host's id is not a valid one.
    #[error(transparent)]
    InvalidHostId(#[from] crate::host::InvalidHostId),
    /// The host's URI cannot be used.
    #[error("host {host}: {reason}")]
    InvalidUri {
        /// The host.
        host: HostId,
        /// What is wrong with the URI; never holds a password.
        reason: String,
    },
    /// The configuration has values that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host could not be connected to; nothing was sent.
    #[error("host {host}: cannot connect")]
    Connect {
        /// The host.
        host: HostId,
        /// Why the last attempt failed.
        #[source]
        source: Arc<ConnectError>,
    },
    /// No connection could be had by the deadline; nothing was sent.
    #[error("host {host}: no connection after {waited:.1?}, {stage} ({stats})")]
    AcquireTimeout {
        /// The host.
        host: HostId,
        /// What was being waited for.
        stage: AcquireStage,
        /// How long the caller waited.
        waited: Duration,
        /// The pool when the caller gave up.
        stats: Box<PoolStats>,
        /// Why the last attempt to connect failed, if one did.
        #[source]
        source: Option<Arc<ConnectError>>,
    },
    /// The call was not answered by its deadline.
    #[error("host {host}: {operation}: {} after {after:.1?}", if *.sent { "no answer" } else { "not sent, other calls hold the way," })]
    CallTimeout {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// How long the caller waited.
        after: Duration,
        /// Whether the request had been handed to libvirt.
        sent: bool,
    },
    /// So many calls to this host hang that no more are sent.
    #[error("host {host}: {operation}: not sent, {stuck} calls to this host hang")]
    StuckCalls {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// Calls that overran their deadline and never returned.
        stuck: usize,
    },
    /// Another command has occupied the VM's monitor for long; nothing was sent.
    #[error(
        "host {host}: {operation}: not sent, another command has occupied the monitor for {occupied_for:.1?}"
    )]
    MonitorBusy {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// For how long QEMU has not answered that command.
        occupied_for: Duration,
    },
    /// No thread could be had to make a blocking call on; nothing was sent.
    #[error("host {host}: {operation}: not sent, all {threads} threads for calls are in use")]
    NoThread {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// Threads in use, all hosts together.
        threads: usize,
    },
    /// The connection broke while the call was under way.
    #[error("host {host}: {operation}: connection lost")]
    ConnectionLost {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// Whether the request had been handed to libvirt.
        sent: bool,
        /// What libvirt said.
        #[source]
        source: Option<LibvirtError>,
    },
    /// libvirt answered with an error.
    #[error("host {host}: {operation}")]
    Libvirt {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// The kind, told from code, domain and message.
        kind: ErrorKind,
        /// The error itself.
        #[source]
        source: LibvirtError,
    },
    /// The host has failed so often that work for it is refused for a while; nothing was sent.
    #[error("host {host}: circuit open, {}", next_probe(*.next_probe_in))]
    CircuitOpen {
        /// The host.
        host: HostId,
        /// When the next probe is let through; 0 while the host is being probed.
        next_probe_in: Duration,
        /// The last failure of the host.
        #[source]
        last_failure: Option<Arc<TransportError>>,
    },
    /// The call would have had to wait past its deadline for its turn; it was not sent.
    #[error(
        "host {host}: {operation}: not sent, {by} holds it back for {wait:.1?}, which is past its deadline"
    )]
    RateLimited {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// Whose limit it is.
        by: String,
        /// When its turn would have come.
        wait: Duration,
    },
    /// An interceptor refused the call; it was not sent.
    #[error("host {host}: {operation}: not sent, refused by {by}: {reason}")]
    Refused {
        /// The host.
        host: HostId,
        /// The operation, by libvirt's name for it.
        operation: &'static str,
        /// The interceptor's name.
        by: String,
        /// Its reason.
        reason: String,
    },
    /// The host was removed, or the pool closed.
    #[error("host {host}: closed")]
    Closed {
        /// The host.
        host: HostId,
    },
    /// The closure run on the host panicked.
    #[error("host {host}: the work panicked: {message}")]
    Panicked {
        /// The host.
        host: HostId,
        /// The panic's message.
        message: String,
    },
}

impl TransportError {
    /// The kind, for programs to match on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TransportError::UnknownHost { .. } => ErrorKind::UnknownHost,
            TransportError::UnknownGroup { .. } => ErrorKind::UnknownGroup,
            TransportError::DuplicateHost { .. } => ErrorKind::DuplicateHost,
            TransportError::InvalidHostId(_) => ErrorKind::InvalidHostId,
            TransportError::InvalidUri { .. } => ErrorKind::InvalidUri,
            TransportError::Config(_) => ErrorKind::InvalidConfig,
            TransportError::Connect { source, .. } => source.kind,
            TransportError::AcquireTimeout { stage: AcquireStage::AllInUse, .. } => ErrorKind::PoolExhausted,
            TransportError::AcquireTimeout { source: Some(source), .. } => source.kind,
            TransportError::AcquireTimeout { .. } => ErrorKind::ConnectTimeout,
            TransportError::CallTimeout { .. } => ErrorKind::CallTimeout,
            TransportError::StuckCalls { .. } => ErrorKind::StuckCalls,
            TransportError::MonitorBusy { .. } => ErrorKind::MonitorBusy,
            TransportError::NoThread { .. } => ErrorKind::ThreadsExhausted,
            TransportError::ConnectionLost { .. } => ErrorKind::ConnectionLost,
            TransportError::Libvirt { kind, .. } => *kind,
            TransportError::CircuitOpen { .. } => ErrorKind::CircuitOpen,
            TransportError::RateLimited { .. } => ErrorKind::RateLimited,
            TransportError::Refused { .. } => ErrorKind::CallRefused,
            TransportError::Closed { .. } => ErrorKind::Closed,
            TransportError::Panicked { .. } => ErrorKind::Panicked,
        }
    }

    /// Whether the work may have happened: [`Effect::Unknown`] once a request was handed to libvirt and
    /// no answer came, or when a closure panicked half-way; otherwise [`Effect::None`].
    pub fn effect(&self) -> Effect {
        match self {
            TransportError::CallTimeout { sent: true, .. }
            | TransportError::ConnectionLost { sent: true, .. }
            | TransportError::Panicked { .. } => Effect::Unknown,
            // Newer libvirt says when the silence came before the command.
            TransportError::Libvirt { kind: ErrorKind::AgentUnresponsive, source, .. }
                if source.message.contains("didn't respond to synchronization") =>
            {
                Effect::None
            }
            TransportError::Libvirt { kind: ErrorKind::AgentUnresponsive | ErrorKind::AgentGone, .. } => {
                Effect::Unknown
            }
            _ => Effect::None,
        }
    }

    /// Whether the same work, done again later, may well succeed. See also [`effect`](Self::effect).
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// Whether the host could not be reached at all: just now, or when it was last tried.
    pub fn is_unreachable(&self) -> bool {
        match self {
            TransportError::CircuitOpen { last_failure: Some(failure), .. } => failure.is_unreachable(),
            _ => self.kind().is_unreachable(),
        }
    }

    /// Whether a deadline of ours ended the work.
    pub fn is_timeout(&self) -> bool {
        matches!(self, TransportError::AcquireTimeout { .. } | TransportError::CallTimeout { .. })
    }

    /// What a person can try.
    pub fn hint(&self) -> &'static str {
        self.kind().hint()
    }

    /// libvirt's own error, where one is behind this.
    pub fn libvirt(&self) -> Option<&LibvirtError> {
        match self {
            TransportError::Libvirt { source, .. } => Some(source),
            TransportError::ConnectionLost { source, .. } => source.as_ref(),
            TransportError::Connect { source, .. } => source.source.as_ref(),
            TransportError::AcquireTimeout { source: Some(source), .. } => source.source.as_ref(),
            TransportError::CircuitOpen { last_failure: Some(failure), .. } => failure.libvirt(),
            _ => None,
        }
    }
}

fn groups(known: &[String]) -> String {
    if known.is_empty() { "no host is in any".to_owned() } else { format!("there are {}", known.join(", ")) }
}

fn next_probe(next_in: Duration) -> String {
    if next_in.is_zero() {
        "the host is being probed".to_owned()
    } else {
        format!("next probe in {next_in:.1?}")
    }
}
