//! How a connection is opened.

use std::time::Duration;

use crate::auth::Credentials;
use crate::dial::Dialler;
use crate::link::Keepalive;

/// How a connection is opened and looked after.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How long all of connecting may take. Default: 30 s.
    pub timeout: Duration,
    /// Whether to open for reading only. Default: no.
    pub read_only: bool,
    /// How a silent connection is looked after, where the daemon knows pings.
    pub keepalive: Keepalive,
    /// How many messages may wait for the daemon's answer on the connection at most, 4 by default. At its own
    /// `max_client_requests`, 5 by default, a daemon stops reading the connection, pings included. That number is measured
    /// when the connection is opened, and where it is small, fewer messages are sent at once.
    pub max_in_flight: usize,
    /// Whether that is measured when the connection is opened, which is the default, or by
    /// [`Connection::measure`](crate::Connection::measure) when more are to wait: until then as many do as opening has shown, mostly one to three.
    pub measure: bool,
    /// For a daemon that asks for them by SASL. Default: those in libvirt's `auth.conf`.
    pub credentials: Option<Credentials>,
    /// Opens the way to the daemon in place of the URI's transport. Default: none.
    pub dialler: Option<Dialler>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            timeout: Duration::from_secs(30),
            read_only: false,
            keepalive: Keepalive::default(),
            max_in_flight: 4,
            measure: true,
            credentials: None,
            dialler: None,
        }
    }
}
