//! What libvirt says about a domain (a virtual machine), as plain data.

#[cfg_attr(
    not(any(feature = "library", feature = "native")),
    expect(dead_code, reason = "no engine reads any")
)]
mod counters;
mod definition;
#[cfg_attr(not(feature = "native"), expect(dead_code, reason = "each engine uses some"))]
pub(crate) mod error_numbers;
mod event;
pub(crate) mod event_words;
mod image;
mod job;
mod labels;
mod snapshot;

pub use atp_api::domain::{
    AfterRevert, AgentChannel, DomainDetails, DomainInfo, DomainState, Graphics, GraphicsKind, Hypervisor,
    Lifecycle, Listener, Snapshot, StateReason, Version,
};
pub use counters::{DiskCounters, DomainCounters, InterfaceCounters};
#[cfg(any(feature = "library", feature = "native"))]
pub(crate) use counters::{Figure, Figures};
pub use definition::Definition;
pub use event::{DomainEvent, DomainEventKind, LifecycleChange};
pub use image::RawImage;
pub use job::JobProgress;
pub use labels::{LABELS_NAMESPACE, read_labels};
#[cfg(any(feature = "library", feature = "native"))]
pub(crate) use snapshot::read_snapshot;
pub use snapshot::{external_snapshot_obstacles, internal_snapshot_obstacles, save_obstacles};
pub(crate) use snapshot::{reverts_external_snapshots, snapshot_xml};
