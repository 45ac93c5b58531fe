//! The lines of consoles that a run captures: kept for as long as it runs and some time after it, and only the last of them.
//!
//! Each reader has its place among them and nothing else. One that falls behind is told, in the text of each console, that lines are
//! missing.

use std::collections::{HashMap, VecDeque};

use atp_api::{HostId, RunEvent};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The most bytes of lines that are kept of a run, and the most lines.
const MOST_BYTES: usize = 1 << 20;
const MOST_LINES: usize = 10_000;

/// What stands where lines are missing.
const MARK: &str = "--- gap: lines are missing here, which this reader has not read in time ---";

/// The last lines of the consoles of a run, under numbers from 1.
#[derive(Debug)]
pub(super) struct ConsoleLines {
    kept: Mutex<Kept>,
    /// The number of the last line.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The number of lines before those that are kept.
    gone: u64,
    /// The number of the last line of each console that is not kept any more.
    last_gone: HashMap<(HostId, String), u64>,
}

#[derive(Debug)]
struct Line {
    host: HostId,
    vm: String,
    json: String,
}

/// The lines after a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinesAfter {
    /// They, or marks for those that are missing, as events in JSON.
    pub(super) json: Vec<String>,
    /// The number of the last one.
    pub(super) last: u64,
}

impl Default for ConsoleLines {
    fn default() -> Self {
        ConsoleLines { kept: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl ConsoleLines {
    pub(super) fn add(&self, host: &HostId, vm: &str, event: &RunEvent) {
        let Ok(json) = serde_json::to_string(event) else { return };
        let mut kept = self.kept.lock();
        kept.bytes += json.len();
        kept.lines.push_back(Line { host: host.clone(), vm: vm.to_owned(), json });
        while (kept.bytes > MOST_BYTES || kept.lines.len() > MOST_LINES)
            && let Some(line) = kept.lines.pop_front()
        {
            kept.bytes -= line.json.len();
            kept.gone += 1;
            let number = kept.gone;
            kept.last_gone.insert((line.host, line.vm), number);
        }
        self.last.send_modify(|last| *last += 1);
    }

    /// Whether there were any.
    pub(super) fn has_any(&self) -> bool {
        *self.last.borrow() > 0
    }

    /// The lines after this number, at most so many; none if there are no more yet.
    pub(super) fn after(&self, number: u64, most: usize) -> Option<LinesAfter> {
        let kept = self.kept.lock();
        if number < kept.gone {
            let missing = kept.last_gone.iter().filter(|(_, last)| **last > number);
            let mark = |((host, vm), _): (&(HostId, String), &u64)| {
                let event = RunEvent::Console { host: host.clone(), vm: vm.clone(), line: MARK.to_owned() };
                serde_json::to_string(&event).ok()
            };
            return Some(LinesAfter { json: missing.filter_map(mark).collect(), last: kept.gone });
        }
        let from = usize::try_from(number - kept.gone).unwrap_or(usize::MAX);
        let json: Vec<_> = kept.lines.iter().skip(from).take(most).map(|line| line.json.clone()).collect();
        let last = number + json.len() as u64;
        (!json.is_empty()).then_some(LinesAfter { json, last })
    }

    /// Returns when there are lines after this number.
    ///
    /// Cancel safe.
    pub(super) async fn wait(&self, number: u64) {
        let mut last = self.last.subscribe();
        // The sender is here, so that this does not fail.
        let _there = last.wait_for(|last| *last > number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(lines: &ConsoleLines, vm: &str, text: &str) {
        let host: HostId = "h1".parse().unwrap();
        let event = RunEvent::Console { host: host.clone(), vm: vm.to_owned(), line: text.to_owned() };
        lines.add(&host, vm, &event);
    }

    #[tokio::test]
    async fn readers_have_their_places() {
        let lines = ConsoleLines::default();
        assert_eq!(lines.after(0, 10), None);
        ["one", "two", "three"].iter().for_each(|text| line(&lines, "a", text));
        let first = lines.after(0, 2).unwrap();
        assert_eq!((first.json.len(), first.last), (2, 2));
        let rest = lines.after(first.last, 2).unwrap();
        assert!(rest.json[0].contains("three") && rest.last == 3, "{rest:?}");
        assert_eq!(lines.after(3, 2), None);
        lines.wait(2).await;
    }

    #[test]
    fn a_reader_that_falls_behind_is_told_in_each_console_that_lost_lines() {
        let lines = ConsoleLines::default();
        line(&lines, "a", "seen");
        line(&lines, "b", "not seen");
        (0..MOST_LINES).for_each(|_| line(&lines, "c", "x"));
        let gap = lines.after(1, 10).unwrap();
        assert!(
            gap.json.len() == 1 && gap.json[0].contains("\"b\"") && gap.json[0].contains("gap"),
            "{gap:?}"
        );
        assert_eq!(lines.after(gap.last, MOST_LINES * 2).unwrap().json.len(), MOST_LINES);
        line(&lines, "c", &"y".repeat(MOST_BYTES));
        let kept = lines.kept.lock();
        assert!(kept.lines.len() <= 1 && kept.bytes <= MOST_BYTES + 100);
    }
}
