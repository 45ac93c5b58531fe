//! The engine on libvirt's wire protocol, by the crate `atp-rpc`: no C, and no thread for a call.
//!
//! A call that hangs is an entry in a table of its connection's task, until the reply comes or the connection ends.

mod channel;
mod domain_events;
pub(super) mod failure;
mod operations;

use std::sync::OnceLock;

use atp_api::Hint;
use atp_rpc::{ConnectOptions, Connection, Dialler, Keepalive};
use tokio::time::{Instant, timeout_at};

use super::Closed;
use super::choice::library_hint;
use super::reading::reading;
use super::uri::{LibvirtUri, Transport};
use super::way;
use crate::config::{Engine, KeepaliveConfig, TransportConfig};
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ConnectStage, ErrorKind};
use crate::host::{Credentials, HostInfo, PasswordSource};
use channel::Channel;
use domain_events::Watching;

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

    /// How many calls in flight the daemon allows on this connection.
    pub(super) fn max_in_flight(&self) -> usize {
        self.connection.max_in_flight()
    }

    /// Whether that is all that it can be.
    pub(super) fn is_measured(&self) -> bool {
        self.connection.is_measured()
    }

    /// Finds out how many calls in flight the daemon allows.
    pub(super) async fn measure(&self) -> usize {
        match self.connection.measure().await {
            Ok(calls) => calls,
            // The connection has ended.
            Err(_) => self.max_in_flight(),
        }
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
    dialler: Option<Dialler>,
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
        // Most connections of the command line never make two calls at once.
        measure: false,
        credentials,
        dialler,
        ..ConnectOptions::default()
    };
    let on_stage = |stage| attempt.waits_for(way::silent(&uri, stage));
    match Connection::open_observed(&uri.text, &options, on_stage).await {
        Ok(connection) => Ok(NativeLink { held: OnceLock::new(), connection }),
        Err(error) => Err(way::connect_error(&uri, error)),
    }
}

/// Refuses by name what only the C library has.
fn needs_no_library(uri: &LibvirtUri) -> Result<(), ConnectError> {
    let Some(what) = uri.of_the_library() else { return Ok(()) };
    let ours = match uri.transport {
        Transport::LibSsh => "use +ssh, which runs the system's ssh, or ",
        Transport::Tls => "leave it out, or ",
        _ => "",
    };
    let why = match Engine::Library.is_built_in() {
        true => "the host's engine is native",
        false => "this program was built without it",
    };
    let reason = format!("{}: {what} is inside libvirt's C library, and {why}", uri.shown);
    let advice = Hint::from(format!("{ours}{}", library_hint()));
    Err(ConnectError::new(ErrorKind::InvalidUri, reason).advise(advice).at(ConnectStage::Settings))
}

/// The user name and the password; none if one of them is not given: then libvirt's `auth.conf` has them.
async fn answers(
    credentials: &Credentials,
    deadline: Instant,
) -> Result<Option<atp_rpc::Credentials>, ConnectError> {
    let refused =
        |reason: String| ConnectError::new(ErrorKind::AuthFailed, reason).at(ConnectStage::Authenticate);
    let (Some(user), Some(source)) = (credentials.username.clone(), credentials.password.clone()) else {
        return Ok(None);
    };
    let read = match source {
        // Its file system may hang.
        PasswordSource::File(_) => timeout_at(deadline, reading(move || source.get())).await,
        _ => Ok(Ok(source.get())),
    };
    match read {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_library_has_is_refused_by_name() {
        let way_out = library_hint();
        for (uri, named, other) in [
            ("test:///default", "the driver test", ""),
            ("esx://h/?no_verify=1", "the driver esx", ""),
            ("qemu+libssh2://h/system", "the transport libssh2", "+ssh"),
            ("qemu+tls://h/system?tls_priority=NORMAL", "the parameter tls_priority", "leave it out"),
        ] {
            let error = needs_no_library(&LibvirtUri::parse(uri).unwrap()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidUri);
            assert!(error.reason.contains(named), "{error}");
            assert!(error.hint().contains(way_out) && error.hint().contains(other), "{}", error.hint());
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
}
