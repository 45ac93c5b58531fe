//! The calls on a monitor's link: replies are matched by id, events go to their readers.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::{broadcast, oneshot};

use super::codec::{Content, Frame, Skipped};
use super::config::{Oversized, SocketConfig};
use super::end::Ended;
use super::end::{LinkEnd, SendError};
use super::events::{MonitorEvent, MonitorEvents, MonitorNotice};
use super::outbox::Outbox;

/// The link to one monitor.
pub(super) struct Monitor {
    config: SocketConfig,
    calls: Mutex<Calls>,
    ended: Ended,
}

struct Calls {
    next_id: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// None when the link has ended.
    events: Option<broadcast::Sender<MonitorNotice>>,
}

type Answer = Result<String, SendError>;

/// The fields that identify a message that has no id at its end.
#[derive(Deserialize)]
struct Message {
    id: Option<Value>,
    event: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// The entry of a call in `waiting`, removed when its caller goes away, so that a late reply is dropped.
struct Waiting<'m> {
    monitor: &'m Monitor,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.monitor.calls.lock().waiting.remove(&self.id);
    }
}

impl Monitor {
    pub(super) fn new(config: SocketConfig, ended: Ended) -> Self {
        let events = Some(broadcast::Sender::new(config.event_buffer.clamp(1, SocketConfig::MOST_EVENTS)));
        let calls = Calls { next_id: 1, waiting: BTreeMap::new(), events };
        Monitor { config, calls: Mutex::new(calls), ended }
    }

    /// Sends a command, a JSON object without an id, and waits for its reply.
    ///
    /// Cancel safe: a late reply is dropped.
    pub(super) async fn send(&self, outbox: &Outbox, command: &str, sent: impl FnOnce()) -> Answer {
        let (answer, answered) = oneshot::channel();
        let waiting = {
            let mut calls = self.calls.lock();
            if calls.events.is_none() {
                return Err(SendError::Ended { end: self.ended.reason(), sent: false });
            }
            let id = calls.next_id;
            calls.next_id += 1;
            calls.waiting.insert(id, answer);
            Waiting { monitor: self, id }
        };
        let id = format!(r#"{{"id":{},"#, waiting.id);
        let rest = command.trim_start().strip_prefix('{').unwrap_or(command);
        outbox.put(&[id.as_bytes(), rest.as_bytes(), b"\n"]).await;
        sent();
        let answer = answered.await;
        // The task that answered, or ended the link, has removed the entry.
        std::mem::forget(waiting);
        answer.unwrap_or_else(|_| Err(SendError::Ended { end: self.ended.reason(), sent: true }))
    }

    /// The events from now on.
    pub(super) fn events(&self) -> Result<MonitorEvents, LinkEnd> {
        let calls = self.calls.lock();
        let events = calls.events.as_ref().ok_or_else(|| self.ended.reason())?;
        Ok(MonitorEvents::new(events.subscribe(), self.ended.clone()))
    }

    /// Handles a line from the peer.
    pub(super) fn receive(&self, frame: Frame) -> Result<(), LinkEnd> {
        match frame.content {
            Content::Text(text) => self.message(text),
            Content::NotText(begins) => Err(LinkEnd::not_a_message(&begins)),
            Content::TooLong(skipped) => self.too_long(&skipped),
        }
    }

    /// Passes a reply to its caller, which parses it. Here only the caller is determined.
    fn message(&self, text: String) -> Result<(), LinkEnd> {
        let id = match id_at_end(&text) {
            Some(id) => Some(id),
            None => {
                let not_a_message = || LinkEnd::not_a_message(text.as_bytes());
                // serde would also accept a list of the right length.
                if !text.starts_with('{') {
                    return Err(not_a_message());
                }
                let message: Message = serde_json::from_str(&text).map_err(|_| not_a_message())?;
                if message.event.is_some() {
                    self.event(&text);
                    return Ok(());
                }
                match message.id {
                    Some(id) => id.as_u64(),
                    // QEMU could not find the id in a command that it could not parse.
                    None if message.error.is_some() => self.calls.lock().only(),
                    None => None,
                }
            }
        };
        // Not under the lock: the task that is woken may want it at once.
        let waiting = id.and_then(|id| self.calls.lock().waiting.remove(&id));
        match waiting {
            // An error means that the caller has just left.
            Some(waiting) => drop(waiting.send(Ok(text))),
            None => tracing::debug!(size = text.len(), "a reply without a waiting caller was dropped"),
        }
        Ok(())
    }

    fn event(&self, text: &str) {
        let calls = self.calls.lock();
        let Some(events) = calls.events.as_ref().filter(|events| events.receiver_count() > 0) else { return };
        let notice = if text.len() > self.config.max_event {
            MonitorNotice::Gap { missed: 1 }
        } else {
            match serde_json::from_str::<MonitorEvent>(text) {
                Ok(event) => MonitorNotice::Event(event),
                Err(_) => MonitorNotice::Gap { missed: 1 },
            }
        };
        // An error means that the last reader has just left.
        let _left = events.send(notice);
    }

    /// Finds the call of a reply of which only the ends are kept.
    fn too_long(&self, skipped: &Skipped) -> Result<(), LinkEnd> {
        let limit = self.config.max_reply;
        let mut calls = self.calls.lock();
        if is_event(&skipped.head) {
            if let Some(events) = &calls.events {
                // An error means that there is no reader.
                let _unread = events.send(MonitorNotice::Gap { missed: 1 });
            }
            return Ok(());
        }
        let id = match id_within(skipped) {
            None if calls.waiting.len() > 1 => return Err(LinkEnd::TooLong { limit }),
            None => calls.only(),
            id => id,
        };
        let waiting = id.and_then(|id| calls.waiting.remove(&id));
        drop(calls);
        if let Some(waiting) = waiting {
            let size = skipped.size;
            // An error means that the caller has just left.
            let _left = waiting.send(Err(SendError::TooLarge { size, limit }));
        }
        match self.config.oversized {
            Oversized::Skip => Ok(()),
            Oversized::Disconnect => Err(LinkEnd::TooLong { limit }),
        }
    }

    /// Fails all callers that wait, because the link has ended.
    pub(super) fn end(&self) {
        let mut calls = self.calls.lock();
        calls.events = None;
        calls.waiting.clear();
    }
}

impl Calls {
    /// The call under way, if there is exactly one.
    fn only(&self) -> Option<u64> {
        let mut ids = self.waiting.keys();
        ids.next().copied().filter(|_| ids.next().is_none())
    }
}

/// Whether a line with this beginning is an event: QEMU writes the time first.
fn is_event(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let head = head.trim_start_matches(['{', ' ']);
    head.starts_with("\"timestamp\"") || head.starts_with("\"event\"")
}

/// An upper bound for the length of an id at the end of a reply.
const ID_ROOM: usize = 48;

/// The id at the very end of a reply, where QEMU writes it. Valid JSON has nothing else there that looks like it: the
/// last brace is the message's own, and in a string the quotes would have backslashes.
fn id_at_end(text: &str) -> Option<u64> {
    let end = &text[text.floor_char_boundary(text.len().saturating_sub(ID_ROOM))..];
    let (_, id) = end.trim_end().strip_suffix('}')?.rsplit_once("\"id\"")?;
    number(id)
}

/// The id in the kept part of a reply that is too long: at its end, or at its beginning, where errors have it.
fn id_within(skipped: &Skipped) -> Option<u64> {
    let at_end = id_at_end(&String::from_utf8_lossy(&skipped.tail));
    at_end.or_else(|| {
        let head = String::from_utf8_lossy(&skipped.head);
        let (id, _) =
            head.trim_start().strip_prefix('{')?.trim_start().strip_prefix("\"id\"")?.split_once(',')?;
        number(id)
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim_start_matches([':', ' ']).trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_of_a_reply_is_found_at_its_ends_only() {
        for (part, id) in [
            (r#"…aaaa"}, "id": 17}"#, Some(17)),
            (r#"…aaaa"},"id":17}"#, Some(17)),
            (r#"{"id": 9, "error": {"class"#, Some(9)),
            (r#"…"id": 17}"#, Some(17)),
            (r#"…"id": 18446744073709551615}"#, Some(u64::MAX)),
            (r#"…{"id": 17}}"#, None),
            (r#"…"a \"id\": 17}"}"#, None),
            (r#"…"id": "libvirt-3"}"#, None),
            ("…aaaa\"}", None),
            ("", None),
        ] {
            let skipped = Skipped { size: 1, head: part.into(), tail: part.into() };
            assert_eq!(id_within(&skipped), id, "{part}");
        }
    }

    #[test]
    fn every_event_buffer_size_is_valid() {
        for event_buffer in [0, usize::MAX] {
            let config = SocketConfig { event_buffer, ..SocketConfig::default() };
            let monitor = Monitor::new(config, Ended::default());
            assert!(monitor.events().is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_monitor_panic(text in r#"\PC{0,40}|\{("id"|"event"|"error"|"return"|[:,\[\]{}0-9a]){0,10}\}?"#) {
            let monitor = Monitor::new(SocketConfig::default(), Ended::default());
            let _events = monitor.events();
            let _end = monitor.receive(Frame { after_sentinel: false, content: Content::Text(text.clone()) });
            let skipped = Skipped { size: 1, head: text.clone().into(), tail: text.into() };
            let _end = monitor.receive(Frame { after_sentinel: false, content: Content::TooLong(skipped) });
        }
    }
}
