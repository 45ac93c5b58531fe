//! The operations of a link. Each is one blocking call of the C library on a thread, or a few that belong together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::stream::Stream;
use virt_sys as sys;

use super::domain_events::Registration;
use super::link::{CallError, LibraryLink};
use super::stream::ChannelStream;
use super::{control_info, domain_stats};
use crate::domain::error_numbers::{NO_DOMAIN, NO_DOMAIN_SNAPSHOT};
use crate::domain::{
    AfterRevert, Definition, DomainCounters, DomainDetails, DomainInfo, DomainState, Hypervisor, JobProgress,
    Lifecycle, RawImage, Snapshot, Version, read_snapshot,
};
use crate::engine::error::without_nul;
use crate::engine::listing::{StateAndReason, lacks_call, lacks_metadata, note_saved, without_asking};
use crate::engine::{Answer, ByteDevice, EventSink, Inbox};

/// What one read of a screenshot's stream takes at most, bytes: libvirt's own packets are no larger.
const READ_BYTES: usize = 256 * 1024;

impl LibraryLink {
    pub(crate) async fn lib_version(&self, token: impl Send + 'static) -> Answer<Version> {
        self.run(token, |on| Ok(Version::from_number(on.connect.lib_version()?))).await
    }

    pub(crate) async fn hypervisor(&self, token: impl Send + 'static) -> Answer<Hypervisor> {
        self.run(token, |on| {
            let kind = on.connect.driver_type()?;
            Ok(Hypervisor { kind, version: Version::from_number(on.connect.hyp_version()?) })
        })
        .await
    }

    pub(crate) async fn hostname(&self, token: impl Send + 'static) -> Answer<String> {
        self.run(token, |on| Ok(on.connect.hostname()?)).await
    }

    pub(crate) async fn capabilities(&self, token: impl Send + 'static) -> Answer<String> {
        self.run(token, |on| Ok(on.connect.capabilities()?)).await
    }

    pub(crate) async fn list_domains(&self, token: impl Send + 'static) -> Answer<Vec<DomainInfo>> {
        self.run(token, |on| {
            let mut listed = list(&on.connect)?;
            let saved = managed_saves(&on.connect)?;
            listed.iter_mut().for_each(|(info, _)| note_saved(info, &saved));
            let infos = listed.iter().map(|(info, _)| info.clone()).collect();
            on.set_domains(listed.into_iter().map(|(info, domain)| (info.uuid, domain)).collect());
            Ok(infos)
        })
        .await
    }

    pub(crate) async fn list_domain_states(&self, token: impl Send + 'static) -> Answer<Vec<DomainInfo>> {
        self.run(token, |on| {
            let listed = domain_stats::all_states(&on.connect)?;
            let mut known = HashMap::new();
            let mut states = Vec::with_capacity(listed.len());
            for (domain, info) in listed {
                known.insert(info.uuid, Arc::new(domain));
                states.push(info);
            }
            on.set_domains(known);
            Ok(states)
        })
        .await
    }

    pub(crate) async fn domain_states(
        &self,
        token: impl Send + 'static,
        uuids: Vec<Uuid>,
    ) -> Answer<Vec<DomainInfo>> {
        self.run(token, move |on| {
            let mut states = Vec::with_capacity(uuids.len());
            for uuid in uuids {
                let domain = match on.domain(uuid) {
                    Err(error) if error.code().to_raw() == NO_DOMAIN => continue,
                    domain => domain?,
                };
                states.extend(domain_stats::state_if_there(&domain)?);
            }
            Ok(states)
        })
        .await
    }

    pub(crate) async fn all_counters(&self, token: impl Send + 'static) -> Answer<Vec<DomainCounters>> {
        self.run(token, |on| {
            let mut all = match domain_stats::all_counters(&on.connect) {
                // A driver without that, or without the flag.
                Err(error) if lacks_call(error.code().to_raw()) => {
                    list(&on.connect)?.into_iter().map(|(info, _)| DomainCounters::of(info)).collect()
                }
                all => all?,
            };
            for counters in all.iter_mut().filter(|counters| counters.info.state.is_active()) {
                // A domain that has just gone has none.
                if let Ok(info) = on.domain(counters.info.uuid).and_then(|domain| domain.info()) {
                    counters.cpu_time = Some(Duration::from_nanos(info.cpu_time));
                    counters.info.vcpus = Some(info.nr_virt_cpu);
                    counters.info.memory_kib = Some(info.memory);
                    counters.info.max_memory_kib = Some(info.max_mem);
                }
            }
            Ok(all)
        })
        .await
    }

    pub(crate) async fn domain_counters(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<Option<DomainCounters>> {
        self.run(token, move |on| Ok(domain_stats::counters(&*on.domain(uuid)?)?)).await
    }

    pub(crate) async fn domain_by_name(
        &self,
        token: impl Send + 'static,
        name: String,
    ) -> Answer<DomainInfo> {
        without_nul(&name)?;
        self.run(token, move |on| Ok(info(&on.connect.lookup_domain_by_name(&name)?)?)).await
    }

    pub(crate) async fn domain_info(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<DomainInfo> {
        self.run(token, move |on| Ok(info(on.fresh_domain(uuid)?.as_ref())?)).await
    }

    pub(crate) async fn domain_cpu_time(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<Duration> {
        self.run(token, move |on| Ok(Duration::from_nanos(on.domain(uuid)?.info()?.cpu_time))).await
    }

    pub(crate) async fn domain_details(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<DomainDetails> {
        self.run(token, move |on| {
            let domain = on.fresh_domain(uuid)?;
            let definition = Definition::parse(&domain.xml_desc(0)?);
            let mut info = info(&domain)?;
            if info.state.is_running() {
                info.reason = domain_stats::state(&domain)?.1;
            } else {
                note_saved(&mut info, &managed_saves(&on.connect)?);
            }
            Ok(DomainDetails {
                info,
                persistent: Some(domain.is_persistent()?),
                autostart: domain.autostart().ok(),
                agent: Some(definition.agent),
                title: definition.title,
                graphics: definition.graphics,
            })
        })
        .await
    }

    pub(crate) async fn domain_metadata(
        &self,
        token: impl Send + 'static,
        uuids: Vec<Uuid>,
        namespace: &'static str,
    ) -> Answer<HashMap<Uuid, String>> {
        self.run(token, move |on| {
            let element = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
            let mut found = HashMap::with_capacity(uuids.len());
            for uuid in uuids {
                let xml = on.domain(uuid).and_then(|domain| {
                    domain.metadata(element, Some(namespace), sys::VIR_DOMAIN_AFFECT_CURRENT)
                });
                match xml {
                    Ok(xml) => drop(found.insert(uuid, xml)),
                    Err(error) if lacks_metadata(error.code().to_raw()) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(found)
        })
        .await
    }

    pub(crate) async fn domain_xml(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        inactive: bool,
    ) -> Answer<String> {
        let flags = if inactive { sys::VIR_DOMAIN_XML_INACTIVE } else { 0 };
        self.run(token, move |on| Ok(on.domain(uuid)?.xml_desc(flags)?)).await
    }

    pub(crate) async fn autostart(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<bool> {
        self.run(token, move |on| Ok(on.domain(uuid)?.autostart()?)).await
    }

    pub(crate) async fn set_autostart(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        autostart: bool,
    ) -> Answer<()> {
        self.run(token, move |on| {
            on.domain(uuid)?.set_autostart(autostart)?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn is_saved(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<bool> {
        self.run(token, move |on| Ok(on.domain(uuid)?.has_managed_save(0)?)).await
    }

    pub(crate) async fn inject_nmi(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<()> {
        self.run(token, move |on| Ok(control_info::inject_nmi(&*on.domain(uuid)?)?)).await
    }

    pub(crate) async fn snapshots(&self, token: impl Send + 'static, uuid: Uuid) -> Answer<Vec<Snapshot>> {
        self.run(token, move |on| Ok(snapshots(&*on.domain(uuid)?)?)).await
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
        self.run(token, move |on| {
            let alone = sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;
            let asked = [(disk_only, alone), (quiesce, sys::VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE)];
            let flags =
                asked.into_iter().filter(|(is_asked, _)| *is_asked).fold(0, |all, (_, flag)| all | flag);
            on.domain(uuid)?.create_snapshot_xml(&xml, flags)?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn revert_to_snapshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        name: String,
        then: AfterRevert,
    ) -> Answer<()> {
        without_nul(&name)?;
        self.run(token, move |on| {
            let snapshot = Domain::lookup_snapshot_by_name(&*on.domain(uuid)?, &name, 0)?;
            let flags = match then {
                AfterRevert::AsThen => 0,
                AfterRevert::Start => sys::VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING,
                AfterRevert::Pause => sys::VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED,
            };
            Ok(snapshot.revert(flags)?)
        })
        .await
    }

    pub(crate) async fn delete_snapshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        name: String,
        children: bool,
    ) -> Answer<()> {
        without_nul(&name)?;
        self.run(token, move |on| {
            let snapshot = Domain::lookup_snapshot_by_name(&*on.domain(uuid)?, &name, 0)?;
            let flags = if children { sys::VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN } else { 0 };
            Ok(snapshot.delete(flags)?)
        })
        .await
    }

    pub(crate) async fn lifecycle(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        action: Lifecycle,
    ) -> Answer<()> {
        self.run(token, move |on| {
            let domain = on.domain(uuid)?;
            match action {
                Lifecycle::Start | Lifecycle::Restore => domain.create(),
                Lifecycle::Shutdown => domain.shutdown(),
                Lifecycle::Reboot => domain.reboot(0),
                Lifecycle::Reset => domain.reset(),
                Lifecycle::Destroy => domain.destroy(),
                Lifecycle::Suspend => domain.suspend(),
                Lifecycle::Resume => domain.resume(),
                Lifecycle::Wakeup => domain.pm_wakeup(0),
                Lifecycle::Save => domain.managed_save(0),
            }?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn monitor_occupied(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<Option<Duration>> {
        self.run(token, move |on| Ok(control_info::occupied_for(&*on.domain(uuid)?)?)).await
    }

    pub(crate) async fn job_progress(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
    ) -> Answer<Option<JobProgress>> {
        self.run(token, move |on| {
            let job = on.domain(uuid)?.job_info()?;
            let under_way = [sys::VIR_DOMAIN_JOB_BOUNDED, sys::VIR_DOMAIN_JOB_UNBOUNDED];
            let is_under_way = under_way.into_iter().any(|kind| i64::from(kind) == i64::from(job.r#type));
            let amount = |bytes: Option<u64>| bytes.unwrap_or(0);
            let progress = JobProgress::of(amount(job.data_total), amount(job.data_remaining));
            Ok(progress.filter(|_| is_under_way))
        })
        .await
    }

    pub(crate) async fn monitor_command(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        command: String,
    ) -> Answer<String> {
        without_nul(&command)?;
        self.run(token, move |on| Ok(on.domain(uuid)?.qemu_monitor_command(&command, 0)?)).await
    }

    pub(crate) async fn agent_command(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        command: String,
        deadline: Instant,
    ) -> Answer<String> {
        without_nul(&command)?;
        self.run(token, move |on| {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs();
            let seconds = i32::try_from(left.max(1)).unwrap_or(i32::MAX);
            Ok(on.domain(uuid)?.qemu_agent_command(&command, seconds, 0)?)
        })
        .await
    }

    pub(crate) async fn screenshot(
        &self,
        token: impl Send + 'static,
        uuid: Uuid,
        screen: u32,
        max_bytes: usize,
        deadline: Instant,
    ) -> Answer<RawImage> {
        self.run(token, move |on| {
            let domain = on.domain(uuid)?;
            let stream = Stream::new(&on.connect, 0)?;
            let taken = take(&domain, &stream, screen, max_bytes, deadline);
            if matches!(taken, Ok(RawImage { complete: true, .. })) {
                stream.finish()?;
            } else {
                // Left as it is, the daemon would keep the file behind it until the connection is closed. An
                // error means that it is over already.
                let _over = stream.abort();
            }
            Ok(taken?)
        })
        .await
    }

    pub(crate) async fn watch_domains(
        &self,
        token: impl Send + 'static,
        sink: Arc<dyn EventSink>,
        monitor: bool,
    ) -> Answer<Vec<DomainInfo>> {
        self.run(token, move |on| {
            let registration = Registration::ask(&on.connect, &sink, monitor)?;
            // It is the first and only one on this connection.
            let _one = on.events.set(registration);
            Ok(list(&on.connect)?.into_iter().map(|(info, _)| info).collect())
        })
        .await
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
        self.run(token, move |on| {
            let domain = on.connect.lookup_domain_by_uuid(uuid)?;
            let stream = ChannelStream::open(&on.connect, &domain, &device, force, inbox)?;
            // It is the first and only one on this connection.
            let _one = on.channel.set(stream);
            Ok(())
        })
        .await
    }

    pub(crate) async fn channel_send(&self, token: impl Send + 'static, bytes: Vec<u8>) -> Answer<()> {
        self.run(token, move |on| Ok(on.channel.get().ok_or(CallError::Gone)?.send_all(&bytes)?)).await
    }

    pub(crate) async fn channel_finish(&self, token: impl Send + 'static) -> Answer<()> {
        self.run(token, |on| Ok(on.channel.get().ok_or(CallError::Gone)?.finish()?)).await
    }

    /// Lends the connection to a blocking closure.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        &self,
        token: impl Send + 'static,
        call: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        self.run(token, move |on| Ok(call(&on.connect)?)).await
    }
}

/// All domains. One that goes away between being listed and being asked is left out.
fn list(connect: &Connect) -> Result<Vec<(DomainInfo, Arc<Domain>)>, Error> {
    // The reasons of all in one round trip; a driver without that, or without the flag, is asked for each.
    let states = match domain_stats::all_states(connect) {
        Err(error) if lacks_call(error.code().to_raw()) => Vec::new(),
        states => states?,
    };
    let reasons: HashMap<_, _> =
        states.into_iter().map(|(_, info)| (info.uuid, (info.state, info.reason))).collect();
    let mut listed = Vec::new();
    for domain in connect.list_all_domains(0)? {
        let known = reasons.get(&domain.uuid()?).copied();
        match info_with(&domain, known) {
            Ok(info) => listed.push((info, Arc::new(domain))),
            Err(error) if error.code().to_raw() == NO_DOMAIN => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

/// The snapshots of a domain. One that is removed between being listed and being asked for is left out.
fn snapshots(domain: &Domain) -> Result<Vec<Snapshot>, Error> {
    let is_gone = |error: &Error| error.code().to_raw() == NO_DOMAIN_SNAPSHOT;
    let listed = domain.list_all_snapshots(0)?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let current = match domain.current_snapshot(0).and_then(|current| current.name()) {
        Ok(name) => Some(name),
        Err(error) if is_gone(&error) => None,
        Err(error) => return Err(error),
    };
    let mut snapshots = Vec::with_capacity(listed.len());
    for snapshot in listed {
        let name = snapshot.name()?;
        match snapshot.xml_desc(0) {
            Ok(xml) => snapshots.push(read_snapshot(&name, &xml, current.as_deref())),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(snapshots)
}

/// The domains that are shut off and whose memory the host keeps.
fn managed_saves(connect: &Connect) -> Result<HashSet<Uuid>, Error> {
    match connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE) {
        Ok(domains) => domains.iter().map(Domain::uuid).collect(),
        // A driver that saves no memory.
        Err(error) if lacks_call(error.code().to_raw()) => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

/// A domain as it is now.
fn info(domain: &Domain) -> Result<DomainInfo, Error> {
    info_with(domain, None)
}

/// A domain as it is now, with what is known of its state.
fn info_with(domain: &Domain, known: Option<StateAndReason>) -> Result<DomainInfo, Error> {
    let info = domain.info()?;
    let known = without_asking(DomainState::from_number(info.state.to_raw()), known);
    let (state, reason) = match known {
        Some(known) => known,
        None => domain_stats::state(domain)?,
    };
    Ok(DomainInfo {
        id: domain.id(),
        reason,
        vcpus: Some(info.nr_virt_cpu),
        memory_kib: Some(info.memory),
        max_memory_kib: Some(info.max_mem),
        ..DomainInfo::new(domain.name()?, domain.uuid()?, state)
    })
}

/// Reads until the end, the most bytes, or the deadline: by then the caller is gone.
fn take(
    domain: &Domain,
    stream: &Stream,
    screen: u32,
    max_bytes: usize,
    deadline: Instant,
) -> Result<RawImage, Error> {
    let mime = domain.screenshot(stream, screen, 0)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; READ_BYTES.min(max_bytes.max(1))];
    while Instant::now() < deadline {
        // Below 0 are, but for -1, the error: "would block", and a hole. A blocking stream that was not asked
        // for holes knows neither.
        let Ok(read) = usize::try_from(stream.recv(&mut chunk)?) else { break };
        if read == 0 {
            return Ok(RawImage { mime, bytes, complete: true });
        }
        let room = max_bytes - bytes.len();
        bytes.extend_from_slice(&chunk[..read.min(room)]);
        if read > room {
            break;
        }
    }
    Ok(RawImage { mime, bytes, complete: false })
}
