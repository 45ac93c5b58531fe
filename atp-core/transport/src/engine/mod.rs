//! The engines: what ATP asks of a libvirt daemon, and who asks it.
//!
//! [`LibvirtLink`] is the seam. Its methods are the operations that ATP needs, one request each, at the level of
//! libvirt's API. An engine carries a request out and reports how it ended: a value, or a [`CallFailure`] that is
//! classified already. It holds no policy. Lanes, the check of the monitor, deadlines, limits and the mark that a command
//! was sent stand above it, once, in [`session`](crate::session).
//!
//! Every operation takes a `token`, which the engine keeps until the request is really over, however long after
//! its future was dropped. A request begins when its future is first polled. Dropping the future abandons the request
//! and does not stop it.

mod choice;
pub(crate) mod connector;
#[cfg(feature = "library")]
pub(crate) mod library;
mod listing;
#[cfg(feature = "native")]
mod native;
mod reading;
mod ssh_faults;
pub(crate) mod uri;
#[cfg(feature = "native")]
mod way;

pub(crate) mod error;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::connection::connector::CallFailure;
use crate::domain::{
    AfterRevert, DomainCounters, DomainDetails, DomainEvent, DomainInfo, Hypervisor, JobProgress, Lifecycle,
    RawImage, Snapshot, Version,
};
use crate::error::LibvirtError;
#[cfg(feature = "library")]
use library::LibraryLink;
#[cfg(feature = "native")]
use native::NativeLink;

/// How a request ended.
pub(crate) type Answer<T> = Result<T, CallFailure>;

/// Returns when a connection was closed from outside. It does not keep the connection open.
pub(crate) type Closed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes domain events. Called on a thread of the engine: no method may block.
pub(crate) trait EventSink: Send + Sync + 'static {
    /// Takes one.
    fn take(&self, event: DomainEvent);

    /// So many were lost here.
    #[cfg_attr(
        not(feature = "native"),
        expect(dead_code, reason = "the library has no bound, and loses none")
    )]
    fn missed(&self, count: u64);
}

/// Takes what a channel brings. Called on a thread of the engine: neither method may block.
pub(crate) trait Inbox: Send + Sync + 'static {
    /// Takes bytes. Returns false if there is no room for them, and then the stream is over.
    fn take(&self, bytes: &[u8]) -> bool;

    /// Nothing comes any more: because of an error, or because the far end closed the channel.
    fn ended(&self, error: Option<LibvirtError>);
}

/// A device of a domain that carries bytes both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ByteDevice {
    /// A virtio-serial channel, by its name.
    Channel(String),
    /// A serial console, by its alias; the first one without it.
    Console(Option<String>),
}

impl ByteDevice {
    /// The function that opens it.
    pub(crate) fn function(&self) -> &'static str {
        match self {
            ByteDevice::Channel(_) => "virDomainOpenChannel",
            ByteDevice::Console(_) => "virDomainOpenConsole",
        }
    }

    /// Its name, if it was asked for by one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            ByteDevice::Channel(name) => Some(name),
            ByteDevice::Console(alias) => alias.as_deref(),
        }
    }
}

/// An open connection to a libvirt daemon, by one of the engines. Dropping it closes the connection in the background.
pub enum LibvirtLink {
    /// By libvirt's C library.
    #[cfg(feature = "library")]
    Library(LibraryLink),
    /// By libvirt's wire protocol.
    #[cfg(feature = "native")]
    Native(NativeLink),
}

impl LibvirtLink {
    /// Returns when the engine has noticed that the connection was closed from outside.
    pub(crate) fn closed(&self) -> Closed {
        match *self {
            #[cfg(feature = "library")]
            LibvirtLink::Library(ref link) => Box::pin(link.closed().cancelled_owned()),
            #[cfg(feature = "native")]
            LibvirtLink::Native(ref link) => link.closed(),
        }
    }

    /// Whether [`measure`](Self::measure) has nothing to find out.
    pub(crate) fn is_measured(&self) -> bool {
        match *self {
            #[cfg(feature = "library")]
            LibvirtLink::Library(_) => true,
            #[cfg(feature = "native")]
            LibvirtLink::Native(ref link) => link.is_measured(),
        }
    }

    /// Finds out how many calls in flight the daemon allows on this connection.
    pub(crate) async fn measure(&self) -> usize {
        match *self {
            #[cfg(feature = "library")]
            LibvirtLink::Library(_) => usize::MAX,
            #[cfg(feature = "native")]
            LibvirtLink::Native(ref link) => link.measure().await,
        }
    }

    /// How many calls in flight the daemon allows on this connection; as many as are configured, where the engine cannot tell.
    pub(crate) fn max_in_flight(&self) -> usize {
        match *self {
            #[cfg(feature = "library")]
            LibvirtLink::Library(_) => usize::MAX,
            #[cfg(feature = "native")]
            LibvirtLink::Native(ref link) => link.max_in_flight(),
        }
    }

    /// Whether the socket is open, as far as the engine knows.
    pub(crate) fn is_open(&self) -> bool {
        match *self {
            #[cfg(feature = "library")]
            LibvirtLink::Library(ref link) => link.is_open(),
            #[cfg(feature = "native")]
            LibvirtLink::Native(ref link) => link.is_open(),
        }
    }
}

/// Declares the operations of a link. Each is a method of the same name and arguments in every engine.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl LibvirtLink {
            $(
                $(#[$doc])*
                #[cfg_attr(not(any(feature = "library", feature = "native")), expect(unused_variables, reason = "no engine takes them"))]
                pub(crate) async fn $name(
                    &self,
                    token: impl Send + 'static,
                    $($argument: $type),*
                ) -> Answer<$answer> {
                    match *self {
                        #[cfg(feature = "library")]
                        LibvirtLink::Library(ref link) => link.$name(token, $($argument),*).await,
                        #[cfg(feature = "native")]
                        LibvirtLink::Native(ref link) => link.$name(token, $($argument),*).await,
                    }
                }
            )*
        }
    };
}

operations! {
    /// The version of the daemon's libvirt (`virConnectGetLibVersion`).
    lib_version() -> Version;

    /// The hypervisor and its version (`virConnectGetType`, `virConnectGetVersion`).
    hypervisor() -> Hypervisor;

    /// The host's own name for itself (`virConnectGetHostname`).
    hostname() -> String;

    /// What the host can do, as XML (`virConnectGetCapabilities`).
    capabilities() -> String;

    /// All domains, with vCPUs and memory (`virConnectListAllDomains`, `virDomainGetInfo`). A domain that goes away between
    /// the two calls is left out.
    list_domains() -> Vec<DomainInfo>;

    /// All domains, with their states only, in one round trip (`virConnectGetAllDomainStats`).
    list_domain_states() -> Vec<DomainInfo>;

    /// Those of these domains that there are, with their names of now and their states, in one round trip
    /// (`virDomainListGetStats`). There is at least one of them.
    domain_states(uuids: Vec<Uuid>) -> Vec<DomainInfo>;

    /// The counters of all domains, in one round trip, as far as libvirt has them without asking QEMU
    /// (`virConnectGetAllDomainStats`, and `virDomainGetInfo` where it has no processor time).
    all_counters() -> Vec<DomainCounters>;

    /// The counters of a domain, with those that QEMU has (`virDomainListGetStats`). If another command occupies the monitor,
    /// they are missing; else the call hangs for as long as QEMU does. None of a domain that is gone.
    domain_counters(uuid: Uuid) -> Option<DomainCounters>;

    /// The domain of that name (`virDomainLookupByName`).
    domain_by_name(name: String) -> DomainInfo;

    /// The domain of that UUID as it is now (`virDomainLookupByUUID`, `virDomainGetInfo`).
    domain_info(uuid: Uuid) -> DomainInfo;

    /// How much processor time a domain has used since it was started (`virDomainGetInfo`).
    domain_cpu_time(uuid: Uuid) -> Duration;

    /// What a domain's definition says of it (`virDomainGetXMLDesc`).
    domain_details(uuid: Uuid) -> DomainDetails;

    /// The element of that XML namespace in the metadata of each domain that has one (`virDomainGetMetadata`, one round trip
    /// a domain).
    domain_metadata(uuids: Vec<Uuid>, namespace: &'static str) -> HashMap<Uuid, String>;

    /// A domain's definition (`virDomainGetXMLDesc`): that of now, or the one that holds from the next start.
    domain_xml(uuid: Uuid, inactive: bool) -> String;

    /// Whether a domain is started with its host (`virDomainGetAutostart`).
    autostart(uuid: Uuid) -> bool;

    /// Sets whether a domain is started with its host (`virDomainSetAutostart`).
    set_autostart(uuid: Uuid, autostart: bool) -> ();

    /// Whether the host keeps a domain's memory in a file (`virDomainHasManagedSaveImage`).
    is_saved(uuid: Uuid) -> bool;

    /// Sends a domain a non-maskable interrupt (`virDomainInjectNMI`).
    inject_nmi(uuid: Uuid) -> ();

    /// The snapshots of a domain (`virDomainListAllSnapshots`, `virDomainSnapshotGetXMLDesc`, `virDomainSnapshotCurrent`). One
    /// that goes away between the calls is left out.
    snapshots(uuid: Uuid) -> Vec<Snapshot>;

    /// Makes a snapshot as XML describes it (`virDomainSnapshotCreateXML`).
    create_snapshot(uuid: Uuid, xml: String, disk_only: bool, quiesce: bool) -> ();

    /// Takes a domain back to a snapshot (`virDomainRevertToSnapshot`).
    revert_to_snapshot(uuid: Uuid, name: String, then: AfterRevert) -> ();

    /// Removes a snapshot, with those that were made after it if asked (`virDomainSnapshotDelete`).
    delete_snapshot(uuid: Uuid, name: String, children: bool) -> ();

    /// Asks for a change of a domain's state.
    lifecycle(uuid: Uuid, action: Lifecycle) -> ();

    /// For how long a command of any client has been waiting for a domain's QEMU; none if no command is
    /// (`virDomainGetControlInfo`). The daemon answers from its memory.
    monitor_occupied(uuid: Uuid) -> Option<Duration>;

    /// How far the long job on a domain is; none if there is none (`virDomainGetJobInfo`). It hangs for as long as QEMU does.
    job_progress(uuid: Uuid) -> Option<JobProgress>;

    /// Sends a JSON command to a domain's QEMU monitor (`virDomainQemuMonitorCommand`).
    monitor_command(uuid: Uuid, command: String) -> String;

    /// Sends a JSON command to a domain's guest agent, which gets as many whole seconds to answer as are left until the
    /// deadline, and at least one (`virDomainQemuAgentCommand`).
    agent_command(uuid: Uuid, command: String, deadline: Instant) -> String;

    /// Takes a picture of a domain's screen, reading until its end, `max_bytes` or the deadline (`virDomainScreenshot`).
    screenshot(uuid: Uuid, screen: u32, max_bytes: usize, deadline: Instant) -> RawImage;

    /// Has all domain events go to `sink`, with `monitor` those of QEMU's monitors too, and then lists the domains. For
    /// a link of its own, and once.
    watch_domains(sink: Arc<dyn EventSink>, monitor: bool) -> Vec<DomainInfo>;

    /// Opens a domain's virtio-serial channel or serial console (`virDomainOpenChannel`, `virDomainOpenConsole`). For a
    /// link of its own, and once.
    open_device(uuid: Uuid, device: ByteDevice, force: bool, inbox: Arc<dyn Inbox>) -> ();

    /// Sends bytes on the link's channel; ends when the daemon has taken them all.
    channel_send(bytes: Vec<u8>) -> ();

    /// Ends the link's channel when all that was sent has arrived at the daemon.
    channel_finish() -> ();
}
