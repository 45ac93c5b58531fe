//! Where a domain's screen can be looked at over the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

/// One graphics server of a domain, as its definition has it. Passwords are never read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Graphics {
    /// The protocol.
    pub kind: GraphicsKind,
    /// Where it listens; none while the domain is off and its ports are chosen at its start.
    pub listen: Vec<Listener>,
}

/// The protocol of a graphics server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum GraphicsKind {
    /// VNC (RFB).
    Vnc,
    /// SPICE.
    Spice,
    /// Another, by libvirt's name for it.
    #[serde(untagged)]
    #[strum(default)]
    Other(String),
}

/// Where a graphics server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Listener {
    /// A TCP address of the host.
    Tcp {
        /// The address; `0.0.0.0` and `::` are all of the host's.
        address: String,
        /// The port without encryption.
        port: Option<u16>,
        /// The port with TLS.
        tls_port: Option<u16>,
    },
    /// A Unix socket on the host.
    Unix {
        /// Its path.
        path: String,
    },
}
