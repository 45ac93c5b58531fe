//! How failures of the wire protocol are sorted: by libvirt's numbers, as those of the C library are.

use std::error::Error;

use atp_rpc::{CallError, EndReason, LinkEnd, RemoteError, StreamError};

use crate::connection::connector::CallFailure;
use crate::domain::error_numbers::{
    FROM_RPC, INTERNAL_ERROR, INVALID_ARG, NO_DOMAIN, RPC_ERROR, SYSTEM_ERROR,
};
use crate::engine::error;
use crate::error::{ErrorKind, LibvirtError};

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

/// The daemon's own error.
pub(in crate::engine) fn remote(error: RemoteError) -> LibvirtError {
    let mut message = error.message;
    // Calls name a domain by its UUID alone. A daemon that does not have it writes both, the name in parentheses.
    if error.code.cast_unsigned() == NO_DOMAIN
        && let Some(length) = message.strip_suffix(" ()").map(str::len)
    {
        message.truncate(length);
    }
    LibvirtError {
        code: error.code.cast_unsigned(),
        domain: error.domain.cast_unsigned(),
        level: error.level.cast_unsigned(),
        message,
    }
}

/// The end of a connection, with the numbers that the C library gives it.
pub(in crate::engine) fn link_end(end: &LinkEnd) -> LibvirtError {
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
pub(in crate::engine) fn chain(error: &dyn Error) -> String {
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

    use super::*;

    fn call() -> atp_rpc::numbers::Procedure {
        atp_rpc::numbers::procedure::CONNECT_GET_HOSTNAME
    }

    #[test]
    fn a_daemons_error_is_sorted_by_its_number() {
        let source = RemoteError {
            code: NO_DOMAIN.cast_signed(),
            domain: 10,
            level: 2,
            message: "Domain not found: no domain with matching uuid '2' ()".to_owned(),
            strings: Default::default(),
            numbers: [0; 2],
        };
        let failure = call_failure(CallError::Remote { procedure: call(), source: Box::new(source) });
        let CallFailure::Refused { kind, source } = failure else { panic!("{failure:?}") };
        assert_eq!((kind, source.code, source.domain), (ErrorKind::VmNotFound, NO_DOMAIN, 10));
        assert_eq!(source.message, "Domain not found: no domain with matching uuid '2'");
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
}
