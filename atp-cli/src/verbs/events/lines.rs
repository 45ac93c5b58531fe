//! Events of VMs, one line each.

use anstyle::Style;
use atp_transport::{ConnectError, HostId, WatchItem};

use crate::json;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::render::target_name;
use crate::terminal::{DIM, ERROR, WARNING, line, styled};

/// Writes items in one format.
#[derive(Debug)]
pub(crate) struct ItemWriter {
    format: OutputFormat,
    /// In a JSON array: whether it has an item yet.
    begun: bool,
}

impl ItemWriter {
    /// A writer in this format.
    pub(crate) fn new(format: OutputFormat) -> Self {
        ItemWriter { format, begun: false }
    }

    /// Writes one item.
    pub(crate) fn write(&mut self, item: &WatchItem, output: &mut Output) {
        match self.format {
            OutputFormat::Jsonl => output.write(&json::line(item)),
            OutputFormat::Json => {
                let before = if std::mem::replace(&mut self.begun, true) { ",\n" } else { "[\n" };
                output.write(&format!("{before}{}", json::compact(item)));
            }
            OutputFormat::Table | OutputFormat::Csv | OutputFormat::Name => output.write(&lines(item)),
        }
    }

    /// Writes the end.
    pub(crate) fn finish(self, output: &mut Output) {
        if self.format == OutputFormat::Json {
            output.write(if self.begun { "\n]\n" } else { "[]\n" });
        }
    }
}

/// An item for people: its time, host and VM, and text.
fn lines(item: &WatchItem) -> String {
    match item {
        WatchItem::Present { host, at, domains } => {
            let now = |style: Style, vm: Option<&str>, text: &str| row(*at, host, vm, style, text);
            let mut text = now(DIM, None, "watched from now on");
            for domain in domains.iter() {
                text += &now(DIM, Some(&domain.name), &format!("is {}", domain.state));
            }
            text
        }
        WatchItem::Event { host, at, event } => {
            row(*at, host, Some(&event.name), Style::new(), &event.kind.to_string())
        }
        WatchItem::Gap { host, at } => {
            row(*at, host, None, WARNING, "connection lost; events from now on are missed")
        }
        WatchItem::Unreachable { host, at, error } => {
            row(*at, host, None, ERROR, &format!("cannot be watched: {}", reason(error)))
        }
        WatchItem::Removed { host, at } => row(*at, host, None, DIM, "no longer watched"),
        WatchItem::Missed { count } => {
            format!("{}\n", styled(WARNING, format!("{count} items came too fast and were dropped here")))
        }
        other => json::line(other),
    }
}

/// Why a host cannot be reached.
pub(super) fn reason(error: &ConnectError) -> String {
    let source = error.source.as_ref().map(|source| format!(": {}", source.message));
    format!("{}{}", error.reason, source.unwrap_or_default())
}

fn row(at: std::time::SystemTime, host: &HostId, vm: Option<&str>, style: Style, text: &str) -> String {
    let time = humantime::format_rfc3339_millis(at);
    format!("{time}  {}  {}\n", target_name(Some(host), vm), styled(style, line(text.trim_end())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use atp_transport::ErrorKind;
    use atp_transport::domain::{DomainEvent, DomainEventKind, DomainInfo, DomainState, LifecycleChange};

    use super::*;

    fn plain(item: &WatchItem) -> String {
        anstream::adapter::strip_str(&lines(item)).to_string()
    }

    #[test]
    fn items_are_lines_for_people() {
        let host: HostId = "h1".parse().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let uuid = serde_json::from_str("\"00000000-0000-0000-0000-000000000001\"").unwrap();
        let domain = DomainInfo::new("web\u{1b}[2J", uuid, DomainState::ShutOff);
        let present = WatchItem::Present { host: host.clone(), at, domains: Arc::from([domain]) };
        let text = plain(&present);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("1970-01-01T00:00:01.500Z  h1/web") && text.contains("is shut off"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");

        let event = DomainEvent { name: "web".into(), uuid, kind: DomainEventKind::Reboot };
        let event = WatchItem::Event { host: host.clone(), at, event };
        assert_eq!(plain(&event), "1970-01-01T00:00:01.500Z  h1/web  reboot\n");
        let error = Arc::new(ConnectError::new(ErrorKind::ConnectionRefused, "nobody listens"));
        let unreachable = plain(&WatchItem::Unreachable { host, at, error });
        assert!(unreachable.ends_with("h1  cannot be watched: nobody listens\n"), "{unreachable}");
        assert!(plain(&WatchItem::Missed { count: 7 }).starts_with("7 items"));
    }

    #[test]
    fn every_item_and_event_is_on_the_page() {
        const PAGE: &str = include_str!("../../../../docs/cli.md");
        let (from, to) = (PAGE.find("### QEMU").unwrap(), PAGE.find("### The rest").unwrap());
        let page = &PAGE[from..to];
        let host: HostId = "h1".parse().unwrap();
        let at = SystemTime::UNIX_EPOCH;
        let uuid = serde_json::from_str("\"00000000-0000-0000-0000-000000000001\"").unwrap();
        let (text, word) = (String::new, || "x".into());
        let kinds = [
            DomainEventKind::Lifecycle { change: LifecycleChange::Started, detail: word() },
            DomainEventKind::Reboot,
            DomainEventKind::Agent { connected: true, reason: word() },
            DomainEventKind::BlockJob { disk: text(), job: word(), status: word() },
            DomainEventKind::DeviceAdded { device: text() },
            DomainEventKind::DeviceRemoved { device: text() },
            DomainEventKind::DeviceRemovalFailed { device: text() },
            DomainEventKind::Watchdog { action: word() },
            DomainEventKind::IoError { path: text(), device: text(), action: word(), reason: text() },
            DomainEventKind::Monitor { name: text(), details: None },
        ];
        let events = kinds.map(|kind| {
            let event = DomainEvent { name: "web".into(), uuid, kind };
            WatchItem::Event { host: host.clone(), at, event }
        });
        let error = Arc::new(ConnectError::new(ErrorKind::ConnectionRefused, "nobody listens"));
        let others = [
            WatchItem::Present { host: host.clone(), at, domains: Arc::from([]) },
            WatchItem::Gap { host: host.clone(), at },
            WatchItem::Unreachable { host: host.clone(), at, error },
            WatchItem::Removed { host: host.clone(), at },
            WatchItem::Missed { count: 7 },
        ];
        for item in events.iter().chain(&others) {
            let item = serde_json::to_value(item).unwrap();
            let fields = item.as_object().unwrap();
            let words = ["item", "event"].iter().filter_map(|&tag| fields.get(tag)?.as_str());
            for word in words {
                assert!(page.contains(&format!("`{word}`")), "{word}");
            }
            for field in fields.keys() {
                let (in_table, in_example) = (format!("`{field}`"), format!("\"{field}\":"));
                assert!(page.contains(&in_table) || page.contains(&in_example), "{field}");
            }
        }
    }
}
