//! Domain events: what the daemon is asked for on a connection, and the task that passes it on.

use std::sync::Arc;

use atp_rpc::{CallError, Connection, EventId, EventItem, EventKind, Events};
use tokio::task::JoinHandle;

use crate::domain::event_words as words;
use crate::domain::{DomainEvent, DomainEventKind};
use crate::engine::EventSink;

/// What is asked for. The first is the one that cannot be done without.
const KINDS: [EventId; 9] = [
    EventId::Lifecycle,
    EventId::Reboot,
    EventId::AgentLifecycle,
    EventId::BlockJob2,
    EventId::DeviceAdded,
    EventId::DeviceRemoved,
    EventId::DeviceRemovalFailed,
    EventId::Watchdog,
    EventId::IoErrorReason,
];

/// Most events that wait for the task. It only hands them on, so that more wait only while the runtime has no thread
/// for it; those that are too many are counted.
const CAPACITY: usize = 16_384;

/// The events of one connection on their way to a sink. Dropping it withdraws what was asked for.
pub(super) struct Watching {
    reader: JoinHandle<()>,
}

impl Watching {
    /// Asks for all kinds of events, with `monitor` also for those of QEMU's monitors. A kind that the daemon does not
    /// know never comes.
    ///
    /// # Errors
    /// Not even changes of state are to be had.
    pub(super) async fn begin(
        on: &Connection,
        sink: Arc<dyn EventSink>,
        monitor: bool,
    ) -> Result<Self, CallError> {
        let events = on.events(CAPACITY);
        for (n, kind) in KINDS.into_iter().enumerate() {
            match on.watch(&events, kind, None).await {
                Ok(()) => {}
                Err(error @ CallError::Remote { .. }) if n > 0 => {
                    tracing::warn!(?kind, %error, "the daemon does not send some events");
                }
                Err(error) => return Err(error),
            }
        }
        if monitor {
            match on.watch_monitor(&events, None, None).await {
                Ok(()) => {}
                Err(error @ CallError::Remote { .. }) => {
                    tracing::warn!(%error, "the daemon does not send QEMU's own events");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Watching { reader: tokio::spawn(pass_on(events, sink)) })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn pass_on(mut events: Events, sink: Arc<dyn EventSink>) {
    while let Some(item) = events.next().await {
        match item {
            EventItem::Event(event) => {
                if let Some(kind) = to_kind(event.kind) {
                    sink.take(DomainEvent { name: event.domain.name, uuid: event.domain.uuid, kind });
                }
            }
            EventItem::Gap { missed } => sink.missed(missed),
        }
    }
}

/// The event in our words; none for kinds that are not asked for.
fn to_kind(kind: EventKind) -> Option<DomainEventKind> {
    Some(match kind {
        EventKind::Lifecycle { event, detail } => {
            let (change, detail) = words::lifecycle(event, detail);
            DomainEventKind::Lifecycle { change, detail: detail.into() }
        }
        EventKind::Reboot => DomainEventKind::Reboot,
        EventKind::Agent { state, reason } => DomainEventKind::Agent {
            connected: words::agent_connected(state),
            reason: words::agent_reason(reason).into(),
        },
        EventKind::BlockJob { disk, job, status } => DomainEventKind::BlockJob {
            disk,
            job: words::block_job(job).into(),
            status: words::job_status(status).into(),
        },
        EventKind::DeviceAdded { device } => DomainEventKind::DeviceAdded { device },
        EventKind::DeviceRemoved { device } => DomainEventKind::DeviceRemoved { device },
        EventKind::DeviceRemovalFailed { device } => DomainEventKind::DeviceRemovalFailed { device },
        EventKind::Watchdog { action } => {
            DomainEventKind::Watchdog { action: words::watchdog_action(action).into() }
        }
        EventKind::IoError { path, device, action, reason } => {
            DomainEventKind::IoError { path, device, action: words::io_error_action(action).into(), reason }
        }
        EventKind::Monitor { name, details, .. } => {
            DomainEventKind::Monitor { name, details: details.filter(|details| !details.is_empty()) }
        }
        EventKind::ControlError | EventKind::MetadataChange { .. } => return None,
    })
}
