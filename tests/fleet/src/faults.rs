//! Faults: their kinds, their numbers, and their assignment to hosts and VMs by seed.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A fault of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFault {
    /// Connections are refused. Set by seed, the host's URI has a port on which nothing listens. Set later, connections are
    /// reset as soon as they are accepted.
    Refused,
    /// Connections are accepted, and nothing is answered, as by a daemon that is stopped. What was sent is read and
    /// answered after the fault is removed.
    Dead,
    /// The daemon behind the one that listens hangs, as virtqemud behind virtproxyd: pings are answered, and calls are not, but
    /// for those before a connection is open. They are answered after the fault is removed.
    Behind,
    /// Each call takes this long, by half more or less, as the seed says.
    Slow {
        /// How long, on average.
        by: Duration,
    },
    /// The daemon is up and down in turns. When it goes down, its connections are reset; while it is down, new ones are too.
    Flapping {
        /// How long it is up.
        up: Duration,
        /// How long it is down.
        down: Duration,
    },
    /// Of calls to VMs, one in so many is executed, and then the connection is reset instead of a reply.
    Cutting {
        /// One in how many.
        one_in: u32,
    },
}

/// A fault of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmFault {
    /// QEMU hangs, and the guest with it: calls that need them are never answered, whatever time limit they carry, and are
    /// executed when the fault is removed. The first of them occupies the monitor, or the agent; further ones fail after
    /// 30 s, as libvirt's do.
    Hung,
    /// The guest agent does not answer: commands to it fail after the time limit that they carry.
    AgentSilent,
    /// No guest agent is connected: commands to it fail at once.
    AgentAbsent,
    /// The VM is shut off.
    ShutOff,
    /// The VM is shut off, and a call to start it is never answered, as on storage that does not answer. It is executed when the
    /// fault is removed.
    StartHangs,
}

/// How many hosts or VMs have a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded.
    Percent(f64),
}

impl Share {
    fn of(self, all: u64) -> u64 {
        match self {
            Share::Count(count) => u64::from(count).min(all),
            Share::Percent(percent) => ((all as f64) * percent / 100.0).round() as u64,
        }
    }
}

/// Faults by seed. A host has at most one; VMs with a fault are on hosts without.
///
/// As text: `refused=1%,slow=3:200ms,hung=5%`; see [`FromStr`](#impl-FromStr-for-Faults).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    hosts: Vec<(HostFault, Share)>,
    vms: Vec<(VmFault, Share)>,
}

impl Faults {
    /// Gives so many hosts a fault.
    pub fn hosts(mut self, fault: HostFault, share: Share) -> Self {
        self.hosts.push((fault, share));
        self
    }

    /// Gives so many VMs a fault. A percentage is of all VMs.
    pub fn vms(mut self, fault: VmFault, share: Share) -> Self {
        self.vms.push((fault, share));
        self
    }

    /// Assigns them to hosts and VMs by seed. Numbers begin at 1.
    pub(crate) fn assign(&self, seed: u64, hosts: u32, vms: u32) -> Assignment {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut assignment = Assignment::default();
        if !self.hosts.is_empty() {
            let mut order: Vec<u32> = (1..=hosts).collect();
            random.shuffle(&mut order);
            let mut order = order.into_iter();
            for (fault, share) in &self.hosts {
                let count = share.of(hosts.into()) as usize;
                assignment.hosts.extend(order.by_ref().take(count).map(|host| (host, *fault)));
            }
        }
        if !self.vms.is_empty() {
            let healthy = (1..=hosts).filter(|host| !assignment.hosts.contains_key(host));
            let mut order: Vec<(u32, u32)> =
                healthy.flat_map(|host| (1..=vms).map(move |vm| (host, vm))).collect();
            random.shuffle(&mut order);
            let mut order = order.into_iter();
            for (fault, share) in &self.vms {
                let count = share.of(u64::from(hosts) * u64::from(vms)) as usize;
                assignment.vms.extend(order.by_ref().take(count).map(|key| (key, *fault)));
            }
        }
        assignment
    }
}

/// The hosts and VMs that have a fault.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    pub(crate) hosts: HashMap<u32, HostFault>,
    pub(crate) vms: HashMap<(u32, u32), VmFault>,
}

/// Why a text names no fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a fault: {reason}")]
pub struct FaultError {
    text: String,
    reason: &'static str,
}

impl FaultError {
    fn new(text: &str, reason: &'static str) -> Self {
        FaultError { text: text.to_owned(), reason }
    }
}

const HOST_WORDS: &str = "a host can be refused, dead, behind, slow:TIME, flapping:UP/DOWN or cutting:N";
const VM_WORDS: &str = "a VM can be hung, agent-silent, agent-absent, shut-off or start-hangs";

/// `refused`, `dead`, `behind`, `slow:200ms`, `flapping:2s/1s`, `cutting:10`; without their numbers: 200 ms, 2 s and 1 s, 10.
impl FromStr for HostFault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (word, detail) = text.split_once(':').map_or((text, None), |(word, detail)| (word, Some(detail)));
        let time = |text| duration(text).ok_or_else(|| FaultError::new(text, "a time is meant, like 200ms"));
        Ok(match (word, detail) {
            ("refused", None) => HostFault::Refused,
            ("dead", None) => HostFault::Dead,
            ("behind", None) => HostFault::Behind,
            ("slow", by) => HostFault::Slow { by: time(by.unwrap_or("200ms"))? },
            ("flapping", times) => {
                let times = times.unwrap_or("2s/1s");
                let Some((up, down)) = times.split_once('/') else {
                    return Err(FaultError::new(text, "two times are meant, like 2s/1s"));
                };
                let (up, down) = (time(up)?, time(down)?);
                if up.is_zero() || down.is_zero() {
                    return Err(FaultError::new(text, "both times are longer than nothing"));
                }
                HostFault::Flapping { up, down }
            }
            ("cutting", one_in) => match one_in.unwrap_or("10").parse() {
                Ok(one_in @ 1..) => HostFault::Cutting { one_in },
                _ => return Err(FaultError::new(text, "a number from 1 is meant, like 10")),
            },
            _ => return Err(FaultError::new(text, HOST_WORDS)),
        })
    }
}

/// `hung`, `agent-silent`, `agent-absent`, `shut-off`, `start-hangs`.
impl FromStr for VmFault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        Ok(match text {
            "hung" => VmFault::Hung,
            "agent-silent" => VmFault::AgentSilent,
            "agent-absent" => VmFault::AgentAbsent,
            "shut-off" => VmFault::ShutOff,
            "start-hangs" => VmFault::StartHangs,
            _ => return Err(FaultError::new(text, VM_WORDS)),
        })
    }
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostFault::Refused => f.write_str("refused"),
            HostFault::Dead => f.write_str("dead"),
            HostFault::Behind => f.write_str("behind"),
            HostFault::Slow { by } => write!(f, "slow:{}ms", by.as_millis()),
            HostFault::Flapping { up, down } => {
                write!(f, "flapping:{}ms/{}ms", up.as_millis(), down.as_millis())
            }
            HostFault::Cutting { one_in } => write!(f, "cutting:{one_in}"),
        }
    }
}

impl fmt::Display for VmFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VmFault::Hung => "hung",
            VmFault::AgentSilent => "agent-silent",
            VmFault::AgentAbsent => "agent-absent",
            VmFault::ShutOff => "shut-off",
            VmFault::StartHangs => "start-hangs",
        })
    }
}

/// A list of `FAULT=SHARE`, separated by commas. A share is a number or a percentage; the parameters of a fault follow its
/// share: `slow=5%:200ms`.
impl FromStr for Faults {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut faults = Faults::default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = |reason| FaultError::new(item, reason);
            let (word, rest) = item.split_once('=').ok_or_else(|| wrong("FAULT=SHARE is meant"))?;
            let (share, detail) =
                rest.split_once(':').map_or((rest, None), |(share, detail)| (share, Some(detail)));
            let share =
                share_of(share).ok_or_else(|| wrong("a share is a number, or a percentage like 5%"))?;
            let fault = detail.map_or_else(|| word.to_owned(), |detail| format!("{word}:{detail}"));
            faults = match fault.parse::<VmFault>() {
                Ok(fault) => faults.vms(fault, share),
                Err(_) => faults.hosts(
                    fault
                        .parse()
                        .map_err(|error: FaultError| FaultError { text: item.to_owned(), ..error })?,
                    share,
                ),
            };
        }
        Ok(faults)
    }
}

fn share_of(text: &str) -> Option<Share> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
            percent.map(Share::Percent)
        }
        None => text.parse().ok().map(Share::Count),
    }
}

/// `200ms` or `2s`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let seconds = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_text() {
        let faults: Faults = "refused=1%, slow=3:50ms,hung=5%,flapping=2".parse().unwrap();
        let flapping = HostFault::Flapping { up: Duration::from_secs(2), down: Duration::from_secs(1) };
        let expected = Faults::default()
            .hosts(HostFault::Refused, Share::Percent(1.0))
            .hosts(HostFault::Slow { by: Duration::from_millis(50) }, Share::Count(3))
            .vms(VmFault::Hung, Share::Percent(5.0))
            .hosts(flapping, Share::Count(2));
        assert_eq!(faults, expected);
        for wrong in ["hung", "hung=x", "hung=101%", "hang=1", "slow=1:5", "flapping=1:1s", "cutting=1:0"] {
            assert!(wrong.parse::<Faults>().is_err(), "{wrong}");
        }
        for fault in [HostFault::Refused, HostFault::Behind, flapping, HostFault::Cutting { one_in: 3 }] {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        for fault in
            [VmFault::Hung, VmFault::AgentSilent, VmFault::AgentAbsent, VmFault::ShutOff, VmFault::StartHangs]
        {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
    }

    #[test]
    fn a_seed_gives_the_same_faults_in_exact_numbers() {
        let faults: Faults = "refused=1%,dead=7,hung=5%".parse().unwrap();
        let (one, same, other) =
            (faults.assign(1, 1_000, 2), faults.assign(1, 1_000, 2), faults.assign(2, 1_000, 2));
        let count = |fault| one.hosts.values().filter(|found| **found == fault).count();
        assert_eq!((count(HostFault::Refused), count(HostFault::Dead), one.vms.len()), (10, 7, 100));
        assert_eq!((&one.hosts, &one.vms), (&same.hosts, &same.vms));
        assert_ne!(one.hosts, other.hosts);
        assert!(one.vms.keys().all(|(host, _)| !one.hosts.contains_key(host)));
    }
}
