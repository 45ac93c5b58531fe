//! The operations ATP needs of libvirt, as methods of a lease.
//!
//! Each is one blocking call on a thread, or a few that belong together. Each ends by the lease's
//! deadline, or after `call_timeout` where it has none, with [`TransportError::CallTimeout`](crate::TransportError);
//! dropping the future of one leaves nothing behind, but a call that was sent goes on and may have its effect.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::Instant;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{Domain, DomainState as VirtState};
use virt::enumutil::{Enum, RawEnum as _};
use virt::error::{Error, ErrorNumber};

use super::LibvirtConnection;
use super::control_info;
use super::domain_stats;
use super::link::{CallError, Handles, LibvirtLink};
use crate::admission::calls::Lane;
use crate::domain::definition::Definition;
use crate::domain::{DomainDetails, DomainInfo, DomainState, Lifecycle};
use crate::error::Result;

/// A version as libvirt counts them: `9.0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub release: u32,
}

impl Version {
    /// From libvirt's single number: `major × 1,000,000 + minor × 1,000 + release`.
    fn from_number(number: u32) -> Self {
        Version { major: number / 1_000_000, minor: number / 1_000 % 1_000, release: number % 1_000 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What runs a host's domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hypervisor {
    /// The driver's name for it: `QEMU`, `TEST`.
    pub kind: String,
    /// Its version.
    pub version: Version,
}

/// The monitor of a VM and its agent each take one command at a time.
pub(super) fn monitor_lane(uuid: Uuid) -> Lane {
    Lane { target: uuid.as_u128(), kind: 0 }
}

fn agent_lane(uuid: Uuid) -> Lane {
    Lane { target: uuid.as_u128(), kind: 1 }
}

impl LibvirtConnection {
    /// The version of the daemon's libvirt (`virConnectGetLibVersion`).
    pub async fn lib_version(&self) -> Result<Version> {
        let number = self.run("virConnectGetLibVersion", None, |on| Ok(on.connect.lib_version()?)).await?;
        Ok(Version::from_number(number))
    }

    /// The hypervisor and its version (`virConnectGetType`, `virConnectGetVersion`).
    pub async fn hypervisor(&self) -> Result<Hypervisor> {
        self.run("virConnectGetVersion", None, |on| {
            let kind = on.connect.driver_type()?;
            Ok(Hypervisor { kind, version: Version::from_number(on.connect.hyp_version()?) })
        })
        .await
    }

    /// The host's own name for itself (`virConnectGetHostname`).
    pub async fn hostname(&self) -> Result<String> {
        self.run("virConnectGetHostname", None, |on| Ok(on.connect.hostname()?)).await
    }

    /// All domains of the host, running or not, in no particular order (`virConnectListAllDomains`,
    /// `virDomainGetInfo`).
    ///
    /// A domain that goes away between the two calls is left out. Answers also while a VM of the host hangs.
    pub async fn list_domains(&self) -> Result<Vec<DomainInfo>> {
        self.run("virConnectListAllDomains", None, |on| {
            let mut known = HashMap::new();
            let mut listed = Vec::new();
            for domain in on.connect.list_all_domains(0)? {
                match info(&domain) {
                    Ok(info) => {
                        known.insert(info.uuid, Arc::new(domain));
                        listed.push(info);
                    }
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            on.set_domains(known);
            Ok(listed)
        })
        .await
    }

    /// The states of all domains of the host, running or not, in no particular order and in one round trip
    /// (`virConnectGetAllDomainStats`). vCPUs and memory are not asked for.
    ///
    /// Answers also while a VM of the host hangs. A driver that has no such call is asked as by
    /// [`list_domains`](Self::list_domains).
    pub async fn list_domain_states(&self) -> Result<Vec<DomainInfo>> {
        let listed = self.run("virConnectGetAllDomainStats", None, |on| {
            let listed = match domain_stats::all_states(&on.connect) {
                Err(error) if error.code().is(ErrorNumber::NoSupport) => return Ok(None),
                listed => listed?,
            };
            let mut known = HashMap::new();
            let mut states = Vec::with_capacity(listed.len());
            for (domain, state) in listed {
                let (name, uuid, id) = (domain.name()?, domain.uuid()?, domain.id());
                states.push(DomainInfo {
                    name,
                    uuid,
                    id,
                    state,
                    vcpus: None,
                    memory_kib: None,
                    max_memory_kib: None,
                });
                known.insert(uuid, Arc::new(domain));
            }
            on.set_domains(known);
            Ok(Some(states))
        });
        match listed.await? {
            Some(listed) => Ok(listed),
            None => self.list_domains().await,
        }
    }

    /// The domain of that name (`virDomainLookupByName`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_by_name(&self, name: &str) -> Result<DomainInfo> {
        let name = name.to_owned();
        self.run("virDomainLookupByName", None, move |on| {
            Ok(info(&on.connect.lookup_domain_by_name(&name)?)?)
        })
        .await
    }

    /// The domain of that UUID as it is now (`virDomainLookupByUUID`, `virDomainGetInfo`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_info(&self, uuid: Uuid) -> Result<DomainInfo> {
        self.run("virDomainGetInfo", None, move |on| Ok(info(on.fresh_domain(uuid)?.as_ref())?)).await
    }

    /// How much processor time a domain has used since it was started (`virDomainGetInfo`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_cpu_time(&self, uuid: Uuid) -> Result<Duration> {
        self.run("virDomainGetInfo", None, move |on| {
            Ok(Duration::from_nanos(on.domain(uuid)?.info()?.cpu_time))
        })
        .await
    }

    /// What a domain's definition says of it (`virDomainGetXMLDesc`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_details(&self, uuid: Uuid) -> Result<DomainDetails> {
        self.run("virDomainGetXMLDesc", None, move |on| {
            let domain = on.fresh_domain(uuid)?;
            let definition = Definition::parse(&domain.xml_desc(0)?);
            Ok(DomainDetails {
                info: info(&domain)?,
                persistent: domain.is_persistent()?,
                autostart: domain.autostart().ok(),
                agent: definition.agent,
                title: definition.title,
                graphics: definition.graphics,
            })
        })
        .await
    }

    /// Asks for a change of a domain's state. Returns when libvirt has taken the request, which for
    /// [`Shutdown`](Lifecycle::Shutdown) and [`Reboot`](Lifecycle::Reboot) is before the guest has followed it.
    ///
    /// # Errors
    /// Kind [`VmNotRunning`](crate::ErrorKind::VmNotRunning) or
    /// [`OperationInvalid`](crate::ErrorKind::OperationInvalid) when the state does not allow it.
    pub async fn domain_lifecycle(&self, uuid: Uuid, action: Lifecycle) -> Result<()> {
        let operation = action.function();
        // Destroying has to get through where the monitor hangs, so it stands in no line.
        let stands_in_line = !matches!(action, Lifecycle::Start | Lifecycle::Destroy);
        let lane = stands_in_line.then(|| monitor_lane(uuid));
        let busy_after = lane.and_then(|lane| self.busy_after(lane));
        self.run(operation, lane, move |on| {
            let domain = on.domain(uuid)?;
            check_monitor(&domain, busy_after)?;
            Ok(match action {
                Lifecycle::Start => domain.create(),
                Lifecycle::Shutdown => domain.shutdown(),
                Lifecycle::Reboot => domain.reboot(0),
                Lifecycle::Reset => domain.reset(),
                Lifecycle::Destroy => domain.destroy(),
                Lifecycle::Suspend => domain.suspend(),
                Lifecycle::Resume => domain.resume(),
            }?)
        })
        .await
    }

    /// Whether no command, anybody's, is waiting for the domain's QEMU now (`virDomainGetControlInfo`). While one is,
    /// the domain's state may change any moment. Answers from the daemon's memory; a driver that cannot tell, or a
    /// domain that is not running, counts as free.
    ///
    /// # Errors
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if one has been for longer than
    /// [`monitor_busy_after`](crate::CallConfig::monitor_busy_after).
    pub async fn monitor_is_free(&self, uuid: Uuid) -> Result<bool> {
        let limit = self.config().calls.monitor_busy_after;
        self.run("virDomainGetControlInfo", None, move |on| {
            match control_info::occupied_for(&*on.domain(uuid)?) {
                Ok(Some(occupied_for)) if occupied_for > limit => Err(CallError::Occupied(occupied_for)),
                Ok(occupied_for) => Ok(occupied_for.is_none()),
                Err(_) => Ok(true),
            }
        })
        .await
    }

    /// Sends a JSON command to a domain's QEMU monitor and returns its JSON reply, which may be an error
    /// reply (`virDomainQemuMonitorCommand`). One command at a time is under way for a domain.
    ///
    /// libvirt has no time-out for this call: it hangs for as long as QEMU does. So if the VM has not answered
    /// lately, libvirt is asked first whether the monitor is occupied, by whomever.
    ///
    /// # Errors
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if it has been for longer than
    /// [`monitor_busy_after`](crate::CallConfig::monitor_busy_after); nothing was sent then.
    pub async fn monitor_command(&self, uuid: Uuid, command: &str) -> Result<String> {
        self.monitor_command_with(uuid, command, || {}).await
    }

    /// As [`monitor_command`](Self::monitor_command), and calls `sent` when the command's turn has come and it is handed
    /// to libvirt: from then on it may be sent. Of a future that is dropped before, nothing is.
    ///
    /// # Errors
    /// As of [`monitor_command`](Self::monitor_command).
    pub async fn monitor_command_with(
        &self,
        uuid: Uuid,
        command: &str,
        sent: impl FnOnce(),
    ) -> Result<String> {
        let (command, lane) = (command.to_owned(), monitor_lane(uuid));
        let busy_after = self.busy_after(lane);
        self.run_with("virDomainQemuMonitorCommand", Some(lane), sent, move |on| {
            let domain = on.domain(uuid)?;
            check_monitor(&domain, busy_after)?;
            Ok(domain.qemu_monitor_command(&command, 0)?)
        })
        .await
    }

    /// Sends a JSON command to a domain's guest agent and returns its JSON reply
    /// (`virDomainQemuAgentCommand`). One command at a time is under way for a domain.
    ///
    /// The agent gets as many whole seconds to answer as are left until the deadline, and at least one.
    ///
    /// # Errors
    /// Kinds [`AgentNotConnected`](crate::ErrorKind::AgentNotConnected),
    /// [`AgentUnresponsive`](crate::ErrorKind::AgentUnresponsive). An error reply of the agent arrives as a
    /// libvirt error with code 1.
    pub async fn agent_command(&self, uuid: Uuid, command: &str) -> Result<String> {
        self.agent_command_with(uuid, command, || {}).await
    }

    /// As [`agent_command`](Self::agent_command), and calls `sent` when the command's turn has come and it is handed to
    /// libvirt: from then on it may be sent. Of a future that is dropped before, nothing is.
    ///
    /// # Errors
    /// As of [`agent_command`](Self::agent_command).
    pub async fn agent_command_with(&self, uuid: Uuid, command: &str, sent: impl FnOnce()) -> Result<String> {
        let command = command.to_owned();
        let deadline = self.call_deadline();
        self.run_with("virDomainQemuAgentCommand", Some(agent_lane(uuid)), sent, move |on| {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs();
            let seconds = i32::try_from(left.max(1)).unwrap_or(i32::MAX);
            Ok(on.domain(uuid)?.qemu_agent_command(&command, seconds, 0)?)
        })
        .await
    }

    /// Lends the connection to a blocking closure, on a thread for such calls, for whatever of libvirt's
    /// API has no method here. `operation` names it in errors and logs.
    ///
    /// Deadline, limits and metrics are those of every other call. The closure cannot be stopped: one that
    /// overruns its deadline makes the connection suspect.
    pub async fn run_blocking<T, F>(&self, operation: &'static str, call: F) -> Result<T>
    where
        F: FnOnce(&Connect) -> std::result::Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.run(operation, None, move |on| Ok(call(&on.connect)?)).await
    }

    /// After how long an occupied monitor is reason not to send; none for a VM that has answered lately.
    pub(super) fn busy_after(&self, lane: Lane) -> Option<Duration> {
        (!self.is_proven(lane)).then(|| self.config().calls.monitor_busy_after)
    }

    pub(super) async fn run<T, F>(&self, operation: &'static str, lane: Option<Lane>, call: F) -> Result<T>
    where
        F: FnOnce(&Handles) -> std::result::Result<T, CallError> + Send + 'static,
        T: Send + 'static,
    {
        self.run_with(operation, lane, || {}, call).await
    }

    /// As `run`, and calls `sent` in the step in which the call is handed to its thread.
    async fn run_with<T, F>(
        &self,
        operation: &'static str,
        lane: Option<Lane>,
        sent: impl FnOnce(),
        call: F,
    ) -> Result<T>
    where
        F: FnOnce(&Handles) -> std::result::Result<T, CallError> + Send + 'static,
        T: Send + 'static,
    {
        let start = |link: Arc<LibvirtLink>, in_flight| {
            sent();
            link.start(Some(in_flight), call)
        };
        self.call(operation, lane, start).await
    }
}

/// Fails if the monitor has been occupied for longer than `busy_after`. A driver that cannot tell, or a domain
/// that is not running, is left to the call itself.
pub(super) fn check_monitor(
    domain: &Domain,
    busy_after: Option<Duration>,
) -> std::result::Result<(), CallError> {
    if let Some(limit) = busy_after
        && let Ok(Some(occupied_for)) = control_info::occupied_for(domain)
        && occupied_for > limit
    {
        return Err(CallError::Occupied(occupied_for));
    }
    Ok(())
}

pub(super) fn info(domain: &Domain) -> std::result::Result<DomainInfo, Error> {
    let info = domain.info()?;
    Ok(DomainInfo {
        name: domain.name()?,
        uuid: domain.uuid()?,
        id: domain.id(),
        state: state(info.state),
        vcpus: Some(info.nr_virt_cpu),
        memory_kib: Some(info.memory),
        max_memory_kib: Some(info.max_mem),
    })
}

/// The state of libvirt's number for it (`virDomainState`).
pub(super) fn state_of(number: i32) -> DomainState {
    let number = number.cast_unsigned();
    state(VirtState::from_raw(number).map_or(Enum::Unknown(number), Enum::Known))
}

pub(super) fn is_gone(error: &Error) -> bool {
    error.code().is(ErrorNumber::NoDomain)
}

fn state(state: virt::domain::DomainStateEnum) -> DomainState {
    match state {
        Enum::Known(VirtState::Running) => DomainState::Running,
        Enum::Known(VirtState::Blocked) => DomainState::Blocked,
        Enum::Known(VirtState::Paused) => DomainState::Paused,
        Enum::Known(VirtState::Shutdown) => DomainState::ShuttingDown,
        Enum::Known(VirtState::Shutoff) => DomainState::ShutOff,
        Enum::Known(VirtState::Crashed) => DomainState::Crashed,
        Enum::Known(VirtState::PMSuspended) => DomainState::PmSuspended,
        Enum::Known(VirtState::NoState) | Enum::Unknown(_) => DomainState::NoState,
    }
}
