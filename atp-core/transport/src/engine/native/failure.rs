//! How failures of the wire protocol are sorted: by libvirt's numbers, as those of the C library are.

use std::error::Error;
use std::io;

use atp_rpc::{CallError, ConnectFailure, EndReason, LinkEnd, RemoteError, StreamError};

use super::silent;
use crate::connection::connector::CallFailure;
use crate::domain::error_numbers::{FROM_RPC, INTERNAL_ERROR, INVALID_ARG, RPC_ERROR, SYSTEM_ERROR};
use crate::engine::error;
use crate::engine::uri::LibvirtUri;
use crate::error::{ConnectError, ErrorKind, LibvirtError};

/// `virErrorLevel` of an error.
const ERROR: u32 = 2;

/// Sorts the failure of a call.
pub(super) fn call_failure(error: CallError) -> CallFailure {
    match error {
        CallError::Remote { source, .. } => error::call_failure(remote(*source)),
        CallError::Lost { sent, source, .. } => CallFailure::Lost { sent, source: Some(link_end(&source)) },
        CallError::Argument { .. } => refused(INVALID_ARG, &error),
        // Not the number of a reply that is too long for the daemon to send.
        CallError::Reply { .. } => refused(INTERNAL_ERROR, &error),
    }
}

/// Sorts the failure of a stream.
pub(super) fn stream_failure(error: StreamError) -> CallFailure {
    match error {
        StreamError::Remote(source) => error::call_failure(remote(*source)),
        StreamError::Lost(source) => CallFailure::Lost { sent: true, source: Some(link_end(&source)) },
        StreamError::Overrun { .. } => refused(RPC_ERROR, &error),
    }
}

/// The error behind the failure of a stream.
pub(super) fn stream_error(error: StreamError) -> LibvirtError {
    match error {
        StreamError::Remote(source) => remote(*source),
        StreamError::Lost(source) => link_end(&source),
        StreamError::Overrun { .. } => ours(RPC_ERROR, &error),
    }
}

/// A value that the daemon should have sent.
pub(super) fn missing(what: &str) -> CallFailure {
    CallFailure::Refused {
        kind: ErrorKind::LibvirtError,
        source: LibvirtError {
            code: RPC_ERROR,
            domain: FROM_RPC,
            level: ERROR,
            message: format!("the daemon sent no {what}"),
        },
    }
}

/// Sorts the failure of an opening.
pub(super) fn connect_error(uri: &LibvirtUri, error: atp_rpc::ConnectError) -> ConnectError {
    let atp_rpc::ConnectError { stage, failure, .. } = error;
    let shown = &uri.shown;
    let new = |kind, reason: String| ConnectError::new(kind, reason);
    match failure {
        ConnectFailure::Timeout(_) => silent(uri, stage),
        ConnectFailure::Uri(_) => new(ErrorKind::InvalidUri, format!("{shown}: {}", chain(&failure))),
        ConnectFailure::Unsupported(_) => new(ErrorKind::InvalidUri, format!("{shown}: {}", chain(&failure))),
        ConnectFailure::Resolve(source) => {
            let host = uri.socket.as_ref().map_or(shown.as_str(), |(host, _)| host);
            new(ErrorKind::NameNotResolved, format!("cannot resolve {host}: {source}"))
        }
        ConnectFailure::Dial { to, source } => match source.kind() {
            io::ErrorKind::ConnectionRefused => {
                new(ErrorKind::ConnectionRefused, format!("{to} refuses connections"))
            }
            io::ErrorKind::PermissionDenied => new(ErrorKind::AccessDenied, format!("{to}: {source}")),
            _ if uri.socket.is_some() => new(ErrorKind::HostUnreachable, format!("{to}: {source}")),
            _ => new(ErrorKind::ConnectFailed, format!("{to}: {source}")),
        },
        ConnectFailure::NoSocket { .. } | ConnectFailure::NoDaemon { .. } => {
            new(ErrorKind::ConnectionRefused, chain(&failure))
        }
        // Another attempt meets the same certificates.
        ConnectFailure::TlsCertificate(_)
        | ConnectFailure::TlsRefused(_)
        | ConnectFailure::Mechanism { .. }
        | ConnectFailure::NoCredentials
        | ConnectFailure::Polkit(_)
        | ConnectFailure::Kerberos(_)
        | ConnectFailure::Sasl(_) => new(ErrorKind::AuthFailed, format!("{shown}: {}", chain(&failure))),
        // What ssh says is sorted as where the C library runs it.
        ConnectFailure::CommandEnded(message) => {
            let source = LibvirtError { code: SYSTEM_ERROR, domain: FROM_RPC, level: ERROR, message };
            error::connect_error(shown, source)
        }
        ConnectFailure::Call(CallError::Remote { source, .. }) => {
            error::connect_error(shown, remote(*source))
        }
        ConnectFailure::Call(CallError::Lost { source, .. }) => {
            error::connect_error(shown, link_end(&source))
        }
        failure => new(ErrorKind::ConnectFailed, format!("cannot open {shown}: {}", chain(&failure))),
    }
}

/// The daemon's own error.
fn remote(error: RemoteError) -> LibvirtError {
    LibvirtError {
        code: error.code.cast_unsigned(),
        domain: error.domain.cast_unsigned(),
        level: error.level.cast_unsigned(),
        message: error.message,
    }
}

/// The end of a connection, with the numbers that the C library gives it.
fn link_end(end: &LinkEnd) -> LibvirtError {
    let code = match end.reason {
        EndReason::Eof | EndReason::Frame(_) => SYSTEM_ERROR,
        _ => INTERNAL_ERROR,
    };
    ours(code, end)
}

fn refused(code: u32, error: &dyn Error) -> CallFailure {
    CallFailure::Refused { kind: ErrorKind::LibvirtError, source: ours(code, error) }
}

/// An error of this side.
fn ours(code: u32, error: &dyn Error) -> LibvirtError {
    LibvirtError { code, domain: FROM_RPC, level: ERROR, message: chain(error) }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use atp_rpc::CertificateFault;

    use super::*;
    use crate::domain::error_numbers::NO_DOMAIN;

    fn call() -> atp_rpc::numbers::Procedure {
        atp_rpc::numbers::procedure::CONNECT_GET_HOSTNAME
    }

    #[test]
    fn a_daemons_error_is_sorted_by_its_number() {
        let source = RemoteError {
            code: NO_DOMAIN.cast_signed(),
            domain: 10,
            level: 2,
            message: "Domain not found".to_owned(),
            strings: Default::default(),
            numbers: [0; 2],
        };
        let failure = call_failure(CallError::Remote { procedure: call(), source: Box::new(source) });
        let CallFailure::Refused { kind, source } = failure else { panic!("{failure:?}") };
        assert_eq!((kind, source.code, source.domain), (ErrorKind::VmNotFound, NO_DOMAIN, 10));
    }

    #[test]
    fn a_lost_connection_keeps_its_reason_and_whether_the_call_was_sent() {
        let silence = Duration::from_secs(30);
        let end = Arc::new(LinkEnd { reason: EndReason::Keepalive { silence }, said: String::new() });
        for sent in [true, false] {
            let failure = call_failure(CallError::Lost { procedure: call(), sent, source: end.clone() });
            let CallFailure::Lost { sent: told, source: Some(source) } = failure else {
                panic!("{failure:?}")
            };
            assert_eq!(told, sent);
            assert!(source.message.contains("no sign of life for 30 s"), "{source}");
        }
    }

    #[test]
    fn failures_to_connect_have_the_kinds_of_the_library() {
        let tcp = LibvirtUri::parse("qemu+tcp://h/system").unwrap();
        let ssh = LibvirtUri::parse("qemu+ssh://h/system").unwrap();
        let dial = |kind: io::ErrorKind| ConnectFailure::Dial { to: "h:1".to_owned(), source: kind.into() };
        let said = |text: &str| ConnectFailure::CommandEnded(text.to_owned());
        for (uri, failure, kind) in [
            (&tcp, dial(io::ErrorKind::ConnectionRefused), ErrorKind::ConnectionRefused),
            (&tcp, dial(io::ErrorKind::NetworkUnreachable), ErrorKind::HostUnreachable),
            (&tcp, dial(io::ErrorKind::PermissionDenied), ErrorKind::AccessDenied),
            (&tcp, ConnectFailure::Resolve(io::Error::other("x")), ErrorKind::NameNotResolved),
            (&tcp, ConnectFailure::NoCredentials, ErrorKind::AuthFailed),
            (&tcp, ConnectFailure::TlsCertificate(CertificateFault::Expired), ErrorKind::AuthFailed),
            (&tcp, ConnectFailure::TlsRefused(CertificateFault::NotAllowed), ErrorKind::AuthFailed),
            (&tcp, ConnectFailure::Timeout(Duration::from_secs(1)), ErrorKind::ConnectTimeout),
            (&tcp, ConnectFailure::SpeaksTls, ErrorKind::ConnectFailed),
            (&ssh, said("root@h: Permission denied (publickey)."), ErrorKind::AuthFailed),
            (&ssh, said("ssh: connect to host h port 22: Connection refused"), ErrorKind::ConnectionRefused),
            (&ssh, said("ssh: connect to host h port 22: No route to host"), ErrorKind::HostUnreachable),
            (
                &ssh,
                said("ssh: Could not resolve hostname h: Name or service not known"),
                ErrorKind::NameNotResolved,
            ),
        ] {
            let target = uri.shown.clone();
            let stage = atp_rpc::Stage::Greet;
            let error = connect_error(uri, atp_rpc::ConnectError { target, stage, failure });
            assert_eq!(error.kind, kind, "{error}");
        }
    }
}
