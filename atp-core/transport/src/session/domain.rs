//! The operations on domains.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{LibvirtConnection, agent_lane, check_monitor, explained, monitor_lane, start_lane};
use crate::connection::connector::CallFailure;
use crate::domain::error_numbers::{ARGUMENT_UNSUPPORTED, INVALID_ARG, NO_SUPPORT};
use crate::domain::{DomainCounters, DomainDetails, DomainInfo, LABELS_NAMESPACE, Lifecycle, read_labels};
#[cfg(feature = "library")]
use crate::engine::LibvirtLink;
use crate::error::{ErrorKind, Result};

impl LibvirtConnection {
    /// All domains of the host, running or not, in no particular order (`virConnectListAllDomains`, or
    /// `virConnectGetAllDomainStats` with the native engine, and `virDomainGetInfo`).
    ///
    /// A domain that goes away between the two calls is left out. Answers also while a VM of the host hangs.
    pub async fn list_domains(&self) -> Result<Vec<DomainInfo>> {
        self.call("virConnectListAllDomains", None, async |link, in_flight| {
            link.list_domains(in_flight).await
        })
        .await
    }

    /// The states of all domains of the host, running or not, in no particular order and in one round trip
    /// (`virConnectGetAllDomainStats`). vCPUs and memory are not asked for.
    ///
    /// Answers also while a VM of the host hangs. A driver that has no such call is asked as by
    /// [`list_domains`](Self::list_domains), within the same call.
    pub async fn list_domain_states(&self) -> Result<Vec<DomainInfo>> {
        self.call("virConnectGetAllDomainStats", None, |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            match link.list_domain_states(Arc::clone(&in_flight)).await {
                Err(failure) if is_unknown_call(&failure) => link.list_domains(in_flight).await,
                listed => listed,
            }
        })
        .await
    }

    /// Those of these domains that the host has, with their names of now and their states, in no particular order. With the native
    /// engine that is one round trip (`virDomainListGetStats`), however many domains the host has.
    ///
    /// Answers also while a VM of the host hangs. A driver that has no such call answers with none.
    pub async fn domain_states(&self, uuids: Vec<Uuid>) -> Result<Vec<DomainInfo>> {
        if uuids.is_empty() {
            return Ok(Vec::new());
        }
        self.call("virDomainListGetStats", None, |link, in_flight| async move {
            match link.domain_states(in_flight, uuids).await {
                Err(CallFailure::Refused { source, .. }) if lacks_statistics(source.code) => Ok(Vec::new()),
                states => states,
            }
        })
        .await
    }

    /// The counters of all domains of the host, running or not, as far as libvirt has them without asking QEMU: network
    /// interfaces (`virConnectGetAllDomainStats`) and, of those that are active, processor time (`virDomainGetInfo`). Answers also
    /// while a VM of the host hangs.
    pub async fn all_counters(&self) -> Result<Vec<DomainCounters>> {
        self.call("virConnectGetAllDomainStats", None, async |link, in_flight| {
            link.all_counters(in_flight).await
        })
        .await
    }

    /// The counters of one domain that QEMU has: memory, vCPUs, disks (`virDomainListGetStats`). None if the domain is gone, or its driver has no such statistics.
    ///
    /// One such call, or monitor command, at a time is under way for a domain. It hangs for as long as QEMU does, so if the VM
    /// has not answered lately, libvirt is asked first whether any client occupies the monitor.
    ///
    /// # Errors
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if it has been for longer than
    /// [`monitor_busy_after`](crate::CallConfig::monitor_busy_after), or if the daemon left out what QEMU has because another
    /// client's command waits for it.
    pub async fn domain_counters(&self, uuid: Uuid) -> Result<Option<DomainCounters>> {
        let lane = monitor_lane(uuid);
        let busy_after = self.busy_after(lane);
        self.call("virDomainListGetStats", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            let counters = match link.domain_counters(Arc::clone(&in_flight), uuid).await {
                Err(CallFailure::Refused { kind: ErrorKind::VmNotFound, .. }) => return Ok(None),
                Err(CallFailure::Refused { source, .. }) if lacks_statistics(source.code) => return Ok(None),
                counters => counters?,
            };
            let lacks = |counters: &DomainCounters| counters.info.state.is_active() && !counters.has_qemus();
            if counters.as_ref().is_some_and(lacks) {
                match link.monitor_occupied(in_flight, uuid).await {
                    Ok(Some(occupied_for)) => return Err(CallFailure::Busy { occupied_for }),
                    // Free by now, or a driver that has no such counters.
                    Ok(None) | Err(CallFailure::Refused { .. }) => {}
                    Err(failure) => return Err(failure),
                }
            }
            Ok(counters)
        })
        .await
    }

    /// The domain of that name (`virDomainLookupByName`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_by_name(&self, name: &str) -> Result<DomainInfo> {
        let name = name.to_owned();
        self.call("virDomainLookupByName", None, async move |link, in_flight| {
            link.domain_by_name(in_flight, name).await
        })
        .await
    }

    /// The domain of that UUID as it is now (`virDomainLookupByUUID`, `virDomainGetInfo`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_info(&self, uuid: Uuid) -> Result<DomainInfo> {
        self.call("virDomainGetInfo", None, async move |link, in_flight| {
            link.domain_info(in_flight, uuid).await
        })
        .await
    }

    /// How much processor time a domain has used since it was started (`virDomainGetInfo`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_cpu_time(&self, uuid: Uuid) -> Result<Duration> {
        self.call("virDomainGetInfo", None, async move |link, in_flight| {
            link.domain_cpu_time(in_flight, uuid).await
        })
        .await
    }

    /// What a domain's definition says of it (`virDomainGetXMLDesc`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_details(&self, uuid: Uuid) -> Result<DomainDetails> {
        self.call("virDomainGetXMLDesc", None, async move |link, in_flight| {
            link.domain_details(in_flight, uuid).await
        })
        .await
    }

    /// A domain's definition as XML, without passwords (`virDomainGetXMLDesc`): that of now, or the one that holds from the
    /// next start.
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is none.
    pub async fn domain_xml(&self, uuid: Uuid, inactive: bool) -> Result<String> {
        self.call("virDomainGetXMLDesc", None, async move |link, in_flight| {
            link.domain_xml(in_flight, uuid, inactive).await
        })
        .await
    }

    /// Whether a domain is started with its host (`virDomainGetAutostart`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is no such domain.
    pub async fn domain_autostart(&self, uuid: Uuid) -> Result<bool> {
        self.call("virDomainGetAutostart", None, async move |link, in_flight| {
            link.autostart(in_flight, uuid).await
        })
        .await
    }

    /// Sets whether a domain is started with its host (`virDomainSetAutostart`). libvirt does not ask QEMU for that, but waits for
    /// a command that does.
    ///
    /// # Errors
    /// Kind [`OperationInvalid`](crate::ErrorKind::OperationInvalid) for a domain without a definition that is kept.
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if another command has occupied the domain for long;
    /// nothing was sent then.
    pub async fn set_domain_autostart(&self, uuid: Uuid, autostart: bool) -> Result<()> {
        let lane = monitor_lane(uuid);
        let busy_after = self.busy_after(lane);
        self.call("virDomainSetAutostart", Some(lane), |link, in_flight| async move {
            in_flight.proves_nothing();
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            link.set_autostart(in_flight, uuid, autostart).await
        })
        .await
    }

    /// Whether the host keeps a domain's memory in a file, so that its next start goes on from there
    /// (`virDomainHasManagedSaveImage`).
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is no such domain.
    pub async fn domain_is_saved(&self, uuid: Uuid) -> Result<bool> {
        self.call("virDomainHasManagedSaveImage", None, async move |link, in_flight| {
            link.is_saved(in_flight, uuid).await
        })
        .await
    }

    /// Sends a domain a non-maskable interrupt (`virDomainInjectNMI`), on which most systems write a report, or stop with one.
    ///
    /// # Errors
    /// Kind [`VmNotRunning`](crate::ErrorKind::VmNotRunning) when it is shut off.
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if another command has occupied the domain for long;
    /// nothing was sent then.
    pub async fn inject_nmi(&self, uuid: Uuid) -> Result<()> {
        let lane = monitor_lane(uuid);
        let busy_after = self.busy_after(lane);
        self.call("virDomainInjectNMI", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            let answer = link.inject_nmi(Arc::clone(&in_flight), uuid).await;
            explained(&link, &in_flight, uuid, ErrorKind::OperationInvalid, answer).await
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
        let (lane, busy_after) = match action {
            // Destroying has to get through where the monitor hangs, so it stands in no line.
            Lifecycle::Destroy => (None, None),
            Lifecycle::Start | Lifecycle::Restore => (Some(start_lane(uuid)), None),
            _ => (Some(monitor_lane(uuid)), self.busy_after(monitor_lane(uuid))),
        };
        self.call(action.function(), lane, |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            let answer = link.lifecycle(Arc::clone(&in_flight), uuid, action).await;
            if matches!(action, Lifecycle::Start | Lifecycle::Restore) {
                return answer;
            }
            explained(&link, &in_flight, uuid, ErrorKind::OperationInvalid, answer).await
        })
        .await
    }

    /// Whether no client's command is waiting for the domain's QEMU now (`virDomainGetControlInfo`). While one is,
    /// the domain's state may change any moment. Answers from the daemon's memory; a driver that cannot tell, or a
    /// domain that is not running, counts as free.
    ///
    /// # Errors
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if one has been for longer than
    /// [`monitor_busy_after`](crate::CallConfig::monitor_busy_after). Kind [`VmNotFound`](crate::ErrorKind::VmNotFound)
    /// when there is no such domain.
    pub async fn monitor_is_free(&self, uuid: Uuid) -> Result<bool> {
        let limit = self.config().calls.monitor_busy_after;
        let occupied = self
            .call("virDomainGetControlInfo", None, |link, in_flight| async move {
                match link.monitor_occupied(in_flight, uuid).await {
                    Ok(Some(occupied_for)) if occupied_for > limit => Err(CallFailure::Busy { occupied_for }),
                    Err(CallFailure::Refused { kind, .. }) if kind != ErrorKind::VmNotFound => Ok(None),
                    answer => answer,
                }
            })
            .await?;
        Ok(occupied.is_none())
    }

    /// Sends a JSON command to a domain's QEMU monitor and returns its JSON reply, which may be an error
    /// reply (`virDomainQemuMonitorCommand`). One command at a time is under way for a domain.
    ///
    /// libvirt has no time-out for this call: it hangs for as long as QEMU does. So if the VM has not answered
    /// lately, libvirt is asked first whether any client occupies the monitor.
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
        self.call("virDomainQemuMonitorCommand", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            sent();
            link.monitor_command(in_flight, uuid, command).await
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
        let (command, deadline) = (command.to_owned(), self.call_deadline());
        self.call("virDomainQemuAgentCommand", Some(agent_lane(uuid)), |link, in_flight| async move {
            sent();
            link.agent_command(in_flight, uuid, command, deadline).await
        })
        .await
    }

    /// Lends the connection to a blocking closure, on a thread for such calls, for what of libvirt's
    /// API has no method here: the C library's own, with its feature `library`. `operation` names it in errors and logs.
    ///
    /// Only a host whose engine is the library has it. With the engine `auto` that is a host with a driver inside the library, such
    /// as `test:///`; for one with a daemon set [`Engine::Library`](crate::Engine::Library), in the configuration of the host or of
    /// all hosts.
    ///
    /// # Errors
    /// [`TransportError::NeedsLibrary`](crate::TransportError::NeedsLibrary) where the engine is another; nothing was sent.
    ///
    /// Deadline, limits and metrics are those of every other call. The closure cannot be stopped: one that
    /// overruns its deadline makes the connection suspect, as it carries one call at a time.
    #[cfg(feature = "library")]
    pub async fn run_blocking<T, F>(&self, operation: &'static str, call: F) -> Result<T>
    where
        F: FnOnce(&virt::connect::Connect) -> std::result::Result<T, virt::error::Error> + Send + 'static,
        T: Send + 'static,
    {
        self.call(operation, None, |link, in_flight| async move {
            match &*link {
                LibvirtLink::Library(link) => link.run_blocking(in_flight, call).await,
                #[cfg(feature = "native")]
                LibvirtLink::Native(_) => Err(CallFailure::NeedsLibrary),
            }
        })
        .await
    }

    /// The labels in the metadata of each of these domains (`virDomainGetMetadata`, one round trip a domain; it
    /// never waits for QEMU). Domains without labels, and those that are gone, have none.
    ///
    /// They stand in an element of the namespace [`LABELS_NAMESPACE`]:
    ///
    /// ```xml
    /// <metadata>
    ///   <labels xmlns="urn:atp:labels:1"><label key="role" value="web"/></labels>
    /// </metadata>
    /// ```
    pub async fn domain_labels(&self, uuids: Vec<Uuid>) -> Result<HashMap<Uuid, BTreeMap<String, String>>> {
        let found = self
            .call("virDomainGetMetadata", None, async move |link, in_flight| {
                link.domain_metadata(in_flight, uuids, LABELS_NAMESPACE).await
            })
            .await?;
        Ok(found.into_iter().map(|(uuid, xml)| (uuid, read_labels(&xml))).collect())
    }
}

/// Whether the driver has no statistics, or none of one domain, or not by the flag that is asked with.
fn lacks_statistics(code: u32) -> bool {
    [NO_SUPPORT, INVALID_ARG, ARGUMENT_UNSUPPORTED].contains(&code)
}

/// Whether the driver does not have the call at all. Other refusals, such as of an argument, are of one that has it.
fn is_unknown_call(failure: &CallFailure) -> bool {
    matches!(failure, CallFailure::Refused { source, .. } if source.code == NO_SUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TransportConfig;
    use crate::domain::error_numbers::OPERATION_UNSUPPORTED;
    use crate::engine::error::call_failure;
    use crate::error::LibvirtError;
    use crate::host::HostInfo;
    use crate::manager::TransportManager;

    #[test]
    fn only_a_driver_without_the_call_is_asked_in_another_way() {
        let failure =
            |code| call_failure(LibvirtError { code, domain: 10, level: 2, message: String::new() });
        assert!(is_unknown_call(&failure(NO_SUPPORT)));
        assert!(!is_unknown_call(&failure(ARGUMENT_UNSUPPORTED)));
        assert!(!is_unknown_call(&failure(OPERATION_UNSUPPORTED)));
    }

    #[tokio::test]
    async fn the_monitor_of_a_vm_that_does_not_exist_is_not_free() {
        let manager = TransportManager::new(TransportConfig::default());
        manager.add_host(HostInfo::from_uri("demo", "test:///default")).await.unwrap();
        let look = async |lease: LibvirtConnection| {
            let domain = lease.list_domains().await?[0].uuid;
            Ok((lease.monitor_is_free(domain).await?, lease.monitor_is_free(Uuid::from_u128(7)).await))
        };
        let looked: Result<_> = manager.execute_on_host("demo", look).await;
        let (is_free, missing) = looked.unwrap();
        assert!(is_free, "this driver cannot tell");
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::VmNotFound);
    }
}
