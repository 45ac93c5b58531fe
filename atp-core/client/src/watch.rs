//! The events of VMs through a service: the items that a watch of this program's own would bring.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use atp_api::Targets;
use atp_api::serve::HostView;
use atp_executor::{Selection, WatchedVms};
use atp_transport::{HostId, HostInfo, WatchItem};

use crate::client::Client;
use crate::error::ClientError;
use crate::events::{EventsWanted, ServiceEvents};
use crate::sse::Message;

/// The most selectors that are sent. More are compared here only.
const MOST_SELECTORS: usize = 32;

/// A watch by the service, over connections that it has for all of its clients.
#[derive(Debug)]
pub struct VmEvents {
    events: ServiceEvents,
    watched: WatchedVms,
    told: Told,
}

/// What hosts have reported.
#[derive(Debug, Default)]
struct Told {
    /// Whether a host is watched, as far as it was told.
    hosts: HashMap<HostId, bool>,
    waiting: VecDeque<WatchItem>,
}

impl Client {
    /// The hosts of the service, as far as selectors need to know them.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn host_infos(&self) -> Result<Vec<HostInfo>, ClientError> {
        Ok(self.hosts(&[]).await?.into_iter().map(host_of).collect())
    }

    /// Watches a selection, as far as it is `watched`; `qemu` for the events of monitors too. Must be called within a runtime.
    pub fn vm_events(&self, selection: &Selection, watched: WatchedVms, qemu: bool) -> VmEvents {
        let selectors = Some(Targets::from(selection).selectors).filter(|all| all.len() <= MOST_SELECTORS);
        let wanted = EventsWanted::of(selectors.unwrap_or_default()).with_qemu(qemu);
        VmEvents { events: self.watch(&wanted), watched, told: Told::default() }
    }
}

fn host_of(view: HostView) -> HostInfo {
    let mut host = HostInfo::new(view.id.as_str(), view.address);
    host.groups = view.groups;
    host.labels = view.labels;
    host
}

impl VmEvents {
    /// The next item; none when the service ends the stream.
    ///
    /// # Errors
    /// The service refuses the stream, or was not reached for too long.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<WatchItem>, ClientError> {
        loop {
            while let Some(item) = self.told.waiting.pop_front() {
                if let Some(item) = self.watched.choose(item) {
                    return Ok(Some(item));
                }
            }
            let Some(message) = self.events.next().await? else { return Ok(None) };
            self.told.take(&message);
        }
    }

    /// Which of the VMs were found.
    pub fn watched(&mut self) -> &mut WatchedVms {
        &mut self.watched
    }
}

impl Told {
    fn take(&mut self, message: &Message) {
        // What cannot be read is of a later version, or says where the stream begins.
        match serde_json::from_str::<WatchItem>(&message.data) {
            Ok(item) => {
                let is_watched = match &item {
                    WatchItem::Present { .. } => Some(true),
                    WatchItem::Gap { .. } | WatchItem::Unreachable { .. } => Some(false),
                    _ => None,
                };
                if let (Some(host), Some(is_watched)) = (item.host(), is_watched) {
                    let before = self.hosts.insert(host.clone(), is_watched);
                    // A stream that was resumed begins with what was told before.
                    if message.event == "present" && before == Some(is_watched) {
                        return;
                    }
                }
                self.waiting.push_back(item);
            }
            // Events of the service are missing, and so of all hosts.
            Err(_) if message.event == "gap" => {
                let watched = self.hosts.iter_mut().filter(|(_, is_watched)| **is_watched);
                for (host, is_watched) in watched {
                    *is_watched = false;
                    self.waiting.push_back(WatchItem::Gap { host: host.clone(), at: SystemTime::now() });
                }
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(messages: &[(&str, &str)]) -> Vec<String> {
        let mut told = Told::default();
        for (event, data) in messages {
            told.take(&Message { id: None, event: (*event).to_owned(), data: (*data).to_owned() });
        }
        told.waiting.iter().map(|item| serde_json::to_value(item).unwrap()["item"].to_string()).collect()
    }

    const PRESENT: &str = r#"{"item":"present","host":"h1","at":"2026-01-01T00:00:00.000Z","domains":[]}"#;
    const GAP: &str = r#"{"item":"gap","host":"h1","at":"2026-01-01T00:00:00.000Z"}"#;

    #[test]
    fn a_stream_that_is_resumed_tells_nothing_twice() {
        let begun = ("begun", "{}");
        assert_eq!(told(&[begun, ("present", PRESENT), begun, ("present", PRESENT)]), ["\"present\""]);
        // A list that comes while the host is watched shows states that no event has told.
        assert_eq!(told(&[("present", PRESENT), ("host", PRESENT)]), ["\"present\"", "\"present\""]);
        let lost = told(&[("present", PRESENT), ("gap", GAP), begun, ("present", PRESENT)]);
        assert_eq!(lost, ["\"present\"", "\"gap\"", "\"present\""]);
    }

    #[test]
    fn a_gap_of_the_service_is_a_gap_of_each_host_that_was_watched() {
        let gap = ("gap", r#"{"reason":"the service was started anew since"}"#);
        assert_eq!(told(&[gap]), [""; 0]);
        let restarted = told(&[("present", PRESENT), gap, gap, ("present", PRESENT)]);
        assert_eq!(restarted, ["\"present\"", "\"gap\"", "\"present\""]);
    }
}
