//! The events of QEMU's monitors, which are read only while somebody listens to them.

use std::sync::Arc;

use atp_transport::domain::DomainEventKind;
use atp_transport::{WatchItem, WatchOptions};
use tokio_util::task::AbortOnDropHandle;

use super::{as_json, read_vms};
use crate::state::Service;

/// What reads them, over a connection to each host. When the last who listens drops it, these are closed.
pub(super) fn shared(service: &Service) -> Arc<AbortOnDropHandle<()>> {
    let mut shared = service.events().monitors.lock();
    if let Some(reader) = shared.upgrade() {
        return reader;
    }
    let reading = service.clone();
    let reader = tokio::spawn(async move {
        let options = WatchOptions { monitor_events: true, ..WatchOptions::default() };
        read_vms(&reading, options, note).await;
    });
    let reader = Arc::new(AbortOnDropHandle::new(reader));
    *shared = Arc::downgrade(&reader);
    reader
}

/// Notes what the other watch does not report.
fn note(service: &Service, item: WatchItem) {
    if let WatchItem::Event { host, event, .. } = &item
        && matches!(event.kind, DomainEventKind::Monitor { .. })
    {
        let data = as_json(&item);
        service.events().add(Some(host.clone()), Some(event.name.clone()), "qemu", data);
    }
}
