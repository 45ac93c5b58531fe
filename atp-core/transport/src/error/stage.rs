//! How far a caller who wanted a connection had come, and how far an attempt to open one.

use std::fmt;

use serde::Serialize;

/// What a caller was waiting for when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AcquireStage {
    /// No connection was open yet: the host was being connected to.
    Connecting,
    /// Connections were open, and all of them fully used.
    AllInUse,
    /// A connection had been quiet for long, and was asked whether the host still answers.
    Validating,
}

impl fmt::Display for AcquireStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AcquireStage::Connecting => "while connecting",
            AcquireStage::AllInUse => "with all connections in use",
            AcquireStage::Validating => "while probing the connection",
        })
    }
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
