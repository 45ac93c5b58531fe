//! Reads a journal up to the first batch that is not on disk as it was written.
//!
//! A loss of power can leave the blocks of one write on disk in any order, with zeros between them. A batch is synced
//! before the next is written, so only the last batch can be torn. It is skipped: nothing was done or shown because of it.
//! If other batches follow a bad one, the disk lost what it had synced. None of these is trusted. They may have been about
//! any target, so no target that was still to do is repeated, unless the operation only looks.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::JournalError;
use super::fingerprint::{Comparison, compare};
use super::history::History;
use super::past::{Past, Progress};
use super::record::{FORMAT, Head, Key, Moved, ReadRecord, Seal, UNSEALED};
use crate::verbs::Operation;

impl History {
    /// Reads the journal at `path` of a run of `operation`. A torn last batch is skipped.
    ///
    /// # Errors
    /// The file cannot be read, is not a journal, or is one of another operation.
    ///
    /// Cancel safe.
    pub async fn read(path: &Path, operation: &Operation) -> Result<History, JournalError> {
        let bytes = super::read_whole(path).await?;
        History::parse(path, &bytes, operation)
    }

    /// Parses a journal. `path` is its name in errors, and the file to resume from.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, bytes: &[u8], operation: &Operation) -> Result<History, JournalError> {
        let name = path.display().to_string();
        History::parse_of(path, bytes, |Head { op, operation: theirs, version, .. }| {
            same_operation(&name, op, theirs, version, operation)
        })
    }

    /// Parses a journal whose head passes a check.
    pub(super) fn parse_of(
        path: &Path,
        bytes: &[u8],
        check: impl FnOnce(&Head) -> Result<(), JournalError>,
    ) -> Result<History, JournalError> {
        let mut history = History {
            path: path.to_owned(),
            head: Head::default(),
            resumed_at: Vec::new(),
            good_bytes: 0,
            batches: 0,
            length: bytes.len(),
            has_lost: false,
            separate: false,
            targets: BTreeMap::new(),
            hosts_of: HashMap::new(),
            unresolved: Vec::new(),
        };
        let name = || path.display().to_string();
        let Some(head) = lines(bytes).next() else { return Err(JournalError::Empty { path: name() }) };
        let damaged = || {
            let tail = &bytes[head.len()..];
            match lines(tail).any(is_of_later_batch) {
                true => JournalError::Damaged { path: name() },
                false => JournalError::Torn { path: name() },
            }
        };
        let record = match serde_json::from_slice(head) {
            Ok(record) if head.ends_with(b"\n") => record,
            _ if is_torn_head(head) => return Err(damaged()),
            Ok(_) => return Err(history.invalid(1, "its first line is incomplete")),
            Err(error) => return Err(history.invalid(1, error)),
        };
        if let ReadRecord::Begun { format: FORMAT | UNSEALED, op, operation, version, at, .. } = &record {
            let [op, operation, version, at] = [op, operation, version, at].map(String::clone);
            history.head = Head { op, operation, version, at };
            check(&history.head)?;
        }
        match record {
            ReadRecord::Begun { format, .. } if ![FORMAT, UNSEALED].contains(&format) => {
                Err(history.invalid(1, format!("format {format}, where {FORMAT} is known")))
            }
            ReadRecord::Begun { format: FORMAT, .. } => {
                if batch_at(bytes, 0).is_none() {
                    return Err(damaged());
                }
                history.read_batches(bytes)?;
                Ok(history)
            }
            record @ ReadRecord::Begun { .. } => {
                history.apply_record(record);
                history.good_bytes = head.len();
                history.read_lines(bytes)?;
                Ok(history)
            }
            _ => Err(history.invalid(1, "it does not start with a head")),
        }
    }

    /// Reads batches from the end of the good bytes.
    fn read_batches(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        while let Some(batch) = batch_at(&bytes[self.good_bytes..], self.batches) {
            for line in lines(batch) {
                let record = serde_json::from_slice(line);
                // The batch is on disk as it was written, so this is not damage.
                let number = || lines(&bytes[..self.good_bytes]).count() + 1;
                self.apply_record(record.map_err(|error| self.invalid(number(), error))?);
                self.good_bytes += line.len();
            }
            self.batches += 1;
        }
        let later = |line| whole_seal(line).is_some_and(|seal| seal.batch > self.batches);
        if lines(&bytes[self.good_bytes..]).any(later) {
            self.lose();
        }
        Ok(())
    }

    /// Reads lines from the end of the good bytes of a file that was begun without seals, until its first batch.
    fn read_lines(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let mut rest = (2..).zip(lines(&bytes[self.good_bytes..]));
        while let Some((number, line)) = rest.next() {
            match serde_json::from_slice(line) {
                Ok(record) if line.ends_with(b"\n") => match record {
                    ReadRecord::Resumed { format: FORMAT, .. } => return self.read_batches(bytes),
                    ReadRecord::Begun { .. } => return Err(self.invalid(number, "a second head")),
                    record => {
                        self.apply_record(record);
                        self.good_bytes += line.len();
                    }
                },
                Ok(_) | Err(_) => {
                    if rest.any(|(_, line)| is_of_later_batch(line)) {
                        self.lose();
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn invalid(&self, line: usize, reason: impl ToString) -> JournalError {
        JournalError::Invalid { path: self.path.display().to_string(), line, reason: reason.to_string() }
    }

    /// Assumes that every target may have been started, unless it is known that no run repeats it.
    fn lose(&mut self) {
        self.has_lost = true;
        for past in self.targets.values_mut().filter(|past| !past.is_through()) {
            past.progress = Progress::Lost;
        }
    }

    /// Applies the record of one line.
    fn apply_record(&mut self, record: ReadRecord) {
        match record {
            ReadRecord::Begun { separate, targets, unresolved, .. } => {
                self.separate = separate;
                self.unresolved = unresolved;
                for key in targets {
                    self.note(Past { key, progress: Progress::NeverStarted, is_from_begin: true });
                }
            }
            ReadRecord::Resumed { moved, lost, at, .. } => {
                self.resumed_at.push(at);
                if lost {
                    self.lose();
                }
                moved.into_iter().for_each(|vm| self.follow(vm));
            }
            ReadRecord::Sealed(_) => {}
            ReadRecord::Started { target } => self.progress(target, Progress::Started),
            ReadRecord::Finished { target, outcome } => {
                self.progress(target, Progress::Finished(outcome));
            }
        }
    }

    fn progress(&mut self, key: Key, progress: Progress) {
        let before = self.targets.get(&(key.host.clone(), key.uuid));
        let is_from_begin = before.is_some_and(|past| past.is_from_begin);
        self.note(Past { key, progress, is_from_begin });
    }

    pub(super) fn note(&mut self, past: Past) {
        let Key { host, uuid, .. } = &past.key;
        if let Some(uuid) = *uuid {
            self.hosts_of.entry(uuid).or_default().insert(host.clone());
        }
        self.targets.insert((host.clone(), *uuid), past);
    }

    /// Moves the past of a VM to the host that a later run found it on, so that it has only one.
    fn follow(&mut self, moved: Moved) {
        let Moved { uuid, from, host } = moved;
        let (old, new) = ((from.clone(), Some(uuid)), (host.clone(), Some(uuid)));
        if !self.targets.contains_key(&new)
            && let Some(past) = self.targets.remove(&old)
        {
            self.hosts_of.entry(uuid).or_default().remove(&from);
            self.note(Past { key: Key { host, ..past.key }, ..past });
        }
    }
}

/// Checks that `operation` is the one that a run was begun with.
pub(super) fn same_operation(
    name: &str,
    op: &str,
    theirs: &str,
    version: &str,
    operation: &Operation,
) -> Result<(), JournalError> {
    let comparison =
        if op == operation.name() { compare(theirs, version, operation) } else { Comparison::Other };
    match comparison {
        Comparison::Same => Ok(()),
        Comparison::Other => Err(other_operation(name.to_owned(), op, operation)),
        Comparison::Unknown => {
            let (path, op, version) = (name.to_owned(), op.to_owned(), version.to_owned());
            Err(JournalError::Incomparable { path, op, version })
        }
    }
}

/// The lines, each with its line feed. The last may lack it.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n')
}

/// The batch with this number at the start of `bytes`, with its seal, if it is as it was written.
fn batch_at(bytes: &[u8], number: u64) -> Option<&[u8]> {
    let mut end = 0;
    let (start, seal) = lines(bytes).find_map(|line| {
        let start = end;
        end += line.len();
        Some((start, whole_seal(line)?))
    })?;
    (seal == Seal::of(number, &bytes[..start])).then(|| &bytes[..end])
}

fn whole_seal(line: &[u8]) -> Option<Seal> {
    match serde_json::from_slice(line) {
        Ok(ReadRecord::Sealed(seal)) if line.ends_with(b"\n") => Some(seal),
        _ => None,
    }
}

/// Whether the line is of a later batch than the head, or than the first batch in a file that was begun without seals.
fn is_of_later_batch(line: &[u8]) -> bool {
    match serde_json::from_slice(line) {
        Ok(ReadRecord::Sealed(seal)) => seal.batch > 0,
        Ok(ReadRecord::Resumed { .. } | ReadRecord::Started { .. } | ReadRecord::Finished { .. }) => true,
        Ok(ReadRecord::Begun { .. }) | Err(_) => false,
    }
}

/// Whether a first line is incomplete, or one of its blocks never reached the disk.
fn is_torn_head(line: &[u8]) -> bool {
    const START: &[u8] = b"{\"begun\":{";
    let is_cut_off = !line.ends_with(b"\n") && (line.starts_with(START) || START.starts_with(line));
    is_cut_off || line.starts_with(b"\0") || (line.starts_with(START) && line.contains(&0))
}

fn other_operation(path: String, theirs: &str, operation: &Operation) -> JournalError {
    let (theirs, ours) = if theirs == operation.name() {
        (format!("{theirs} with other arguments"), format!("this {theirs}"))
    } else {
        (theirs.to_owned(), operation.name().to_owned())
    };
    JournalError::OtherOperation { path, theirs, ours }
}
