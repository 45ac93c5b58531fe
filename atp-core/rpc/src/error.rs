//! What can go wrong with a call, a stream or a connection. Connecting has errors of its own:
//! [`ConnectError`](crate::ConnectError).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use uuid::Uuid;

use crate::frame::FrameError;
use crate::message::RemoteDomain;
use crate::numbers::Procedure;
use crate::xdr::{FromXdr, Reader, ToXdr, Writer, XdrError};

/// An error that the daemon answered with (`virError`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct RemoteError {
    /// Its number: see [`code`](crate::numbers::code).
    pub code: i32,
    /// The part of libvirt that it comes from (`virErrorDomain`).
    pub domain: i32,
    /// How grave it is: 1 is a warning, 2 an error.
    pub level: i32,
    /// For people, in the daemon's language.
    pub message: String,
    /// The parts of the message, as far as it was given any.
    pub strings: [Option<String>; 3],
    /// Further numbers, where the code has some: of a failed system call, `errno`.
    pub numbers: [i32; 2],
}

impl RemoteError {
    /// Stands in for an error that cannot be read.
    pub(crate) fn unreadable(why: &CallError) -> Self {
        let message = format!("an error that cannot be read: {why}");
        RemoteError {
            code: crate::numbers::code::RPC,
            domain: 0,
            level: 2,
            message,
            strings: Default::default(),
            numbers: [0; 2],
        }
    }
}

impl FromXdr for RemoteError {
    const MIN_SIZE: usize = 40;

    fn read(from: &mut Reader<'_>) -> Result<Self, XdrError> {
        let (code, domain) = FromXdr::read(from)?;
        let message = Option::<String>::read(from)?;
        let level = i32::read(from)?;
        let _domain = Option::<RemoteDomain>::read(from)?;
        let strings: [Option<String>; 3] = [Option::read(from)?, Option::read(from)?, Option::read(from)?];
        let (int1, int2) = FromXdr::read(from)?;
        let _network = Option::<(String, Uuid)>::read(from)?;
        let message = message.unwrap_or_else(|| format!("error {code} without a message"));
        Ok(RemoteError { code, domain, level, message, strings, numbers: [int1, int2] })
    }
}

/// A daemon's side. The domain and the network that an error may name are left out.
impl ToXdr for RemoteError {
    fn write(&self, to: &mut Writer) -> Result<(), XdrError> {
        let [first, second, third] = &self.strings;
        (self.code, self.domain, Some(&self.message), self.level).write(to)?;
        (None::<RemoteDomain>, first.as_ref(), second.as_ref(), third.as_ref()).write(to)?;
        (self.numbers[0], self.numbers[1], None::<Uuid>).write(to)
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, Error)]
pub enum CallError {
    /// The daemon answered with an error.
    #[error("{procedure}: {source}")]
    Remote {
        /// What was called.
        procedure: Procedure,
        /// The error.
        source: Box<RemoteError>,
    },
    /// The connection ended before the reply.
    #[error("{procedure}: the connection ended {}", if *sent { "before the reply" } else { "before the call was sent" })]
    Lost {
        /// What was called.
        procedure: Procedure,
        /// Whether all of the call was handed to the socket: if so, it may have been executed.
        sent: bool,
        /// Why the connection ended.
        source: Arc<LinkEnd>,
    },
    /// An argument cannot be sent. Nothing was.
    #[error("{procedure}: an argument cannot be sent")]
    Argument {
        /// What was to be called.
        procedure: Procedure,
        /// What is wrong with it.
        source: XdrError,
    },
    /// The reply cannot be read. The call was executed.
    #[error("{procedure}: the reply cannot be read")]
    Reply {
        /// What was called.
        procedure: Procedure,
        /// What is wrong with it.
        source: XdrError,
    },
}

impl CallError {
    /// The daemon's error, if it is one.
    pub fn remote(&self) -> Option<&RemoteError> {
        match self {
            CallError::Remote { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether the daemon answered with an error of this [`code`](crate::numbers::code).
    pub fn is_code(&self, code: i32) -> bool {
        self.remote().is_some_and(|error| error.code == code)
    }

    /// Whether the daemon may have executed the call.
    pub fn may_have_run(&self) -> bool {
        match self {
            CallError::Remote { .. } | CallError::Reply { .. } => true,
            CallError::Lost { sent, .. } => *sent,
            CallError::Argument { .. } => false,
        }
    }
}

/// Why a stream has ended early.
#[derive(Debug, Clone, Error)]
pub enum StreamError {
    /// The daemon aborted it.
    #[error("the daemon aborted the stream")]
    Remote(#[source] Box<RemoteError>),
    /// The connection ended.
    #[error("the connection ended under the stream")]
    Lost(#[source] Arc<LinkEnd>),
    /// Data came faster than it was taken. The stream was aborted, so that it does not hold up the connection.
    #[error("the stream was aborted: more than {limit} bytes were waiting to be taken")]
    Overrun {
        /// The most that may wait, bytes.
        limit: usize,
    },
}

/// Why a connection ended, and what its far side said.
#[derive(Debug, Error)]
pub struct LinkEnd {
    /// Why it ended.
    #[source]
    pub reason: EndReason,
    /// The last of what the command that carried it wrote to its stderr: ssh, for one. Empty for other transports.
    pub said: String,
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection has ended")?;
        if self.said.is_empty() { Ok(()) } else { write!(f, " ({})", self.said) }
    }
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum EndReason {
    /// It was closed from this side.
    #[error("it was closed")]
    Closed,
    /// The daemon closed it.
    #[error("the daemon closed it")]
    Eof,
    /// What came is no message, or reading or writing failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The daemon gave no sign of life.
    #[error("no sign of life for {} s", .silence.as_secs_f64())]
    Keepalive {
        /// For how long.
        silence: Duration,
    },
    /// The daemon reported that it lost its own connection to the hypervisor (`virConnectCloseReason`).
    #[error("the daemon lost its hypervisor (reason {reason})")]
    Notice {
        /// 0 an error, 1 an end of file, 2 a keepalive, 3 the client.
        reason: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::{decode, encode};

    #[test]
    fn what_a_daemon_writes_is_read_again() {
        let error = RemoteError {
            code: 42,
            domain: 10,
            level: 2,
            message: "no such domain".to_owned(),
            strings: [Some("no such %s".to_owned()), None, Some(String::new())],
            numbers: [-1, 7],
        };
        assert_eq!(decode(&encode(&error).unwrap()), Ok(error));
    }
}
