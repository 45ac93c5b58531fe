//! What happens to the domains of many hosts, as one stream.
//!
//! Each host has a connection for it that no pool counts, and a task that opens it again when it is lost. After
//! each opening all domains are listed, so that a subscriber that follows states by events has them right again; what
//! happened in between libvirt does not report, and a gap item says so.

mod feed;
mod host;
mod item;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::connector::LibvirtConnector;
use crate::error::{Result, TransportError};
use crate::manager::TransportManager;
use host::Watch;

pub use item::WatchItem;

/// How domains are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// Most items kept for a subscriber that does not take them; then the oldest go, and
    /// [`WatchItem::Missed`] tells how many. Default 4096, at most 65,536.
    pub buffer: usize,
    /// Whether the events of QEMU's monitors are wanted too. They are many, and their names and contents are
    /// QEMU's own. Default no.
    pub monitor_events: bool,
    /// How long after a connection was opened the domains are listed once more; the list is sent if it has changed by
    /// more than the events since have reported. A daemon that has just started finds out over some seconds which of its VMs
    /// still run, and sends no event for those that do not. Default 3 s.
    pub settle: Duration,
}

impl WatchOptions {
    /// Room for items is set aside beforehand, so there is an end to it.
    const MOST_KEPT: usize = 1 << 16;
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions { buffer: 4096, monitor_events: false, settle: Duration::from_secs(3) }
    }
}

impl TransportManager<LibvirtConnector> {
    /// Watches the domains of these hosts. Connections are opened in the background, one to each host.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// ```no_run
    /// use atp_transport::{TransportManager, WatchItem, WatchOptions};
    ///
    /// async fn tell(manager: &TransportManager) -> atp_transport::Result<()> {
    ///     let mut events = manager.watch_domains(&["host1", "host2"], &WatchOptions::default())?;
    ///     while let Some(item) = events.next().await {
    ///         match item {
    ///             WatchItem::Event { host, event, .. } => println!("{host}/{}: {}", event.name, event.kind),
    ///             WatchItem::Gap { host, .. } => println!("{host}: connection lost"),
    ///             other => println!("{other:?}"),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`TransportError::UnknownHost`].
    pub fn watch_domains<I: AsRef<str>>(&self, hosts: &[I], options: &WatchOptions) -> Result<DomainEvents> {
        let hosts = hosts
            .iter()
            .map(|host| Ok::<_, TransportError>(self.pool(host.as_ref())?.dedicated()))
            .collect::<Result<Vec<_>>>()?;
        let mut options = options.clone();
        options.buffer = options.buffer.clamp(1, WatchOptions::MOST_KEPT);
        let (items, receiver) = broadcast::channel(options.buffer);
        let watches = hosts.into_iter().map(|host| {
            let watch = Watch::new(host, items.clone(), options.clone());
            AbortOnDropHandle::new(tokio::spawn(watch.run()))
        });
        Ok(DomainEvents { receiver, _watches: watches.collect() })
    }
}

/// The events of many hosts' domains. When the last of its [subscribers](Self::subscribe) is dropped, nothing of
/// it is left.
#[derive(Debug)]
pub struct DomainEvents {
    receiver: broadcast::Receiver<WatchItem>,
    _watches: Arc<[AbortOnDropHandle<()>]>,
}

impl DomainEvents {
    /// The next item; none when all hosts were removed from the manager. A subscriber that does not ask
    /// delays nothing.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<WatchItem> {
        match self.receiver.recv().await {
            Ok(item) => Some(item),
            Err(RecvError::Lagged(count)) => Some(WatchItem::Missed { count }),
            Err(RecvError::Closed) => None,
        }
    }

    /// Another subscriber, with a buffer of its own: it gets what comes from now on, over the same connections.
    pub fn subscribe(&self) -> DomainEvents {
        DomainEvents { receiver: self.receiver.resubscribe(), _watches: self._watches.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TransportConfig;

    #[tokio::test]
    async fn a_buffer_of_any_size_has_room_for_some() {
        let manager = TransportManager::new(TransportConfig::default());
        for buffer in [0, usize::MAX] {
            let options = WatchOptions { buffer, ..WatchOptions::default() };
            let mut events = manager.watch_domains::<&str>(&[], &options).unwrap();
            assert!(events.next().await.is_none());
        }
    }
}
