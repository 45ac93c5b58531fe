//! How far a caller who wanted a connection had come, and how far an attempt to open one.

use serde::Serialize;
use strum::Display;

/// What a caller was waiting for when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AcquireStage {
    /// No connection was open yet: the host was being connected to.
    #[strum(serialize = "while connecting")]
    Connecting,
    /// Connections were open, and all of them fully used.
    #[strum(serialize = "with all connections in use")]
    AllInUse,
    /// A connection had been quiet for long, and was asked whether the host still answers.
    #[strum(serialize = "while probing the connection")]
    Validating,
}

/// How far an attempt to open a connection came: the stage at which it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectStage {
    /// The URI and the files that it names are read.
    Settings,
    /// The name is looked up.
    Name,
    /// The address or the socket is connected to.
    Dial,
    /// ssh or another command connects, and the program that it runs on the far side.
    Command,
    /// TLS is negotiated, and both sides look at certificates.
    Tls,
    /// The daemon is asked for its first answer.
    Daemon,
    /// We authenticate.
    Authenticate,
    /// The driver is opened.
    Open,
}
