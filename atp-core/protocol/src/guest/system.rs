//! Information about a guest's system.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atp_api::{Address, Interface};
use qapi::qga;
use tokio::time::Instant;

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::files::Reader;
use crate::reserve::keep_back;

/// Where Linux reports its uptime.
const UPTIME: &str = "/proc/uptime";

/// The longest content of that file: two numbers of seconds.
const UPTIME_LENGTH: usize = 64;

/// The time reserved before the deadline for closing the file in the guest.
const CLOSING: Duration = Duration::from_secs(1);

/// Asks the agent for an empty answer (`guest-ping`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn ping(carrier: &impl Carrier, deadline: Instant) -> Result<()> {
    agent::execute(carrier, &qga::guest_ping {}, deadline).await.map(drop)
}

/// The agent's version, and its supported and enabled commands (`guest-info`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn info(carrier: &impl Carrier, deadline: Instant) -> Result<qga::GuestAgentInfo> {
    agent::execute(carrier, &qga::guest_info {}, deadline).await
}

/// The operating system (`guest-get-osinfo`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn os(carrier: &impl Carrier, deadline: Instant) -> Result<qga::GuestOSInfo> {
    agent::execute(carrier, &qga::guest_get_osinfo {}, deadline).await
}

/// The guest's host name (`guest-get-host-name`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn host_name(carrier: &impl Carrier, deadline: Instant) -> Result<String> {
    let reply = agent::execute(carrier, &qga::guest_get_host_name {}, deadline).await?;
    Ok(reply.host_name)
}

/// The network interfaces and their addresses, including loopback (`guest-network-get-interfaces`).
///
/// # Errors
/// The error of the carrier or the agent; [`InvalidReply`](ProtocolError::InvalidReply) for an invalid address.
pub async fn interfaces(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<Interface>> {
    let replies = agent::execute(carrier, &qga::guest_network_get_interfaces {}, deadline).await?;
    let interface = |reply: qga::GuestNetworkInterface| {
        let addresses = reply.ip_addresses.unwrap_or_default().into_iter().map(|address| {
            let longest = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
            match (address.ip_address.parse::<IpAddr>(), u8::try_from(address.prefix)) {
                (Ok(ip), Ok(prefix)) if prefix <= longest(&ip) => Ok(Address { ip, prefix }),
                _ => {
                    let detail = format!("{:?}/{} is not an address", address.ip_address, address.prefix);
                    Err(ProtocolError::invalid_answer("guest-network-get-interfaces", detail))
                }
            }
        });
        let addresses = addresses.collect::<Result<_>>()?;
        Ok(Interface { name: reply.name, mac: reply.hardware_address, addresses })
    };
    replies.into_iter().map(interface).collect()
}

/// The time of the guest's clock (`guest-get-time`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn time(carrier: &impl Carrier, deadline: Instant) -> Result<SystemTime> {
    let nanos = agent::execute(carrier, &qga::guest_get_time {}, deadline).await?;
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time = if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.ok_or_else(|| ProtocolError::invalid_answer("guest-get-time", format!("{nanos} ns is not a time")))
}

/// The uptime of the guest's system, from `/proc/uptime` of Linux (`guest-file-open`, `guest-file-read`,
/// `guest-file-close`). It may not include the time for which the VM was paused.
///
/// # Errors
/// The error of the carrier or the agent; a refusal of the agent if the guest has no such file;
/// [`InvalidReply`](ProtocolError::InvalidReply) if the file contains no time.
pub async fn uptime(carrier: &impl Carrier, deadline: Instant) -> Result<Duration> {
    let mut file = Reader::new(UPTIME.to_owned(), 0);
    let read = file.read(carrier, UPTIME_LENGTH, keep_back(CLOSING, deadline)).await;
    // A failure to close the file does not matter: the bytes are read, and the agent closes the file when it ends.
    let _left_open = file.close(carrier, deadline).await;
    let bytes = read?.bytes;
    let seconds = std::str::from_utf8(&bytes).ok().and_then(|text| text.split_whitespace().next());
    let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.parse().ok()?).ok());
    uptime.ok_or_else(|| {
        let detail = format!("{UPTIME} contains no time: {:?}", String::from_utf8_lossy(&bytes));
        ProtocolError::invalid_answer("guest-file-read", detail)
    })
}

/// Sets the guest's clock, and then its hardware clock. Without a time, sets the clock from the hardware clock
/// (`guest-set-time`).
///
/// # Errors
/// The error of the carrier or the agent; [`InvalidCommand`](ProtocolError::InvalidCommand) for a time that does not
/// fit into 64 bits of nanoseconds since 1970.
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
/// The error of the carrier or the agent.
pub async fn timezone(carrier: &impl Carrier, deadline: Instant) -> Result<qga::GuestTimezone> {
    agent::execute(carrier, &qga::guest_get_timezone {}, deadline).await
}

/// The users that are logged in (`guest-get-users`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn users(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<qga::GuestUser>> {
    agent::execute(carrier, &qga::guest_get_users {}, deadline).await
}

/// The disks and their partitions (`guest-get-disks`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn disks(carrier: &impl Carrier, deadline: Instant) -> Result<Vec<qga::GuestDiskInfo>> {
    agent::execute(carrier, &qga::guest_get_disks {}, deadline).await
}

/// The mounted filesystems, with their disks (`guest-get-fsinfo`).
///
/// # Errors
/// The error of the carrier or the agent.
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
    async fn a_guest_without_an_uptime_is_an_error() {
        // The last command closes the file.
        for (at, is_told) in [(0, false), (1, false), (2, true)] {
            for fault in [Fault::Unsent, Fault::Unanswered, Fault::Refused] {
                let told = uptime(&LocalGuest::with_fault(at, fault), soon()).await;
                assert_eq!(told.is_ok(), is_told, "{at} {fault:?}: {told:?}");
            }
        }
    }
}
