//! The operations of a link: one call each, or a few that belong together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use atp_rpc::agent::AgentTimeout;
use atp_rpc::domain::{ControlState, Metadata, affect, list as listed_by, xml as definition};
use atp_rpc::job::JobState;
use atp_rpc::message::Value;
use atp_rpc::snapshot;
use atp_rpc::stats::{DomainStats, flag, group};
use atp_rpc::{CallError, Connection, RemoteDomain, RemoteSnapshot, Stream};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::channel::Channel;
use super::domain_events::Watching;
use super::failure::{call_failure, missing, stream_failure};
use super::{Held, NativeLink};
use crate::connection::connector::CallFailure;
use crate::domain::error_numbers::{NO_DOMAIN, NO_DOMAIN_SNAPSHOT};
use crate::domain::{
    AfterRevert, Definition, DomainCounters, DomainDetails, DomainInfo, DomainState, Figure, Figures,
    Hypervisor, JobProgress, Lifecycle, RawImage, Snapshot, StateReason, Version, read_snapshot,
};
use crate::engine::error::without_nul;
use crate::engine::listing::{StateAndReason, lacks_call, lacks_metadata, note_saved, without_asking};
use crate::engine::{Answer, ByteDevice, EventSink, Inbox};

/// What a screenshot may be ahead of its reader, bytes: a few of libvirt's packets.
const READ_AHEAD: usize = 1 << 20;

impl NativeLink {
    pub(crate) async fn lib_version(&self, token: impl Send + 'static) -> Answer<Version> {
        let version = self.holding(token).lib_version().await.map_err(call_failure)?;
        Ok(to_version(version))
    }

    pub(crate) async fn hypervisor(&self, token: impl Send + 'static) -> Answer<Hypervisor> {
        let on = self.holding(token);
        let kind = on.driver_type().await.map_err(call_failure)?;
        let version = to_version(on.version().await.map_err(call_failure)?);
        Ok(Hypervisor { kind, version })
    }

    pub(crate) async fn hostname(&self, token: impl Send + 'static) -> Answer<String> {
        self.holding(token).hostname().await.map_err(call_failure)
    }

    pub(crate) async fn capabilities(&self, token: impl Send + 'static) -> Answer<String> {
        self.holding(token).capabilities().await.map_err(call_failure)
    }

    pub(crate) async fn list_domains(&self, token: impl Send + 'static) -> Answer<Vec<DomainInfo>> {
        list(&self.holding(token)).await.map_err(call_failure)
    }

    pub(crate) async fn list_domain_states(&self, token: impl Send + 'static) -> Answer<Vec<DomainInfo>> {
        states(&self.holding(token), &[]).await.map_err(call_failure)
    }

    pub(crate) async fn domain_states(
        &self,
        token: impl Send + 'static,
        uuids: Vec<Uuid>,
    ) -> Answer<Vec<DomainInfo>> {
        let domains: Vec<_> = uuids.into_iter().map(RemoteDomain::of).collect();
        states(&self.holding(token), &domains).await.map_err(call_failure)
    }

    pub(crate) async fn all_counters(&self, token: impl Send + 'static) -> Answer<Vec<DomainCounters>> {
        let on = self.holding(token);
        // The group of the processor time is not among them: newer daemons ask QEMU for some of it.
        let groups = group::STATE | group::INTERFACE;
        let mut all: Vec<DomainCounters> = match on.domain_stats(&[], groups, flag::NOWAIT).await {
            Ok(stats) => stats.into_iter().map(counters).collect(),
            // A driver without that, or without the flag.
            Err(error) if refused_as(&error, lacks_call) => {
                let listed = list(&on).await.map_err(call_failure)?;
                listed.into_iter().map(DomainCounters::of).collect()
            }
            Err(error) => return Err(call_failure(error)),
        };
        let mut active: Vec<_> = all.iter_mut().filter(|counters| counters.info.state.is_active()).collect();
        let domains: Vec<_> = active.iter().map(|counters| RemoteDomain::of(counters.info.uuid)).collect();
        let infos = on.domain_infos(&domains).await.map_err(call_failure)?;
        for (counters, info) in active.iter_mut().zip(infos) {
            match info {
                Ok(info) => {
                    counters.cpu_time = Some(info.cpu_time);
                    counters.info.vcpus = Some(info.vcpus);
                    counters.info.memory_kib = Some(info.memory_kib);
                    counters.info.max_memory_kib = Some(info.max_memory_kib);
                }
                Err(error) if error.remote().is_some() => {}
                Err(error) => return Err(call_failure(error)),
            }
        }
        Ok(all)
    }

    pub(crate) async fn domain_counters(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<Option<DomainCounters>> {
        let on = self.holding(token);
        let groups = group::STATE | group::BALLOON | group::VCPU | group::BLOCK;
        let stats = on.domain_stats(&[RemoteDomain::of(uuid)], groups, flag::NOWAIT).await;
        Ok(stats.map_err(call_failure)?.into_iter().next().map(counters))
    }

    pub(crate) async fn domain_by_name(
        &self,
        token: impl Send + 'static,
        name: String,
    ) -> Answer<DomainInfo> {
        without_nul(&name)?;
        let on = self.holding(token);
        let domain = on.domain_by_name(&name).await.map_err(call_failure)?;
        info(&on, domain).await.map_err(call_failure)
    }

    pub(crate) async fn domain_info(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<DomainInfo> {
        let on = self.holding(token);
        let domain = on.domain_by_uuid(uuid).await.map_err(call_failure)?;
        info(&on, domain).await.map_err(call_failure)
    }

    pub(crate) async fn domain_cpu_time(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<Duration> {
        let info = self.holding(token).domain_info(&RemoteDomain::of(uuid)).await;
        Ok(info.map_err(call_failure)?.cpu_time)
    }

    pub(crate) async fn domain_details(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<DomainDetails> {
        let on = self.holding(token);
        details(&on, uuid).await.map_err(call_failure)
    }

    pub(crate) async fn domain_metadata(
        &self,
        token: impl Send + 'static,
        uuids: Vec<Uuid>,
        namespace: &'static str,
    ) -> Answer<HashMap<Uuid, String>> {
        let on = self.holding(token);
        let which = Metadata::Element { namespace };
        let mut found = HashMap::with_capacity(uuids.len());
        for uuid in uuids {
            match on.domain_metadata(&RemoteDomain::of(uuid), which, affect::CURRENT).await {
                Ok(xml) => drop(found.insert(uuid, xml)),
                Err(error) if refused_as(&error, lacks_metadata) => {}
                Err(error) => return Err(call_failure(error)),
            }
        }
        Ok(found)
    }

    pub(crate) async fn domain_xml(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        inactive: bool,
    ) -> Answer<String> {
        let flags = if inactive { definition::INACTIVE } else { 0 };
        self.holding(token).domain_xml(&RemoteDomain::of(uuid), flags).await.map_err(call_failure)
    }

    pub(crate) async fn autostart(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<bool> {
        self.holding(token).domain_autostart(&RemoteDomain::of(uuid)).await.map_err(call_failure)
    }

    pub(crate) async fn set_autostart(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        autostart: bool,
    ) -> Answer<()> {
        let on = self.holding(token);
        on.set_domain_autostart(&RemoteDomain::of(uuid), autostart).await.map_err(call_failure)
    }

    pub(crate) async fn is_saved(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<bool> {
        self.holding(token).domain_is_saved(&RemoteDomain::of(uuid)).await.map_err(call_failure)
    }

    pub(crate) async fn inject_nmi(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<()> {
        self.holding(token).inject_nmi(&RemoteDomain::of(uuid)).await.map_err(call_failure)
    }

    pub(crate) async fn snapshots(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<Vec<Snapshot>> {
        let on = self.holding(token);
        snapshots(&on, &RemoteDomain::of(uuid)).await.map_err(call_failure)
    }

    pub(crate) async fn create_snapshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        xml: String,
        disk_only: bool,
        quiesce: bool,
    ) -> Answer<()> {
        without_nul(&xml)?;
        let on = self.holding(token);
        let asked = [
            (disk_only, snapshot::create::DISK_ONLY | snapshot::create::ATOMIC),
            (quiesce, snapshot::create::QUIESCE),
        ];
        let flags = asked.into_iter().filter(|(is_asked, _)| *is_asked).fold(0, |all, (_, flag)| all | flag);
        let created = on.create_snapshot(&RemoteDomain::of(uuid), &xml, flags).await;
        created.map(drop).map_err(call_failure)
    }

    pub(crate) async fn revert_to_snapshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        name: String,
        then: AfterRevert,
    ) -> Answer<()> {
        without_nul(&name)?;
        let which = RemoteSnapshot { name, domain: RemoteDomain::of(uuid) };
        let flags = match then {
            AfterRevert::AsThen => 0,
            AfterRevert::Start => snapshot::revert::RUNNING,
            AfterRevert::Pause => snapshot::revert::PAUSED,
        };
        self.holding(token).revert_to_snapshot(&which, flags).await.map_err(call_failure)
    }

    pub(crate) async fn delete_snapshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        name: String,
        children: bool,
    ) -> Answer<()> {
        without_nul(&name)?;
        let which = RemoteSnapshot { name, domain: RemoteDomain::of(uuid) };
        let flags = if children { snapshot::delete::CHILDREN } else { 0 };
        self.holding(token).delete_snapshot(&which, flags).await.map_err(call_failure)
    }

    pub(crate) async fn lifecycle(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        action: Lifecycle,
    ) -> Answer<()> {
        let (on, domain) = (self.holding(token), RemoteDomain::of(uuid));
        let asked = match action {
            Lifecycle::Start | Lifecycle::Restore => on.start_domain(&domain).await,
            Lifecycle::Shutdown => on.shut_domain_down(&domain, 0).await,
            Lifecycle::Reboot => on.reboot_domain(&domain, 0).await,
            Lifecycle::Reset => on.reset_domain(&domain).await,
            Lifecycle::Destroy => on.destroy_domain(&domain, 0).await,
            Lifecycle::Suspend => on.suspend_domain(&domain).await,
            Lifecycle::Resume => on.resume_domain(&domain).await,
            Lifecycle::Wakeup => on.wake_domain(&domain).await,
            Lifecycle::Save => on.save_domain(&domain).await,
        };
        asked.map_err(call_failure)
    }

    pub(crate) async fn monitor_occupied(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<Option<Duration>> {
        let info = self.holding(token).domain_control_info(&RemoteDomain::of(uuid)).await;
        let info = info.map_err(call_failure)?;
        Ok((info.state == ControlState::Occupied).then_some(info.for_time))
    }

    pub(crate) async fn job_progress(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<Option<JobProgress>> {
        let job = self.holding(token).domain_job_info(&RemoteDomain::of(uuid)).await;
        let job = job.map_err(call_failure)?;
        let is_under_way = matches!(job.state, JobState::Bounded | JobState::Unbounded);
        Ok(JobProgress::of(job.data.total, job.data.remaining).filter(|_| is_under_way))
    }

    pub(crate) async fn monitor_command(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        command: String,
    ) -> Answer<String> {
        without_nul(&command)?;
        let on = self.holding(token);
        on.monitor_command(&RemoteDomain::of(uuid), &command).await.map_err(call_failure)
    }

    pub(crate) async fn agent_command(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        command: String,
        deadline: Instant,
    ) -> Answer<String> {
        without_nul(&command)?;
        let (on, domain) = (self.holding(token), RemoteDomain::of(uuid));
        let timeout = AgentTimeout::After(deadline.saturating_duration_since(Instant::now()));
        let reply = on.agent_command(&domain, &command, timeout).await.map_err(call_failure)?;
        reply.ok_or_else(|| missing("reply of the agent"))
    }

    pub(crate) async fn screenshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        screen: u32,
        max_bytes: usize,
        deadline: Instant,
    ) -> Answer<RawImage> {
        let (on, domain) = (self.holding(token), RemoteDomain::of(uuid));
        let opened = on.screenshot(&domain, screen, max_bytes.saturating_add(READ_AHEAD)).await;
        let (mime, stream) = opened.map_err(call_failure)?;
        let mime = mime.ok_or_else(|| missing("form of the picture"))?;
        take(mime, stream, max_bytes, deadline).await
    }

    pub(crate) async fn watch_domains(
        &self,
        token: impl Send + 'static,
        sink: Arc<dyn EventSink>,
        monitor: bool,
    ) -> Answer<Vec<DomainInfo>> {
        let on = self.holding(token);
        let watching = Watching::begin(&on, sink, monitor).await.map_err(call_failure)?;
        // It is the first and only one on this connection.
        let _one = self.held.set(Held::Events { _watching: watching });
        list(&on).await.map_err(call_failure)
    }

    pub(crate) async fn open_device(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        device: ByteDevice,
        force: bool,
        inbox: Arc<dyn Inbox>,
    ) -> Answer<()> {
        device.name().map_or(Ok(()), without_nul)?;
        let channel = Channel::open(&self.holding(token), uuid, &device, force, inbox).await;
        // It is the first and only one on this connection.
        let _one = self.held.set(Held::Channel(channel.map_err(call_failure)?));
        Ok(())
    }

    pub(crate) async fn channel_send(&self, token: impl Send + 'static, bytes: Vec<u8>) -> Answer<()> {
        let sent = self.channel()?.send(bytes).await;
        drop(token);
        sent.map_err(stream_failure)
    }

    pub(crate) async fn channel_finish(&self, token: impl Send + 'static) -> Answer<()> {
        let finished = self.channel()?.finish().await;
        drop(token);
        match finished {
            Some(result) => result.map_err(stream_failure),
            None => Err(CallFailure::Lost { sent: false, source: None }),
        }
    }

    fn channel(&self) -> Answer<&Channel> {
        match self.held.get() {
            Some(Held::Channel(channel)) => Ok(channel),
            _ => Err(CallFailure::Lost { sent: false, source: None }),
        }
    }
}

fn to_version(version: atp_rpc::host::Version) -> Version {
    let atp_rpc::host::Version { major, minor, release } = version;
    let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Version { major: part(major), minor: part(minor), release: part(release) }
}

fn counters(stats: DomainStats) -> DomainCounters {
    let figure = |value| match value {
        Value::Int(number) => u64::try_from(number).ok().map(Figure::Number),
        Value::UInt(number) => Some(Figure::Number(number.into())),
        Value::Long(number) => u64::try_from(number).ok().map(Figure::Number),
        Value::ULong(number) => Some(Figure::Number(number)),
        Value::Text(text) => Some(Figure::Text(text)),
        Value::Double(_) | Value::Bool(_) => None,
    };
    let values = stats.values.0.into_iter();
    let figures = values.filter_map(|parameter| Some((parameter.name, figure(parameter.value)?)));
    let RemoteDomain { name, uuid, id } = stats.domain;
    let id = u32::try_from(id).ok();
    Figures(figures.collect())
        .counters(DomainInfo { id, ..DomainInfo::new(name, uuid, DomainState::NoState) })
}

/// All domains with their states and the reasons for them, in one round trip.
async fn states(on: &Connection, of: &[RemoteDomain]) -> Result<Vec<DomainInfo>, CallError> {
    let listed = on.domain_stats(of, group::STATE, flag::NOWAIT).await?.into_iter().map(|stats| {
        let number = |name| stats.values.number(name);
        let state = number("state.state").and_then(|number| u32::try_from(number).ok());
        let state = state.map_or(DomainState::NoState, DomainState::from_number);
        let reason = number("state.reason").and_then(|number| i32::try_from(number).ok());
        DomainInfo {
            id: u32::try_from(stats.domain.id).ok(),
            reason: reason.and_then(|number| StateReason::from_number(state, number)),
            ..DomainInfo::new(stats.domain.name, stats.domain.uuid, state)
        }
    });
    Ok(listed.collect())
}

/// All domains, in two round trips. One that goes away between being listed and being asked is left out.
async fn list(on: &Connection) -> Result<Vec<DomainInfo>, CallError> {
    // With the states of all and their reasons; a driver without that, or without the flag, is asked for those of each.
    let (domains, known): (Vec<_>, Vec<_>) = match states(on, &[]).await {
        Ok(states) => {
            let domain = |info: DomainInfo| {
                let id = info.id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
                (RemoteDomain { name: info.name, uuid: info.uuid, id }, Some((info.state, info.reason)))
            };
            states.into_iter().map(domain).unzip()
        }
        Err(error) if refused_as(&error, lacks_call) => {
            on.list_domains(0).await?.into_iter().map(|domain| (domain, None)).unzip()
        }
        Err(error) => return Err(error),
    };
    let is_off =
        |known: &Option<StateAndReason>| known.is_none_or(|(state, _)| state == DomainState::ShutOff);
    let saved = async {
        match known.iter().any(is_off) {
            true => managed_saves(on).await,
            false => Ok(HashSet::new()),
        }
    };
    let (infos, saved) = both(on.domain_infos(&domains), saved).await?;
    let mut listed = Vec::new();
    for ((domain, info), known) in domains.into_iter().zip(infos).zip(known) {
        let info = match info {
            Ok(info) => info_with(on, domain, info, known).await,
            Err(error) => Err(error),
        };
        match info {
            Ok(mut info) => {
                note_saved(&mut info, &saved);
                listed.push(info);
            }
            Err(error) if refused_as(&error, |code| code == NO_DOMAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

/// Makes two calls side by side. If both fail, the error is that of one that was sent: with the connection, the other may be lost
/// while it waits for its turn.
async fn both<A, B>(
    one: impl Future<Output = Result<A, CallError>>,
    other: impl Future<Output = Result<B, CallError>>,
) -> Result<(A, B), CallError> {
    match tokio::join!(one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(CallError::Lost { sent: false, .. }), Err(error)) => Err(error),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// The domains that are shut off and whose memory the host keeps.
async fn managed_saves(on: &Connection) -> Result<HashSet<Uuid>, CallError> {
    match on.list_domains(listed_by::MANAGED_SAVE).await {
        Ok(domains) => Ok(domains.into_iter().map(|domain| domain.uuid).collect()),
        // A driver that saves no memory.
        Err(error) if refused_as(&error, lacks_call) => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

/// Whether the daemon refused the call with such a code.
fn refused_as(error: &CallError, is_such: impl FnOnce(u32) -> bool) -> bool {
    error.remote().is_some_and(|error| is_such(error.code.cast_unsigned()))
}

/// A domain as it is now.
async fn info(on: &Connection, domain: RemoteDomain) -> Result<DomainInfo, CallError> {
    let info = on.domain_info(&domain).await?;
    info_with(on, domain, info, None).await
}

/// A domain as its info says, with what is known of its state.
async fn info_with(
    on: &Connection,
    domain: RemoteDomain,
    info: atp_rpc::domain::DomainInfo,
    known: Option<StateAndReason>,
) -> Result<DomainInfo, CallError> {
    let (state, reason) = match without_asking(to_state(info.state), known) {
        Some(known) => known,
        None => state(on, &domain).await?,
    };
    Ok(DomainInfo {
        id: u32::try_from(domain.id).ok(),
        reason,
        vcpus: Some(info.vcpus),
        memory_kib: Some(info.memory_kib),
        max_memory_kib: Some(info.max_memory_kib),
        ..DomainInfo::new(domain.name, domain.uuid, state)
    })
}

async fn details(on: &Connection, uuid: Uuid) -> Result<DomainDetails, CallError> {
    let domain = on.domain_by_uuid(uuid).await?;
    let definition = Definition::parse(&on.domain_xml(&domain, 0).await?);
    let persistent = on.domain_is_persistent(&domain).await?;
    let autostart = match on.domain_autostart(&domain).await {
        Ok(autostart) => Some(autostart),
        Err(CallError::Remote { .. }) => None,
        Err(error) => return Err(error),
    };
    let mut info = info(on, domain.clone()).await?;
    if info.state.is_running() {
        info.reason = state(on, &domain).await?.1;
    } else {
        note_saved(&mut info, &managed_saves(on).await?);
    }
    Ok(DomainDetails {
        info,
        persistent: Some(persistent),
        autostart,
        agent: Some(definition.agent),
        title: definition.title,
        graphics: definition.graphics,
    })
}

/// The snapshots of a domain. One that is removed between being listed and being asked for is left out.
async fn snapshots(on: &Connection, domain: &RemoteDomain) -> Result<Vec<Snapshot>, CallError> {
    let is_gone = |error: &CallError| refused_as(error, |code| code == NO_DOMAIN_SNAPSHOT);
    let listed = on.snapshots(domain).await?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let current = match on.current_snapshot(domain).await {
        Ok(current) => Some(current.name),
        Err(error) if is_gone(&error) => None,
        Err(error) => return Err(error),
    };
    let mut snapshots = Vec::with_capacity(listed.len());
    for snapshot in listed {
        match on.snapshot_xml(&snapshot).await {
            Ok(xml) => snapshots.push(read_snapshot(&snapshot.name, &xml, current.as_deref())),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(snapshots)
}

/// The state of a domain, and the reason for it.
async fn state(on: &Connection, domain: &RemoteDomain) -> Result<StateAndReason, CallError> {
    let (state, reason) = on.domain_state(domain).await?;
    let state = to_state(state);
    Ok((state, StateReason::from_number(state, reason)))
}

fn to_state(state: atp_rpc::domain::DomainState) -> DomainState {
    use atp_rpc::domain::DomainState as Wire;
    match state {
        Wire::NoState | Wire::Unknown(_) => DomainState::NoState,
        Wire::Running => DomainState::Running,
        Wire::Blocked => DomainState::Blocked,
        Wire::Paused => DomainState::Paused,
        Wire::ShuttingDown => DomainState::ShuttingDown,
        Wire::ShutOff => DomainState::ShutOff,
        Wire::Crashed => DomainState::Crashed,
        Wire::PmSuspended => DomainState::PmSuspended,
    }
}

/// Reads until the end, the most bytes, or the deadline: by then the caller is gone. A stream that is dropped before
/// its end is aborted.
async fn take(mime: String, mut stream: Stream, max_bytes: usize, deadline: Instant) -> Answer<RawImage> {
    let mut bytes = Vec::new();
    loop {
        let Ok(chunk) = timeout_at(deadline, stream.recv()).await else { break };
        let Some(chunk) = chunk.map_err(stream_failure)? else {
            stream.finish().await.map_err(stream_failure)?;
            return Ok(RawImage { mime, bytes, complete: true });
        };
        let room = max_bytes - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(RawImage { mime, bytes, complete: false })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use atp_fleet::{Fleet, FleetOptions};
    use atp_rpc::ConnectOptions;

    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    /// Round trips one after another: what passes of virtual time, in units of the network's.
    async fn round_trips<T>(work: impl Future<Output = T>) -> (T, u128) {
        let began = Instant::now();
        let result = work.await;
        (result, (began.elapsed().as_millis() + RTT.as_millis() / 2) / RTT.as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_with_200_vms_is_connected_to_and_listed_in_few_round_trips() {
        for (max_client_requests, most) in [(5, 13), (1, 17)] {
            let options =
                FleetOptions { hosts: 1, vms: 200, rtt: RTT, max_client_requests, ..Default::default() };
            let fleet = Fleet::in_memory(options).unwrap();
            let host = fleet.host(1).unwrap();
            let uri = "qemu+tcp://127.0.1.1/system".parse().unwrap();
            let options = ConnectOptions { measure: false, ..ConnectOptions::default() };
            let open = Connection::over(host.connect(), true, &uri, &options);
            let (connection, to_open) = round_trips(open).await;
            let link = NativeLink { held: OnceLock::new(), connection: connection.unwrap() };
            let (listed, to_list) = round_trips(link.list_domains(())).await;
            assert_eq!(listed.unwrap().len(), 200);
            // And one for TCP.
            let all = 1 + to_open + to_list;
            assert!(
                all <= most,
                "{to_open} to open and {to_list} to list, with {max_client_requests} requests"
            );
        }
    }
}
