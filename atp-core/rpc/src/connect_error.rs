//! Why a connection was not made: at which stage, and what stood in the way.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;

use crate::certificate_fault::CertificateFault;
use crate::error::{CallError, EndReason, RemoteError};
use crate::frame::FrameError;
use crate::uri::UriError;

/// How far connecting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The URI and the settings are read.
    Settings,
    /// The name is looked up.
    Resolve,
    /// The address or the socket is connected to.
    Dial,
    /// ssh, or another command, is started. It shows only by what comes after that it has connected.
    Command,
    /// An sshd did not admit ssh, mostly because too many connect to it at once (`MaxStartups`): ssh is started again.
    Admission,
    /// TLS is negotiated.
    Tls,
    /// The daemon is asked how to authenticate: the first that it says.
    Greet,
    /// We authenticate.
    Authenticate,
    /// The driver is opened.
    Open,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Settings => "reading the settings",
            Stage::Resolve => "looking up the name",
            Stage::Dial => "connecting",
            Stage::Command => "starting the command",
            Stage::Admission => "starting ssh again, which sshd did not admit",
            Stage::Tls => "negotiating TLS",
            Stage::Greet => "waiting for the daemon's first answer",
            Stage::Authenticate => "authenticating",
            Stage::Open => "opening the driver",
        })
    }
}

/// Where connecting is now, for the error of one that takes too long.
pub(crate) struct Progress<'a> {
    stage: Mutex<Stage>,
    on_stage: &'a (dyn Fn(Stage) + Sync),
}

impl<'a> Progress<'a> {
    /// Calls `on_stage` at each stage that connecting comes to.
    pub(crate) fn new(on_stage: &'a (dyn Fn(Stage) + Sync)) -> Self {
        Progress { stage: Mutex::new(Stage::Settings), on_stage }
    }

    pub(crate) fn set(&self, stage: Stage) {
        *self.stage.lock() = stage;
        (self.on_stage)(stage);
    }

    pub(crate) fn get(&self) -> Stage {
        *self.stage.lock()
    }
}

/// Why a connection was not made.
#[derive(Debug, Error)]
#[error("cannot open {target}: failed {stage}")]
pub struct ConnectError {
    /// The URI, without its parameters.
    pub target: String,
    /// How far it had come.
    pub stage: Stage,
    /// What stood in the way.
    #[source]
    pub failure: ConnectFailure,
}

/// What stood in the way of a connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The URI cannot be opened.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// Something that is asked for is not to be had here.
    #[error("{0}")]
    Unsupported(String),
    /// The name was not found.
    #[error("the name cannot be looked up")]
    Resolve(#[source] io::Error),
    /// An address or a socket does not take connections.
    #[error("cannot connect to {to}")]
    Dial {
        /// The address, or the path of the socket.
        to: String,
        /// Why not.
        source: io::Error,
    },
    /// No daemon of this machine has a socket.
    #[error("no daemon has a socket there: tried {}", list(tried))]
    NoSocket {
        /// Where one was looked for.
        tried: Vec<PathBuf>,
    },
    /// The user's own daemon does not run and is not installed.
    #[error("no daemon of the user runs, and none is installed: looked for {}", tried.join(", "))]
    NoDaemon {
        /// The daemons that were looked for.
        tried: Vec<String>,
    },
    /// The user's own daemons have no folder for their sockets.
    #[error(
        "a session needs a folder that can be written, by XDG_RUNTIME_DIR or HOME{}",
        folder_reason(folder)
    )]
    NoFolder {
        /// The folder and what is wrong with it; none if neither variable is set.
        folder: Option<(PathBuf, io::Error)>,
    },
    /// A file that is needed cannot be read, or holds something else.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A command cannot be started.
    #[error("cannot run {command}")]
    Command {
        /// The command.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The command that carries the connection ended. This is what it said.
    #[error("{0}")]
    CommandEnded(String),
    /// The peer speaks TLS, and was spoken to in the clear.
    #[error("that port speaks TLS")]
    SpeaksTls,
    /// The peer is no libvirt daemon.
    #[error("not libvirt: it answered {begins:?}")]
    NotLibvirt {
        /// How its answer begins.
        begins: String,
    },
    /// The peer is a libvirt daemon that speaks in the clear, and was asked for TLS.
    #[error("that port does not speak TLS, but libvirt's protocol in the clear")]
    NoTls,
    /// TLS could not be negotiated.
    #[error("TLS failed")]
    Tls {
        /// Why not.
        source: io::Error,
    },
    /// The daemon's certificate is not accepted.
    #[error("the daemon's certificate is not accepted: {fault} (authority: {})", authority.display())]
    TlsCertificate {
        /// The file with the authority that is trusted.
        authority: PathBuf,
        /// What is wrong with the certificate.
        fault: CertificateFault,
    },
    /// The daemon does not accept the client's certificate. It gives no reason: this is what the client finds.
    #[error("the daemon refused the client's certificate {}: {fault}", certificate.display())]
    TlsRefused {
        /// The file of the client's certificate.
        certificate: PathBuf,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// No way to authenticate that the daemon offers is to be had here.
    #[error("cannot authenticate: the daemon offers {offered}; {reason}")]
    Mechanism {
        /// What the daemon offers.
        offered: String,
        /// Why none of it serves.
        reason: &'static str,
    },
    /// The daemon wants to know who is there, and is not verified: with `no_verify` it may be anyone.
    #[error(
        "cannot authenticate: with no_verify the far end may be anyone, to whom no password and no ticket is sent (it offers {offered})"
    )]
    Unverified {
        /// What the daemon offers.
        offered: String,
    },
    /// polkit does not let this user in, or has no agent that could ask for a password.
    #[error(
        "polkit does not let this user in ({0}): be root or in the group libvirt, or add a polkit rule for org.libvirt.unix.manage"
    )]
    Polkit(Box<RemoteError>),
    /// A user name or a password is needed, and there is none.
    #[error("the daemon asks for a user name and a password, and there are none")]
    NoCredentials,
    /// The daemon could not prove that it knows the password, or broke the rules of SASL.
    #[error("SASL: {0}")]
    Sasl(&'static str),
    /// Kerberos failed: there is no ticket, or none for this daemon.
    #[error("GSSAPI: {0}")]
    Kerberos(String),
    /// The daemon refused, or ended the connection.
    #[error(transparent)]
    Call(CallError),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

/// What ssh says when the other side closed the connection before it said who it is.
const NOT_ADMITTED: &str = "kex_exchange_identification: ";

/// What ssh says before that where it is another fault, on the way to that side.
const OTHER_FAULTS: [&str; 6] = [
    "open failed",
    "forwarding failed",
    "connect to host",
    "Permission denied",
    "Could not resolve",
    "verification failed",
];

impl ConnectFailure {
    /// Whether an ssh ended because the sshd at its other end, or one on the way, did not admit it: mostly because too
    /// many were connecting to it at once (`MaxStartups`).
    pub fn was_not_admitted(&self) -> bool {
        match self {
            ConnectFailure::CommandEnded(said) => {
                said.contains(NOT_ADMITTED) && !OTHER_FAULTS.iter().any(|words| said.contains(words))
            }
            _ => false,
        }
    }
}

impl From<CallError> for ConnectFailure {
    /// What a peer says that is no daemon shows what it is.
    fn from(error: CallError) -> Self {
        let CallError::Lost { source, .. } = &error else { return ConnectFailure::Call(error) };
        let EndReason::Frame(FrameError::Length { begins, .. }) = &source.reason else {
            let said = &source.said;
            return if said.is_empty() {
                ConnectFailure::Call(error)
            } else {
                ConnectFailure::CommandEnded(said.clone())
            };
        };
        match begins[..] {
            // A TLS alert or handshake record.
            [0x15 | 0x16, 3, ..] => ConnectFailure::SpeaksTls,
            _ => ConnectFailure::NotLibvirt { begins: first_line(begins) },
        }
    }
}

/// The first line of what is no message.
fn first_line(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).filter(|end| *end > 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

fn folder_reason(folder: &Option<(PathBuf, io::Error)>) -> String {
    match folder {
        Some((path, error)) => format!(": {}: {error}", path.display()),
        None => ": neither is set".to_owned(),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
