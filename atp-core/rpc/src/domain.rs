//! Calls that find domains, and read and write what libvirt knows of them. Their errors are those of
//! [`Connection::call`]; of a domain that is not there, code [`NO_DOMAIN`](crate::numbers::code::NO_DOMAIN).

use std::time::Duration;

use uuid::Uuid;

use crate::connection::Connection;
use crate::error::CallError;
use crate::message::RemoteDomain;
use crate::numbers::procedure;
use crate::xdr::{FromXdr, Reader, Result, XdrError};

/// The most domains in a list.
pub(crate) const MAX_DOMAINS: usize = 16_384;

/// A domain's state (`virDomainState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainState {
    /// The hypervisor has no notion of it.
    NoState,
    /// It runs.
    Running,
    /// It waits for a resource.
    Blocked,
    /// It is paused.
    Paused,
    /// It is shutting down.
    ShuttingDown,
    /// It is shut off.
    ShutOff,
    /// It crashed.
    Crashed,
    /// Its own power management suspended it.
    PmSuspended,
    /// A state of later versions.
    Unknown(i32),
}

impl DomainState {
    /// From libvirt's number.
    pub fn from_wire(number: i32) -> Self {
        match number {
            0 => DomainState::NoState,
            1 => DomainState::Running,
            2 => DomainState::Blocked,
            3 => DomainState::Paused,
            4 => DomainState::ShuttingDown,
            5 => DomainState::ShutOff,
            6 => DomainState::Crashed,
            7 => DomainState::PmSuspended,
            other => DomainState::Unknown(other),
        }
    }
}

impl FromXdr for DomainState {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(DomainState::from_wire(i32::read(from)?))
    }
}

/// What is quickly known of a domain (`virDomainInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its state.
    pub state: DomainState,
    /// The most memory it may have, KiB.
    pub max_memory_kib: u64,
    /// The memory it has, KiB.
    pub memory_kib: u64,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// The processor time it has used since it was started.
    pub cpu_time: Duration,
}

impl FromXdr for DomainInfo {
    const MIN_SIZE: usize = 32;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (state, max_memory_kib, memory_kib, vcpus, nanos) = FromXdr::read(from)?;
        let cpu_time = Duration::from_nanos(nanos);
        Ok(DomainInfo { state, max_memory_kib, memory_kib, vcpus, cpu_time })
    }
}

/// What occupies a domain's monitor (`virDomainControlState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlState {
    /// Nothing.
    Free,
    /// A job, which may still take some commands.
    Job,
    /// A command that QEMU has not answered.
    Occupied,
    /// The monitor is of no use.
    Error,
    /// A state of later versions.
    Unknown(u32),
}

/// Whether a domain's monitor takes commands (`virDomainControlInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlInfo {
    /// What occupies it.
    pub state: ControlState,
    /// Of an error: its kind (`virDomainControlErrorReason`).
    pub details: u32,
    /// For how long it has been so.
    pub for_time: Duration,
}

impl FromXdr for ControlInfo {
    const MIN_SIZE: usize = 16;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (state, details, millis) = <(u32, u32, u64)>::read(from)?;
        let state = match state {
            0 => ControlState::Free,
            1 => ControlState::Job,
            2 => ControlState::Occupied,
            3 => ControlState::Error,
            other => ControlState::Unknown(other),
        };
        Ok(ControlInfo { state, details, for_time: Duration::from_millis(millis) })
    }
}

/// Which metadata of a domain is meant (`virDomainMetadataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// Its description.
    Description,
    /// Its title.
    Title,
    /// The element of a namespace.
    Element {
        /// The namespace: a URI.
        namespace: &'a str,
    },
}

impl<'a> Metadata<'a> {
    fn to_wire(self) -> (i32, Option<&'a str>) {
        match self {
            Metadata::Description => (0, None),
            Metadata::Title => (1, None),
            Metadata::Element { namespace } => (2, Some(namespace)),
        }
    }
}

/// Flags that select domains for a list (`virConnectListAllDomainsFlags`). None selects all.
pub mod list {
    /// Running ones.
    pub const ACTIVE: u32 = 1;
    /// Those that are shut off.
    pub const INACTIVE: u32 = 2;
    /// Those with a definition that is kept.
    pub const PERSISTENT: u32 = 4;
    /// Those whose memory the host keeps in a file (managed save).
    pub const MANAGED_SAVE: u32 = 256;
}

/// Flags for a definition (`virDomainXMLFlags`).
pub mod xml {
    /// With passwords.
    pub const SECURE: u32 = 1;
    /// The definition that holds from the next start.
    pub const INACTIVE: u32 = 2;
}

/// Flags that say which of a domain's definitions is meant (`virDomainModificationImpact`).
pub mod affect {
    /// That of now: of a running domain the one it runs with.
    pub const CURRENT: u32 = 0;
    /// The one it runs with.
    pub const LIVE: u32 = 1;
    /// The one that is kept.
    pub const CONFIG: u32 = 2;
}

/// The reply to a request for a list.
struct Listed(Vec<RemoteDomain>);

impl FromXdr for Listed {
    const MIN_SIZE: usize = 8;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let domains = from.list("a list of domains", MAX_DOMAINS)?;
        let _count = u32::read(from)?;
        Ok(Listed(domains))
    }
}

/// A yes or no that the daemon sends as a number.
struct Answer(bool);

impl FromXdr for Answer {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        match i32::read(from)? {
            value @ ..0 => Err(XdrError::Unknown { what: "an answer", value: value.cast_unsigned() }),
            value => Ok(Answer(value != 0)),
        }
    }
}

type Called<T> = std::result::Result<T, CallError>;

impl Connection {
    /// The domains of the host, by [flags](list) (`virConnectListAllDomains`).
    pub async fn list_domains(&self, flags: u32) -> Called<Vec<RemoteDomain>> {
        let Listed(domains) = self.call(procedure::CONNECT_LIST_ALL_DOMAINS, &(1i32, flags)).await?;
        Ok(domains)
    }

    /// The running domain of that number (`virDomainLookupByID`).
    pub async fn domain_by_id(&self, id: i32) -> Called<RemoteDomain> {
        self.call(procedure::DOMAIN_LOOKUP_BY_ID, &id).await
    }

    /// The domain of that name (`virDomainLookupByName`).
    pub async fn domain_by_name(&self, name: &str) -> Called<RemoteDomain> {
        self.call(procedure::DOMAIN_LOOKUP_BY_NAME, &name).await
    }

    /// The domain of that UUID (`virDomainLookupByUUID`).
    pub async fn domain_by_uuid(&self, uuid: Uuid) -> Called<RemoteDomain> {
        self.call(procedure::DOMAIN_LOOKUP_BY_UUID, &uuid).await
    }

    /// A domain's state, and the number of the reason for it, which depends on the state (`virDomainGetState`).
    pub async fn domain_state(&self, domain: &RemoteDomain) -> Called<(DomainState, i32)> {
        self.call(procedure::DOMAIN_GET_STATE, &(domain, 0u32)).await
    }

    /// State, memory and processor time of a domain (`virDomainGetInfo`).
    pub async fn domain_info(&self, domain: &RemoteDomain) -> Called<DomainInfo> {
        self.call(procedure::DOMAIN_GET_INFO, domain).await
    }

    /// As [`domain_info`](Self::domain_info), of each of these domains, in order, with many calls under way at once: it never
    /// waits for QEMU.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn domain_infos(&self, domains: &[RemoteDomain]) -> Called<Vec<Called<DomainInfo>>> {
        self.call_each(procedure::DOMAIN_GET_INFO, domains).await
    }

    /// Whether a domain's monitor takes commands (`virDomainGetControlInfo`). Never waits for QEMU.
    pub async fn domain_control_info(&self, domain: &RemoteDomain) -> Called<ControlInfo> {
        self.call(procedure::DOMAIN_GET_CONTROL_INFO, &(domain, 0u32)).await
    }

    /// A domain's definition, XML, by [flags](xml) (`virDomainGetXMLDesc`).
    pub async fn domain_xml(&self, domain: &RemoteDomain, flags: u32) -> Called<String> {
        self.call(procedure::DOMAIN_GET_XML_DESC, &(domain, flags)).await
    }

    /// A piece of a domain's metadata, of the definition that [flags](affect) mean (`virDomainGetMetadata`). What
    /// is not there is an error of code [`NO_DOMAIN_METADATA`](crate::numbers::code::NO_DOMAIN_METADATA).
    pub async fn domain_metadata(
        &self,
        domain: &RemoteDomain,
        which: Metadata<'_>,
        flags: u32,
    ) -> Called<String> {
        let (kind, namespace) = which.to_wire();
        self.call(procedure::DOMAIN_GET_METADATA, &(domain, kind, namespace, flags)).await
    }

    /// Sets a piece of a domain's metadata, or removes it, in the definitions that [flags](affect) mean
    /// (`virDomainSetMetadata`). An element needs a prefix for its namespace.
    pub async fn set_domain_metadata(
        &self,
        domain: &RemoteDomain,
        which: Metadata<'_>,
        content: Option<&str>,
        prefix: Option<&str>,
        flags: u32,
    ) -> Called<()> {
        let (kind, namespace) = which.to_wire();
        let arguments = (domain, kind, content, prefix, namespace, flags);
        self.call(procedure::DOMAIN_SET_METADATA, &arguments).await
    }

    /// Whether a domain is started with its host (`virDomainGetAutostart`).
    pub async fn domain_autostart(&self, domain: &RemoteDomain) -> Called<bool> {
        let Answer(answer) = self.call(procedure::DOMAIN_GET_AUTOSTART, domain).await?;
        Ok(answer)
    }

    /// Says whether a domain is started with its host (`virDomainSetAutostart`).
    pub async fn set_domain_autostart(&self, domain: &RemoteDomain, autostart: bool) -> Called<()> {
        self.call(procedure::DOMAIN_SET_AUTOSTART, &(domain, autostart)).await
    }

    /// Whether a domain runs, or is paused (`virDomainIsActive`).
    pub async fn domain_is_active(&self, domain: &RemoteDomain) -> Called<bool> {
        let Answer(answer) = self.call(procedure::DOMAIN_IS_ACTIVE, domain).await?;
        Ok(answer)
    }

    /// Whether a domain's definition is kept when it ends (`virDomainIsPersistent`).
    pub async fn domain_is_persistent(&self, domain: &RemoteDomain) -> Called<bool> {
        let Answer(answer) = self.call(procedure::DOMAIN_IS_PERSISTENT, domain).await?;
        Ok(answer)
    }
}
