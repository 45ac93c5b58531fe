//! The state of a client's session.

use crate::event::Registration;

/// A client's session with a daemon.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) is_open: bool,
    pub(crate) is_read_only: bool,
    /// Whether the client has asked for keepalive.
    pub(crate) wants_pings: bool,
    /// Whether the client has closed its session.
    pub(crate) is_closed: bool,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) next_callback: i32,
    /// The stream that the call under way has opened.
    pub(crate) opening: Option<Opening>,
}

/// A stream that is to be opened.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Sends these bytes, and then sends back what it gets.
    Echo(Vec<u8>),
    /// Sends these bytes, and then ends.
    Picture(Vec<u8>),
}

impl Session {
    /// For calls of a client that has left.
    pub(crate) fn opened() -> Self {
        Session { is_open: true, ..Session::default() }
    }
}
