//! Calls that a guest agent answers. Their errors are those of [`Connection::call`]; of an agent that does not
//! answer, code [`AGENT_UNRESPONSIVE`](crate::numbers::code::AGENT_UNRESPONSIVE).

use std::time::Duration;

use crate::connection::Connection;
use crate::error::CallError;
use crate::message::{Parameters, RemoteDomain};
use crate::numbers::procedure;
use crate::xdr::{FromXdr, Reader, Result, ToXdr, Writer};

/// The most values of a guest's information.
const MAX_GUEST_INFO: usize = 2_048;

/// The most file systems in a request.
const MAX_FILE_SYSTEMS: usize = 256;

/// How long the daemon waits for an agent's answer (`virDomainQemuAgentCommandTimeoutValues`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentTimeout {
    /// For ever.
    Block,
    /// As long as the daemon sees fit: 5 s.
    Default,
    /// Not at all.
    NoWait,
    /// So many whole seconds, and at least one.
    After(Duration),
}

impl AgentTimeout {
    fn to_wire(self) -> i32 {
        match self {
            AgentTimeout::Block => -2,
            AgentTimeout::Default => -1,
            AgentTimeout::NoWait => 0,
            AgentTimeout::After(time) => i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX),
        }
    }
}

/// Kinds of a guest's information (`virDomainGuestInfoTypes`). None asks for all that there is.
pub mod guest_info {
    /// Users who are logged in.
    pub const USERS: u32 = 1;
    /// The operating system.
    pub const OS: u32 = 2;
    /// The time zone.
    pub const TIMEZONE: u32 = 4;
    /// The host name.
    pub const HOSTNAME: u32 = 8;
    /// The file systems.
    pub const FILESYSTEM: u32 = 16;
    /// The disks.
    pub const DISKS: u32 = 32;
    /// The network interfaces.
    pub const INTERFACES: u32 = 64;
}

struct GuestInfo(Parameters);

impl FromXdr for GuestInfo {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(GuestInfo(Parameters(from.list("a guest's information", MAX_GUEST_INFO)?)))
    }
}

struct MountPoints<'a>(&'a [&'a str]);

impl ToXdr for MountPoints<'_> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        to.list("a list of mount points", self.0, MAX_FILE_SYSTEMS)
    }
}

type Called<T> = std::result::Result<T, CallError>;

impl Connection {
    /// Sends a JSON command to a domain's guest agent and returns its JSON reply; none to a command that has none
    /// (`virDomainQemuAgentCommand`). An error reply of the agent is an error of code 1.
    pub async fn agent_command(
        &self,
        domain: &RemoteDomain,
        command: &str,
        timeout: AgentTimeout,
    ) -> Called<Option<String>> {
        self.call(procedure::AGENT_COMMAND, &(domain, command, timeout.to_wire(), 0u32)).await
    }

    /// What the agent knows of the guest, of these [kinds](guest_info) (`virDomainGetGuestInfo`).
    pub async fn guest_info(&self, domain: &RemoteDomain, kinds: u32) -> Called<Parameters> {
        let arguments = (domain, kinds, 0u32);
        let GuestInfo(info) = self.call(procedure::DOMAIN_GET_GUEST_INFO, &arguments).await?;
        Ok(info)
    }

    /// Freezes file systems of the guest, by their mount points, or all if none is given; returns how many
    /// (`virDomainFSFreeze`).
    pub async fn freeze_file_systems(&self, domain: &RemoteDomain, mount_points: &[&str]) -> Called<i32> {
        self.call(procedure::DOMAIN_FSFREEZE, &(domain, MountPoints(mount_points), 0u32)).await
    }

    /// Thaws what was frozen; returns how many (`virDomainFSThaw`).
    pub async fn thaw_file_systems(&self, domain: &RemoteDomain, mount_points: &[&str]) -> Called<i32> {
        self.call(procedure::DOMAIN_FSTHAW, &(domain, MountPoints(mount_points), 0u32)).await
    }

    /// Gives free blocks of the guest's file systems back (`virDomainFSTrim`): of free ranges of at least `minimum`
    /// bytes.
    pub async fn trim_file_systems(&self, domain: &RemoteDomain, minimum: u64) -> Called<()> {
        let all = None::<&str>;
        self.call(procedure::DOMAIN_FSTRIM, &(domain, all, minimum, 0u32)).await
    }

    /// Sets a user's password in the guest (`virDomainSetUserPassword`); `encrypted` if it is a hash.
    pub async fn set_user_password(
        &self,
        domain: &RemoteDomain,
        user: &str,
        password: &str,
        encrypted: bool,
    ) -> Called<()> {
        let arguments = (domain, Some(user), Some(password), u32::from(encrypted));
        self.call(procedure::DOMAIN_SET_USER_PASSWORD, &arguments).await
    }

    /// The guest's own host name (`virDomainGetHostname`).
    pub async fn guest_hostname(&self, domain: &RemoteDomain) -> Called<String> {
        self.call(procedure::DOMAIN_GET_HOSTNAME, &(domain, 0u32)).await
    }
}
