//! What is known of a console that is captured.

use std::collections::VecDeque;

use atp_api::{ConsoleGap, ConsoleReport, KernelFinding, millis};
use atp_protocol::console::{Lines, kernel_fault};
use regex::Regex;
use tokio::time::Instant;

use super::stream::ConsoleItem;

/// The most text that is kept for a search or for evidence, bytes. Older lines go first.
const MOST_TEXT: usize = 1 << 20;
/// The most lines of it: each costs memory also if it is empty.
const MOST_LINES: usize = 1 << 14;

/// Counts what a console writes, keeps its last lines, and looks for faults of the kernel in them.
#[derive(Debug)]
pub(in crate::verbs) struct ConsoleRecord {
    began: Instant,
    lines: Lines,
    report: ConsoleReport,
    /// The first fault of each kind of which none is among the first faults of the report.
    later_faults: Vec<KernelFinding>,
    /// When the gap that has not ended began.
    gap: Option<Instant>,
    /// The last complete lines.
    kept: VecDeque<String>,
    kept_bytes: usize,
    most_text: usize,
    /// The number of lines before those that are kept.
    gone: u64,
}

/// A place in the text of a console: what is before it has been looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::verbs) struct ConsolePlace {
    /// The number of the line.
    line: u64,
    /// The byte in that line.
    byte: usize,
}

impl ConsoleRecord {
    /// One that keeps the last lines.
    pub(in crate::verbs) fn new() -> Self {
        ConsoleRecord::keeping(MOST_TEXT)
    }

    /// One that keeps no lines: the consoles of a whole fleet may be captured at once.
    pub(in crate::verbs) fn without_lines() -> Self {
        ConsoleRecord::keeping(0)
    }

    fn keeping(most_text: usize) -> Self {
        ConsoleRecord {
            began: Instant::now(),
            lines: Lines::default(),
            report: ConsoleReport::default(),
            later_faults: Vec::new(),
            gap: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            most_text,
            gone: 0,
        }
    }

    /// Takes what happens on the console, and returns the lines that are complete now. A gap ends the line that it is in.
    pub(in crate::verbs) fn take(&mut self, item: &ConsoleItem<'_>) -> Vec<String> {
        let mut complete = Vec::new();
        match item {
            ConsoleItem::Bytes(bytes) => {
                self.report.bytes += bytes.len() as u64;
                self.lines.push(bytes, |line| complete.push(line.to_owned()));
            }
            ConsoleItem::Open => self.end_gap(),
            ConsoleItem::Gap(reason) => {
                complete.extend(self.lines.finish());
                self.begin_gap(reason.clone());
            }
            ConsoleItem::Off(_) | ConsoleItem::Closed => {}
        }
        complete.iter().for_each(|line| self.keep(line.clone()));
        complete
    }

    /// Ends the line that is not complete, as nothing more is captured.
    pub(in crate::verbs) fn finish(&mut self) -> Option<String> {
        let last = self.lines.finish()?;
        self.keep(last.clone());
        Some(last)
    }

    /// What is known now. A gap that has not ended has no length.
    pub(in crate::verbs) fn report(&self) -> ConsoleReport {
        self.report.clone()
    }

    /// The first faults, and at least one of each kind that was reported.
    pub(in crate::verbs) fn faults(&self) -> impl Iterator<Item = &KernelFinding> {
        self.report.first_faults.iter().chain(&self.later_faults)
    }

    /// The last lines, the one that is not complete among them.
    pub(in crate::verbs) fn tail(&self, lines: usize) -> Vec<String> {
        let unfinished = self.lines.unfinished().into_owned();
        let all = self.kept.iter().cloned().chain((!unfinished.is_empty()).then_some(unfinished));
        let count = all.clone().count();
        all.skip(count.saturating_sub(lines)).collect()
    }

    /// Looks for a line that matches, from this place on. Returns the place after the match, or the place from which on to look
    /// when more was written.
    pub(in crate::verbs) fn find(
        &self,
        regex: &Regex,
        from: ConsolePlace,
    ) -> Result<ConsolePlace, ConsolePlace> {
        let from = match from.line < self.gone {
            true => ConsolePlace { line: self.gone, byte: 0 },
            false => from,
        };
        let skipped = usize::try_from(from.line - self.gone).unwrap_or(usize::MAX);
        let unfinished = self.lines.unfinished();
        let last = std::iter::once(unfinished.as_ref());
        let texts = self.kept.iter().map(String::as_str).chain(last).skip(skipped);
        let mut next = from;
        for (number, text) in (from.line..).zip(texts) {
            let byte = if number == from.line { from.byte } else { 0 };
            if byte <= text.len()
                && text.is_char_boundary(byte)
                && let Some(found) = regex.find_at(text, byte)
            {
                return Ok(ConsolePlace { line: number, byte: found.end() });
            }
            next = ConsolePlace { line: number, byte };
        }
        Err(next)
    }

    fn keep(&mut self, line: String) {
        self.report.lines += 1;
        if let Some(fault) = kernel_fault(&line) {
            self.report.faults += 1;
            let is_among_first = self.report.first_faults.len() < ConsoleReport::MOST_KEPT;
            if is_among_first || self.faults().all(|found| found.fault != fault) {
                let found = KernelFinding { fault, at_ms: millis(self.began.elapsed()), line: line.clone() };
                let list =
                    if is_among_first { &mut self.report.first_faults } else { &mut self.later_faults };
                list.push(found);
            }
        }
        self.kept_bytes += line.len();
        self.kept.push_back(line);
        while (self.kept_bytes + self.kept.len() > self.most_text || self.kept.len() > MOST_LINES)
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.len();
            self.gone += 1;
        }
    }

    fn begin_gap(&mut self, reason: String) {
        let now = Instant::now();
        self.gap = Some(now);
        self.report.gaps += 1;
        if self.report.first_gaps.len() < ConsoleReport::MOST_KEPT {
            let at_ms = millis(now.duration_since(self.began));
            self.report.first_gaps.push(ConsoleGap { at_ms, lasted_ms: None, reason });
        }
    }

    fn end_gap(&mut self) {
        let Some(began) = self.gap.take() else { return };
        let is_last_kept = self.report.gaps as usize == self.report.first_gaps.len();
        if let Some(gap) = self.report.first_gaps.last_mut().filter(|_| is_last_kept) {
            gap.lasted_ms = Some(millis(began.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use atp_api::KernelFault;

    use super::*;

    fn record(items: &[ConsoleItem<'_>]) -> (ConsoleRecord, Vec<String>) {
        let mut record = ConsoleRecord::new();
        let lines = items.iter().flat_map(|item| record.take(item)).collect();
        (record, lines)
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_ends_a_line_and_has_a_length_when_it_has_ended() {
        let (mut record, mut lines) =
            record(&[ConsoleItem::Open, ConsoleItem::Bytes(b"one\r\nhal"), ConsoleItem::Gap("lost".into())]);
        assert_eq!(record.report().first_gaps[0].lasted_ms, None);
        tokio::time::advance(std::time::Duration::from_millis(70)).await;
        lines.extend(record.take(&ConsoleItem::Open));
        lines.extend(record.take(&ConsoleItem::Bytes(b"Out of memory: Killed process 1 (a)\nlogin: ")));
        assert_eq!(lines, ["one", "hal", "Out of memory: Killed process 1 (a)"]);
        assert_eq!(record.tail(2), ["Out of memory: Killed process 1 (a)", "login: "]);
        assert_eq!(record.finish().as_deref(), Some("login: "));
        let report = record.report();
        assert_eq!((report.bytes, report.lines, report.gaps, report.faults), (51, 4, 1, 1));
        assert_eq!(report.first_gaps[0].lasted_ms, Some(70));
        assert_eq!(
            (report.first_faults[0].fault, report.first_faults[0].at_ms),
            (KernelFault::OutOfMemory, 70)
        );
    }

    #[tokio::test]
    async fn each_kind_of_fault_is_known_also_after_many_others() {
        let killed = "Out of memory: Killed process 1 (a)\n".repeat(2 * ConsoleReport::MOST_KEPT);
        let panic = "Kernel panic - not syncing: x\n".repeat(2);
        let (record, _) =
            record(&[ConsoleItem::Bytes(killed.as_bytes()), ConsoleItem::Bytes(panic.as_bytes())]);
        assert_eq!(record.report().first_faults.len(), ConsoleReport::MOST_KEPT);
        let panics = record.faults().filter(|found| found.fault == KernelFault::Panic).count();
        assert_eq!((record.report().faults, panics), (2 * ConsoleReport::MOST_KEPT as u64 + 2, 1));
    }

    #[tokio::test]
    async fn what_is_kept_has_a_bound_also_of_empty_lines() {
        let (mut record, _) = record(&[ConsoleItem::Bytes(&[b'\n'; 2 * MOST_LINES])]);
        assert_eq!(record.tail(usize::MAX).len(), MOST_LINES);
        record.take(&ConsoleItem::Bytes(&[b'x'; 2 * MOST_TEXT]));
        assert!(record.kept_bytes <= MOST_TEXT, "{}", record.kept_bytes);
        let mut none = ConsoleRecord::without_lines();
        none.take(&ConsoleItem::Bytes(b"one\ntwo\nthree"));
        assert_eq!((none.tail(9), none.report().lines), (vec!["three".to_owned()], 2));
    }

    #[tokio::test]
    async fn text_is_found_once_and_a_prompt_before_its_line_ends() {
        let (mut record, _) = record(&[ConsoleItem::Bytes(b"up 1\nup 2 up 3\nlog")]);
        let up = Regex::new("up [0-9]").unwrap();
        let first = record.find(&up, ConsolePlace::default()).unwrap();
        let second = record.find(&up, first).unwrap();
        let third = record.find(&up, second).unwrap();
        let next = record.find(&up, third).unwrap_err();
        let login = Regex::new("^login: $").unwrap();
        let next = record.find(&login, next).unwrap_err();
        record.take(&ConsoleItem::Bytes(b"in: "));
        let after = record.find(&login, next).unwrap();
        assert!(record.find(&login, after).is_err());
        record.take(&ConsoleItem::Bytes(b"root\r\nup 4"));
        assert!(record.find(&up, after).is_ok());
    }

    #[tokio::test]
    async fn only_the_last_text_is_kept_and_all_is_counted() {
        let mut record = ConsoleRecord::new();
        let start = record.find(&Regex::new("x").unwrap(), ConsolePlace::default()).unwrap_err();
        let line = [&[b'-'; 4000][..], b"\n"].concat();
        for _ in 0..1000 {
            record.take(&ConsoleItem::Bytes(&line));
        }
        record.take(&ConsoleItem::Bytes(b"the end\n"));
        assert_eq!(record.report().lines, 1001);
        assert!(record.kept_bytes + record.kept.len() <= MOST_TEXT, "{}", record.kept_bytes);
        assert!(record.find(&Regex::new("the end").unwrap(), start).is_ok());
    }
}
