//! Why the service did not do what it was asked for.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::Problem;
use atp_api::{Effect, ErrorKind, Hint};

use crate::sse::SseError;

/// Why a request to the service failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not one of a service.
    #[error("the address {url:?} of the service cannot be used: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file with certificates cannot be used.
    #[error("the certificates in {path} cannot be used: {reason}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file here that is to be sent or fetched cannot be used.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The token is not one: it is empty, or has characters that no header may have.
    #[error("the token for the service is empty, or has characters that no token has")]
    Token,
    /// The service did not answer in time.
    #[error("the service {url} does not answer")]
    TooSlow {
        /// The address.
        url: String,
    },
    /// The service cannot be reached, or the connection broke.
    #[error("the service {url} {}", if *.was_reached { "was lost before it had answered" } else { "cannot be reached" })]
    Unreachable {
        /// The address.
        url: String,
        /// Whether there was a connection, so that it may have got the request.
        was_reached: bool,
        /// Why.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The service refused the request.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// What answers is not a service of ATP, or one of another version.
    #[error("{url} answers, but not as a service of atp does: {reason}")]
    NotAService {
        /// The address.
        url: String,
        /// What it answers instead.
        reason: String,
    },
    /// The events of a run could not be read any more. The run goes on in the service if that still runs.
    #[error("the events of run {run} could not be read for {} s; the run goes on in the service if that still runs", .for_how_long.as_secs())]
    EventsLost {
        /// The run's id.
        run: u64,
        /// How long it was tried.
        for_how_long: Duration,
        /// The last error.
        #[source]
        source: Box<ClientError>,
    },
    /// The service was ended while the run was under way. What was not started then is not started.
    #[error("run {run} was interrupted: the service was ended while it was under way")]
    Interrupted {
        /// The run's id.
        run: u64,
    },
    /// The events of the service could not be read any more.
    #[error("the events of the service could not be read for {} s", .for_how_long.as_secs())]
    StreamLost {
        /// How long it was tried.
        for_how_long: Duration,
        /// The last error.
        #[source]
        source: Box<ClientError>,
    },
    /// A stream of events is not one.
    #[error(transparent)]
    Stream(#[from] SseError),
}

impl ClientError {
    /// The kind, for programs to match on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Refused(problem) => problem.kind,
            ClientError::TooSlow { .. } => ErrorKind::RequestTimeout,
            ClientError::Token => ErrorKind::NotAuthenticated,
            ClientError::File { .. } => ErrorKind::LocalFileError,
            ClientError::Address { .. } | ClientError::Certificates { .. } => ErrorKind::InvalidRequest,
            ClientError::Unreachable { .. } => ErrorKind::ConnectionRefused,
            ClientError::EventsLost { source, .. } | ClientError::StreamLost { source, .. } => source.kind(),
            ClientError::Interrupted { .. } => ErrorKind::ServiceStopping,
            ClientError::NotAService { .. } | ClientError::Stream(_) => ErrorKind::Unknown,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            ClientError::Refused(problem) => problem.hint.clone(),
            ClientError::Token => Some("give it as `atp serve token add` printed it".into()),
            ClientError::Unreachable { .. } | ClientError::TooSlow { .. } => {
                Some("check that the service runs (`atp serve`), and its address and port".into())
            }
            ClientError::NotAService { .. } => {
                Some("check the address: it is the one that `atp serve` prints when it starts".into())
            }
            ClientError::Address { .. } => Some("write it as https://HOST:PORT or http://HOST:PORT".into()),
            ClientError::EventsLost { .. } => Some(
                "look at the run on the page of the service, or of another one with the same database".into(),
            ),
            ClientError::Interrupted { run } => Some(
                format!("do what is left of it with the same command and --resume {run}, or on the page")
                    .into(),
            ),
            ClientError::StreamLost { source, .. } => source.hint(),
            ClientError::File { .. } => Some("check that the file is there, and its permissions".into()),
            ClientError::Certificates { .. } | ClientError::Stream(_) => None,
        }
    }

    /// What a request that was to change something may have done, if it ended so: the service may have carried out what it was sent
    /// and has not answered in a way that can be read, or while it failed itself.
    pub fn effect(&self) -> Effect {
        match self {
            // A service that ends says so before it does anything.
            ClientError::Refused(problem) if problem.kind == ErrorKind::ServiceStopping => Effect::None,
            ClientError::Refused(problem) if problem.status < 500 && problem.status != 408 => Effect::None,
            ClientError::Address { .. }
            | ClientError::Certificates { .. }
            | ClientError::File { .. }
            | ClientError::Unreachable { was_reached: false, .. }
            | ClientError::Token => Effect::None,
            _ => Effect::Unknown,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::TooSlow { .. } => true,
            ClientError::Refused(problem) => matches!(problem.status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
