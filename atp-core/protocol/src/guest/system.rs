//! What a guest says of its system.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qapi::qga;
use serde::Serialize;
use tokio::time::Instant;

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::files::Reader;
use crate::reserve::keep_back;

/// Where Linux says how long it has been up.
const UPTIME: &str = "/proc/uptime";

/// Most bytes it says so in: two numbers of seconds.
const UPTIME_LENGTH: usize = 64;

/// Time kept back before the deadline for closing the file in the guest.
const CLOSING: Duration = Duration::from_secs(1);

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// The guest's name for it: `eth0`, `Ethernet 2`.
    pub name: String,
    /// Its hardware (MAC) address, where it has one.
    pub mac: Option<String>,
    /// Its addresses, in the order of the guest.
    pub addresses: Vec<Address>,
}

/// An address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The length of the network's prefix, bits.
    pub prefix: u8,
}

impl Address {
    /// Whether others can reach the guest by it: it is neither its own (loopback) nor bound to one link.
    pub fn is_reachable(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
        }
    }
}

/// Asks for a sign of life (`guest-ping`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn ping(carrier: &impl Carrier, deadline: Instant) -> Result<()> {
    agent::execute(carrier, &qga::guest_ping {}, deadline).await.map(drop)
}

/// The agent's version, and which commands it has and allows (`guest-info`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn info(carrier: &impl Carrier, deadline: Instant) -> Result<qga::GuestAgentInfo> {
    agent::execute(carrier, &qga::guest_info {}, deadline).await
}

/// The operating system (`guest-get-osinfo`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn os(carrier: &impl Carrier, deadline: Instant) -> Result<qga::GuestOSInfo> {
    agent::execute(carrier, &qga::guest_get_osinfo {}, deadline).await
}

/// The guest's own name (`guest-get-host-name`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn host_name(carrier: &impl Carrier, deadline: Instant) -> Result<String> {
    let reply = agent::execute(carrier, &qga::guest_get_host_name {}, deadline).await?;
    Ok(reply.host_name)
}

/// The network interfaces and their addresses, loopback included (`guest-network-get-interfaces`).
///
/// # Errors
/// Whatever the carrier or the agent says; [`InvalidReply`](ProtocolError::InvalidReply) for an address that is none.
pub async fn interfaces(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<Interface>> {
    let replies = agent::execute(carrier, &qga::guest_network_get_interfaces {}, deadline).await?;
    let interface = |reply: qga::GuestNetworkInterface| {
        let addresses = reply.ip_addresses.unwrap_or_default().into_iter().map(|address| {
            let longest = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
            match (address.ip_address.parse::<IpAddr>(), u8::try_from(address.prefix)) {
                (Ok(ip), Ok(prefix)) if prefix <= longest(&ip) => Ok(Address { ip, prefix }),
                _ => {
                    let detail = format!("{:?}/{} is no address", address.ip_address, address.prefix);
                    Err(ProtocolError::invalid_answer("guest-network-get-interfaces", detail))
                }
            }
        });
        let addresses = addresses.collect::<Result<_>>()?;
        Ok(Interface { name: reply.name, mac: reply.hardware_address, addresses })
    };
    replies.into_iter().map(interface).collect()
}

/// What the guest's clock shows (`guest-get-time`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn time(carrier: &impl Carrier, deadline: Instant) -> Result<SystemTime> {
    let nanos = agent::execute(carrier, &qga::guest_get_time {}, deadline).await?;
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time = if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.ok_or_else(|| ProtocolError::invalid_answer("guest-get-time", format!("{nanos} ns is no time")))
}

/// For how long the guest's system has been up, as Linux tells in `/proc/uptime` (`guest-file-open`, `guest-file-read`,
/// `guest-file-close`). Time for which the VM was paused may be missing.
///
/// # Errors
/// Whatever the carrier or the agent says; a refusal of the agent's where the guest has no such file. Also
/// [`InvalidReply`](ProtocolError::InvalidReply) where there is no time in it.
pub async fn uptime(carrier: &impl Carrier, deadline: Instant) -> Result<Duration> {
    let mut file = Reader::new(UPTIME.to_owned(), 0);
    let read = file.read(carrier, UPTIME_LENGTH, keep_back(CLOSING, deadline)).await;
    // What was read is as good when the file stays open: the agent closes it when it ends.
    let _left_open = file.close(carrier, deadline).await;
    let bytes = read?.bytes;
    let seconds = std::str::from_utf8(&bytes).ok().and_then(|text| text.split_whitespace().next());
    let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.parse().ok()?).ok());
    uptime.ok_or_else(|| {
        let detail = format!("{UPTIME} has no time in it: {:?}", String::from_utf8_lossy(&bytes));
        ProtocolError::invalid_answer("guest-file-read", detail)
    })
}

/// Sets the guest's clock, and its hardware clock after it; without a time, the clock after the hardware clock
/// (`guest-set-time`).
///
/// # Errors
/// Whatever the carrier or the agent says; [`InvalidCommand`](ProtocolError::InvalidCommand) for a time beyond what
/// 64 bits of nanoseconds since 1970 can tell.
pub async fn set_time(carrier: &impl Carrier, time: Option<SystemTime>, deadline: Instant) -> Result<()> {
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_nanos()).ok()
    };
    let time = match time {
        None => None,
        Some(time) => Some(nanos(time).ok_or_else(|| ProtocolError::InvalidCommand {
            reason: "the time is before 1970, or too far ahead".to_owned(),
        })?),
    };
    agent::execute(carrier, &qga::guest_set_time { time }, deadline).await.map(drop)
}

/// The guest's time zone (`guest-get-timezone`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn timezone(carrier: &impl Carrier, deadline: Instant) -> Result<qga::GuestTimezone> {
    agent::execute(carrier, &qga::guest_get_timezone {}, deadline).await
}

/// Who is logged in (`guest-get-users`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn users(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<qga::GuestUser>> {
    agent::execute(carrier, &qga::guest_get_users {}, deadline).await
}

/// The disks and their partitions (`guest-get-disks`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn disks(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<qga::GuestDiskInfo>> {
    agent::execute(carrier, &qga::guest_get_disks {}, deadline).await
}

/// The mounted file systems, with the disks they are on (`guest-get-fsinfo`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn filesystems(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<qga::GuestFilesystemInfo>> {
    agent::execute(carrier, &qga::guest_get_fsinfo {}, deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_guest::{Fault, LocalGuest};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn the_uptime_grows_with_time() {
        let here = || std::fs::read_to_string(UPTIME).unwrap().split(' ').next().unwrap().parse().unwrap();
        let guest = LocalGuest::default();
        let before = Duration::from_secs_f64(here());
        let uptime = uptime(&guest, soon()).await.unwrap();
        assert!((before..=Duration::from_secs_f64(here())).contains(&uptime), "{before:?} {uptime:?}");
        assert_eq!(guest.commands(), ["guest-file-open", "guest-file-read", "guest-file-close"]);
        assert_eq!(guest.open_files(), 0);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_tell_is_an_error() {
        // The last of the commands closes the file.
        for (at, is_told) in [(0, false), (1, false), (2, true)] {
            for fault in [Fault::Unsent, Fault::Unanswered, Fault::Refused] {
                let told = uptime(&LocalGuest::with_fault(at, fault), soon()).await;
                assert_eq!(told.is_ok(), is_told, "{at} {fault:?}: {told:?}");
            }
        }
    }
}
