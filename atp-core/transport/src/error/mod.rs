//! Why work on a host failed: what, where, whether it may have happened, whether a retry can help.

mod connect;
mod libvirt;
mod outcome;
pub(crate) mod phrase;
mod refused;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use crate::config::ConfigError;
use crate::domain::error_numbers::SYSTEM_ERROR;
use crate::host::{HostId, InvalidHostId};
use crate::pool::stats::PoolStats;
use atp_api::Effect;

pub(crate) use atp_api::ErrorKind;
use atp_api::Hint;
pub use connect::ConnectError;
pub use libvirt::LibvirtError;
use refused::was_refused;
pub use stage::{AcquireStage, ConnectStage};

/// libvirt's name for the start of a domain.
const START: &str = "virDomainCreate";

/// The result of everything in this crate.
pub type Result<T, E = TransportError> = std::result::Result<T, E>;

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
    InvalidHostId(#[from] InvalidHostId),
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
    #[error("host {host}: {}", not_acquired(*.stage, *.waited, stats))]
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
    #[error("host {host}: {operation}: {} after {after:.1?}", if *.sent { "no answer" } else { "not sent, it waited for other calls," })]
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
    /// Only the engine on libvirt's C library can do it, and the host has another; nothing was sent.
    #[cfg(feature = "library")]
    #[error("host {host}: {operation}: needs libvirt's C library, and the host's engine is native")]
    NeedsLibrary {
        /// The host.
        host: HostId,
        /// The operation, by the name it was given.
        operation: &'static str,
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
        /// The kind, derived from code, domain and message.
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
    #[error("host {host}: {operation}: not sent, {by} delays it by {wait:.1?}, which is past its deadline")]
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
            TransportError::AcquireTimeout { stage: AcquireStage::Validating, .. } => ErrorKind::CallTimeout,
            TransportError::AcquireTimeout { source: Some(source), .. } => source.kind,
            TransportError::AcquireTimeout { .. } => ErrorKind::ConnectTimeout,
            TransportError::CallTimeout { .. } => ErrorKind::CallTimeout,
            TransportError::StuckCalls { .. } => ErrorKind::StuckCalls,
            TransportError::MonitorBusy { .. } => ErrorKind::MonitorBusy,
            TransportError::NoThread { .. } => ErrorKind::ThreadsExhausted,
            #[cfg(feature = "library")]
            TransportError::NeedsLibrary { .. } => ErrorKind::NotSupported,
            TransportError::ConnectionLost { .. } => ErrorKind::ConnectionLost,
            TransportError::Libvirt { kind, .. } => *kind,
            TransportError::CircuitOpen { .. } => ErrorKind::CircuitOpen,
            TransportError::RateLimited { .. } => ErrorKind::RateLimited,
            TransportError::Refused { .. } => ErrorKind::CallRefused,
            TransportError::Closed { .. } => ErrorKind::Closed,
            TransportError::Panicked { .. } => ErrorKind::Panicked,
        }
    }

    /// Whether the work may have happened: [`Effect::None`] if no request was handed to libvirt, or if libvirt's error is
    /// one of those that it raises before anything is done; otherwise, also when a closure panicked half-way,
    /// [`Effect::Unknown`].
    pub fn effect(&self) -> Effect {
        match self {
            TransportError::CallTimeout { sent: true, .. }
            | TransportError::ConnectionLost { sent: true, .. }
            | TransportError::Panicked { .. } => Effect::Unknown,
            TransportError::Libvirt { operation, kind, source, .. } => {
                if was_refused(operation, *kind, source) { Effect::None } else { Effect::Unknown }
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
    pub fn hint(&self) -> Hint {
        match self {
            // Nothing was learnt of the host in this time.
            TransportError::AcquireTimeout { source: None, .. }
                if self.kind() == ErrorKind::ConnectTimeout =>
            {
                Hint::GIVE_HOST_TIME
            }
            TransportError::AcquireTimeout { host, stage: AcquireStage::Validating, .. } => {
                Hint::silent_host(host)
            }
            TransportError::CallTimeout { host, operation, .. } if is_of_host(operation) => {
                Hint::silent_host(host)
            }
            #[cfg(feature = "library")]
            TransportError::NeedsLibrary { .. } => Hint::plain("set engine = \"library\" for this host"),
            // A file of the definition cannot be opened: libvirt's own message names it.
            TransportError::Libvirt { operation: START, source, kind: ErrorKind::LibvirtError, .. }
                if source.code == SYSTEM_ERROR =>
            {
                Hint::plain(
                    "check on the host that the file that libvirt names is there, and that QEMU's user may open it; or correct the definition (`virsh edit`)",
                )
            }
            // A name that no channel of the VM has is an internal error, and not the only one.
            TransportError::Libvirt {
                operation: "virDomainOpenChannel",
                kind: ErrorKind::LibvirtError,
                ..
            } => Hint::plain(
                "check the channel's name: the channels are in the VM's definition (`virsh dumpxml`)",
            ),
            TransportError::Connect { source, .. } => source.hint(),
            TransportError::AcquireTimeout { source: Some(source), .. } if self.kind() == source.kind => {
                source.hint()
            }
            _ => self.kind().hint(),
        }
    }

    /// How far the attempt to connect came that is behind this.
    pub fn connect_stage(&self) -> Option<ConnectStage> {
        match self {
            TransportError::Connect { source, .. } => source.stage,
            TransportError::AcquireTimeout { source: Some(source), .. } => source.stage,
            TransportError::CircuitOpen { last_failure: Some(failure), .. } => failure.connect_stage(),
            _ => None,
        }
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

/// Whether an operation, by libvirt's name for it, is about a host or all of its VMs, and not about one of them.
fn is_of_host(operation: &str) -> bool {
    operation.starts_with("virConnect") || operation.starts_with("virNode")
}

/// What a caller saw while it waited for a connection. The pool's numbers say more only where its connections are the reason.
fn not_acquired(stage: AcquireStage, waited: Duration, stats: &PoolStats) -> String {
    match stage {
        AcquireStage::Connecting => format!("not connected after {waited:.1?}"),
        AcquireStage::AllInUse => format!("no connection was free for {waited:.1?} ({stats})"),
        AcquireStage::Validating => format!("connected, but no answer after {waited:.1?}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_about_a_host_has_a_hint_about_the_host() {
        let hint = |operation| {
            let (host, after) = ("h2".parse().unwrap(), Duration::from_secs(5));
            TransportError::CallTimeout { host, operation, after, sent: true }.hint()
        };
        for operation in ["virConnectGetAllDomainStats", "virNodeGetInfo"] {
            assert!(hint(operation).starts_with("host h2 does not answer"), "{}", hint(operation));
        }
        assert_eq!(hint("virDomainGetInfo"), ErrorKind::CallTimeout.hint());
    }
}
