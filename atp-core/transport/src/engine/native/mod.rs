//! The engine on libvirt's wire protocol, by the crate `atp-rpc`: no C, and no thread for a call.
//!
//! A call that hangs is an entry in a table of its connection's task, until the reply comes or the connection ends.

mod channel;
mod domain_events;
mod failure;
mod operations;

use std::sync::OnceLock;

use atp_api::Hint;
use atp_rpc::{ConnectOptions, Connection, Keepalive, Stage};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::Closed;
use super::uri::LibvirtUri;
use crate::config::{KeepaliveConfig, TransportConfig};
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ErrorKind};
use crate::host::{Credentials, HostInfo};
use channel::Channel;
use domain_events::Watching;

/// Drivers that are inside the C library where their URI names no transport: no daemon has them.
const OF_THE_LIBRARY: [&str; 7] = ["test", "esx", "gsx", "vpx", "hyperv", "openvz", "vmware"];
/// Transports that only the C library has.
const LIBRARY_TRANSPORTS: [&str; 2] = ["libssh", "libssh2"];

/// What stands for "never" where keepalive is off.
const NO_PINGS: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 60 * 60);

/// An open connection of the native engine.
pub struct NativeLink {
    /// Comes before the connection: what is held for it ends first.
    held: OnceLock<Held>,
    connection: Connection,
}

/// What a connection that belongs to its opener alone is for.
enum Held {
    Events { _watching: Watching },
    Channel(Channel),
}

impl NativeLink {
    /// Returns when the connection has ended.
    pub(super) fn closed(&self) -> Closed {
        let end = self.connection.end();
        Box::pin(async move { drop(end.await) })
    }

    /// How many calls in flight the daemon bears on this connection.
    pub(super) fn bears(&self) -> usize {
        self.connection.max_in_flight()
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// The connection, for a call: `token` lives until the call is really over.
    fn holding(&self, token: impl Send + 'static) -> Connection {
        self.connection.holding(token)
    }
}

/// Opens a connection. The future ends by the attempt's deadline.
///
/// Cancel safe: what was begun ends with the future.
pub(super) async fn connect(
    uri: LibvirtUri,
    host: &HostInfo,
    attempt: ConnectAttempt,
) -> Result<NativeLink, ConnectError> {
    needs_no_library(&uri)?;
    let deadline = attempt.deadline();
    let credentials = match &host.credentials {
        Some(credentials) => answers(credentials, deadline).await?,
        None => None,
    };
    let TransportConfig { keepalive, calls, .. } = attempt.config();
    let options = ConnectOptions {
        timeout: deadline.saturating_duration_since(Instant::now()),
        keepalive: pings(keepalive),
        max_in_flight: calls.per_connection(),
        credentials,
        ..ConnectOptions::default()
    };
    let on_stage = |stage| attempt.waits_for(silent(&uri, stage));
    match Connection::open_observed(&uri.text, &options, on_stage).await {
        Ok(connection) => Ok(NativeLink { held: OnceLock::new(), connection }),
        Err(error) => Err(uri.advise(failure::connect_error(&uri, error))),
    }
}

/// Refuses by name what only the C library reaches.
fn needs_no_library(uri: &LibvirtUri) -> Result<(), ConnectError> {
    let scheme = uri.shown.split(':').next().unwrap_or_default();
    let what = match scheme.split_once('+') {
        Some((_, transport)) if LIBRARY_TRANSPORTS.contains(&transport) => {
            format!("the transport {transport}")
        }
        None if OF_THE_LIBRARY.contains(&scheme) && uri.socket.is_none() => format!("the driver {scheme}"),
        _ => return Ok(()),
    };
    let reason =
        format!("{}: {what} is inside libvirt's C library, and the host's engine is native", uri.shown);
    let advice = Hint::plain("set engine = \"library\" for this host");
    Err(ConnectError { advice: Some(advice), ..ConnectError::new(ErrorKind::InvalidUri, reason) })
}

/// The user name and the password; none if one of them is not given: then libvirt's `auth.conf` has them.
async fn answers(
    credentials: &Credentials,
    deadline: Instant,
) -> Result<Option<atp_rpc::Credentials>, ConnectError> {
    let refused = |reason: String| ConnectError::new(ErrorKind::AuthFailed, reason);
    let (Some(user), Some(source)) = (credentials.username.clone(), credentials.password.clone()) else {
        return Ok(None);
    };
    // It may be in a file.
    match timeout_at(deadline, spawn_blocking(move || source.get())).await {
        Ok(Ok(Ok(password))) => {
            Ok(Some(atp_rpc::Credentials { user, password: password.reveal().to_owned() }))
        }
        Ok(Ok(Err(reason))) => Err(refused(reason)),
        Ok(Err(_)) | Err(_) => Err(refused("the password could not be read in time".to_owned())),
    }
}

fn pings(config: &KeepaliveConfig) -> Keepalive {
    let interval = if config.interval.is_zero() { NO_PINGS } else { config.interval };
    Keepalive { interval, count: config.count }
}

/// The error of an attempt whose time runs out at this stage.
fn silent(uri: &LibvirtUri, stage: Stage) -> ConnectError {
    let shown = &uri.shown;
    let host = uri.socket.as_ref().map_or(shown.as_str(), |(host, _)| host);
    let (kind, reason) = match stage {
        Stage::Settings => {
            (ErrorKind::ConnectTimeout, format!("{shown}: reading the settings takes too long"))
        }
        Stage::Resolve => {
            (ErrorKind::NameNotResolved, format!("cannot resolve {host}: no answer from the resolver"))
        }
        Stage::Dial => {
            let place = match &uri.socket {
                Some((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
                Some((host, port)) => format!("{host}:{port}"),
                None => shown.clone(),
            };
            (ErrorKind::HostUnreachable, format!("{place} does not answer"))
        }
        Stage::Command => {
            (ErrorKind::ConnectTimeout, format!("{shown}: the command to connect by has not connected"))
        }
        Stage::Tls | Stage::Greet | Stage::Authenticate | Stage::Open => (
            ErrorKind::ConnectTimeout,
            format!("{shown} accepts connections, and the daemon does not answer"),
        ),
    };
    ConnectError::new(kind, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_library_has_is_refused_by_name() {
        for (uri, named) in [
            ("test:///default", "the driver test"),
            ("esx://h/?no_verify=1", "the driver esx"),
            ("qemu+libssh2://h/system", "the transport libssh2"),
        ] {
            let error = needs_no_library(&LibvirtUri::parse(uri).unwrap()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidUri);
            assert!(error.reason.contains(named) && error.hint().contains("library"), "{error}");
        }
        for uri in ["qemu:///system", "qemu+ssh://h/system", "test+tcp://h/default", "test://h/default"] {
            needs_no_library(&LibvirtUri::parse(uri).unwrap()).unwrap();
        }
    }

    #[test]
    fn keepalive_can_be_off() {
        let off = KeepaliveConfig { interval: std::time::Duration::ZERO, count: 5 };
        assert_eq!(pings(&off).interval, NO_PINGS);
        let on = KeepaliveConfig::default();
        assert_eq!(pings(&on), Keepalive { interval: on.interval, count: on.count });
    }

    #[test]
    fn an_attempt_that_takes_too_long_says_what_it_waited_for() {
        let uri = LibvirtUri::parse("qemu+tcp://[::1]:16000/system").unwrap();
        for (stage, kind, part) in [
            (Stage::Resolve, ErrorKind::NameNotResolved, "cannot resolve ::1"),
            (Stage::Dial, ErrorKind::HostUnreachable, "[::1]:16000 does not answer"),
            (Stage::Greet, ErrorKind::ConnectTimeout, "accepts connections"),
        ] {
            let error = silent(&uri, stage);
            assert_eq!(error.kind, kind);
            assert!(error.reason.contains(part), "{error}");
        }
    }
}
