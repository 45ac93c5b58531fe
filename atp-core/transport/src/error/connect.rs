//! Why a host cannot be connected to.

use atp_api::Hint;

use super::{ConnectStage, ErrorKind, LibvirtError};

/// Why a connection to a host could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct ConnectError {
    /// The kind: one of those for which [`ErrorKind::is_unreachable`] is true; of a link that was open also
    /// [`ConnectionLost`](ErrorKind::ConnectionLost) and [`CallTimeout`](ErrorKind::CallTimeout); and
    /// [`ThreadsExhausted`](ErrorKind::ThreadsExhausted) where it failed here.
    pub kind: ErrorKind,
    /// What was tried and what came of it.
    pub reason: String,
    /// libvirt's error, where it was libvirt that failed.
    #[source]
    pub source: Option<LibvirtError>,
    /// What a person can try, where more is known than the kind.
    pub advice: Option<Hint>,
    /// How far it had come, where that is known.
    pub stage: Option<ConnectStage>,
}

impl ConnectError {
    /// A failure that did not come from libvirt.
    pub fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        ConnectError { kind, reason: reason.into(), source: None, advice: None, stage: None }
    }

    /// The same failure, at this stage.
    pub(crate) fn at(self, stage: ConnectStage) -> Self {
        ConnectError { stage: Some(stage), ..self }
    }

    /// The same failure, with this hint.
    pub(crate) fn advise(self, hint: impl Into<Hint>) -> Self {
        ConnectError { advice: Some(hint.into()), ..self }
    }

    /// What a person can try.
    pub fn hint(&self) -> Hint {
        self.advice.clone().unwrap_or_else(|| self.kind.hint())
    }

    /// All threads for blocking calls, so many, are in use: that says nothing of the host.
    pub(crate) fn no_thread(threads: usize) -> Self {
        let reason = format!("all {threads} threads for blocking calls are in use");
        ConnectError::new(ErrorKind::ThreadsExhausted, reason)
    }
}
