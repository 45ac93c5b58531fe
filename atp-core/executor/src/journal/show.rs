//! A journal for people: what its run did, without the operation that it is resumed with.

use std::path::{Path, PathBuf};

use atp_api::Outcome;
use atp_transport::HostId;
use serde::Serialize;
use uuid::Uuid;

use super::JournalError;
use super::history::History;
use super::past::Progress;
use super::record::Head;

/// What a journal says of its run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JournalReport {
    /// The file.
    pub path: PathBuf,
    /// The operation's name. Its parameters are in no journal, as they may be secret.
    pub op: String,
    /// The version of the program that began it.
    pub version: String,
    /// When it was begun (RFC 3339); empty if the file does not say so.
    pub begun_at: String,
    /// When each later run went on with it.
    pub resumed_at: Vec<String>,
    /// Bytes at the end that are no whole batch: the last write was cut off, or the run is writing it now. What they say was
    /// neither done nor shown.
    pub torn_bytes: u64,
    /// Whether records before the end were lost to damage: a target may have been started since its last record here.
    pub has_lost: bool,
    /// Selected hosts and VMs that could not be resolved to targets when it was begun, as `HOST`, `VM` or `HOST/VM`.
    pub unresolved: Vec<String>,
    /// The targets, by host and UUID.
    pub targets: Vec<JournalTarget>,
}

/// A target of a journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JournalTarget {
    /// The host.
    pub host: HostId,
    /// The VM's name, unless the host is the target.
    pub vm: Option<String>,
    /// The VM's identity.
    pub uuid: Option<Uuid>,
    /// How far it got.
    pub progress: JournalProgress,
    /// Its last outcome; none unless it finished.
    pub outcome: Option<Box<Outcome>>,
}

/// How far a target got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum JournalProgress {
    /// It was not begun: nothing was done.
    NeverStarted,
    /// It was begun, and its outcome is not recorded: it is not known what was done.
    Started,
    /// Its records were lost to damage: it is not known whether it was begun.
    Lost,
    /// It has an outcome.
    Finished,
}

impl JournalReport {
    /// Reads the journal at `path`, also one that a run writes just now.
    ///
    /// # Errors
    /// The file cannot be read, or is not a journal.
    ///
    /// Cancel safe.
    pub async fn read(path: &Path) -> Result<JournalReport, JournalError> {
        let bytes = super::read_whole(path).await?;
        JournalReport::parse(path, &bytes)
    }

    /// Parses a journal. `path` is its name in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<JournalReport, JournalError> {
        let history = History::parse_of(path, bytes, |_| Ok(()))?;
        let target = |past: &super::past::Past| {
            let (progress, outcome) = match &past.progress {
                Progress::NeverStarted => (JournalProgress::NeverStarted, None),
                Progress::Started => (JournalProgress::Started, None),
                Progress::Lost => (JournalProgress::Lost, None),
                // The outcome's own names are part of the record's target.
                Progress::Finished(outcome) => {
                    (JournalProgress::Finished, Some(Box::new(past.key.clone().named((**outcome).clone()))))
                }
            };
            let (host, vm, uuid) = (past.key.host.clone(), past.key.vm.clone(), past.key.uuid);
            JournalTarget { host, vm, uuid, progress, outcome }
        };
        let unresolved = history.unresolved.iter().map(|lacking| match (&lacking.host, &lacking.vm) {
            (Some(host), Some(vm)) => format!("{host}/{vm}"),
            (Some(host), None) => host.to_string(),
            (None, vm) => vm.clone().unwrap_or_default(),
        });
        let Head { op, version, at, .. } = history.head.clone();
        Ok(JournalReport {
            path: path.to_owned(),
            op,
            version,
            begun_at: at,
            resumed_at: history.resumed_at.clone(),
            torn_bytes: history.length.saturating_sub(history.good_bytes) as u64,
            has_lost: history.has_lost,
            unresolved: unresolved.collect(),
            targets: history.targets.values().map(target).collect(),
        })
    }

    /// How many targets got so far.
    pub fn count(&self, progress: JournalProgress) -> usize {
        self.targets.iter().filter(|target| target.progress == progress).count()
    }
}

#[cfg(test)]
mod tests {
    use atp_api::Status;

    use super::super::record::sealed;
    use super::*;

    const HEAD: &str = r#"{"begun":{"format":2,"version":"0.1.0","op":"exec","operation":"x","separate":false,"targets":[{"host":"h1","vm":"a","uuid":"00000000-0000-0000-0000-000000000001"},{"host":"h1","vm":"b","uuid":"00000000-0000-0000-0000-000000000002"},{"host":"h1","vm":"c","uuid":"00000000-0000-0000-0000-000000000003"}],"unresolved":[{"host":"h2","vm":null}],"at":"2026-01-01T00:00:00.000Z"}}"#;

    fn started(number: u8, vm: &str) -> String {
        let uuid = format!("00000000-0000-0000-0000-00000000000{number}");
        format!("{{\"started\":{{\"host\":\"h1\",\"vm\":\"{vm}\",\"uuid\":\"{uuid}\",\"at\":\"t\"}}}}\n")
    }

    fn finished(number: u8, vm: &str) -> String {
        let uuid = format!("00000000-0000-0000-0000-00000000000{number}");
        format!(
            "{{\"finished\":{{\"host\":\"h1\",\"vm\":\"{vm}\",\"uuid\":\"{uuid}\",\"op\":\"exec\",\"status\":\"ok\",\
             \"effect\":\"done\",\"attempts\":1,\"duration_ms\":5,\"data\":null,\"error\":null,\"at\":\"t\"}}}}\n"
        )
    }

    fn parse(text: &str) -> JournalReport {
        JournalReport::parse(Path::new("j"), text.as_bytes()).unwrap()
    }

    #[test]
    fn a_journal_is_read_without_its_operation() {
        let text = sealed(0, format!("{HEAD}\n"))
            + &sealed(1, started(1, "a") + &finished(1, "a"))
            + &sealed(2, started(2, "b"));
        let report = parse(&text);
        assert_eq!((report.op.as_str(), report.begun_at.as_str()), ("exec", "2026-01-01T00:00:00.000Z"));
        assert_eq!(
            (report.torn_bytes, report.has_lost, report.unresolved),
            (0, false, vec!["h2".to_owned()])
        );
        let progress: Vec<_> = report.targets.iter().map(|target| target.progress).collect();
        use JournalProgress::{Finished, NeverStarted, Started};
        assert_eq!(progress, [Finished, Started, NeverStarted]);
        let outcome = report.targets[0].outcome.as_ref().unwrap();
        assert_eq!((outcome.vm.as_deref(), outcome.status), (Some("a"), Status::Ok));
    }

    #[test]
    fn a_torn_end_and_a_loss_are_told() {
        let whole = sealed(0, format!("{HEAD}\n"));
        let torn = sealed(1, started(1, "a"));
        let cut = &torn[..torn.len() / 2];
        let report = parse(&(whole.clone() + cut));
        assert_eq!((report.torn_bytes, report.has_lost), (cut.len() as u64, false));
        assert_eq!(report.count(JournalProgress::NeverStarted), 3);
        let report = parse(&(whole + cut + "\n" + &sealed(2, started(2, "b"))));
        assert!(report.has_lost && report.torn_bytes > 0);
        assert_eq!(report.count(JournalProgress::Lost), 3);
    }
}
