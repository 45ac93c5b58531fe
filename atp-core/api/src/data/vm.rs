//! Everything known of one VM.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::DomainDetails;
use crate::error::OutcomeError;

/// Everything known of one VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmReport {
    /// What its host knows.
    #[serde(flatten)]
    pub details: DomainDetails,
    /// What its guest reports; none if no agent is connected, or it does not answer.
    pub guest: Option<GuestReport>,
    /// Why an agent that is connected did not answer.
    pub guest_error: Option<OutcomeError>,
}

/// What the agent reports about its guest. Values that the agent has no command for are missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuestReport {
    /// Its host name.
    pub hostname: Option<String>,
    /// Its operating system.
    pub os: Option<OsReport>,
    /// The addresses it can be reached at: neither loopback nor link-local.
    pub addresses: Vec<IpAddr>,
    /// Its network interfaces, with all their addresses.
    pub interfaces: Vec<Interface>,
}

/// A guest's operating system, as far as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OsReport {
    /// Its name for people, such as `Debian GNU/Linux 12 (bookworm)`.
    pub name: Option<String>,
    /// Its name for programs, such as `debian` or `mswindows`.
    pub id: Option<String>,
    /// Its version, such as `12`.
    pub version: Option<String>,
    /// Its kernel's release.
    pub kernel: Option<String>,
    /// The machine it runs on, such as `x86_64`.
    pub machine: Option<String>,
}

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its name in the guest: `eth0`, `Ethernet 2`.
    pub name: String,
    /// Its hardware (MAC) address, if it has one.
    pub mac: Option<String>,
    /// Its addresses, in the guest's order.
    pub addresses: Vec<Address>,
}

/// An address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The length of the network prefix, in bits.
    pub prefix: u8,
}

impl Address {
    /// Whether other machines can reach the guest at this address: it is neither a loopback nor a link-local address.
    pub fn is_reachable(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
        }
    }
}
