//! The numbers of a run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::effect::Effect;
use crate::kind::ErrorKind;
use crate::outcome::{Outcome, Status};

/// What a run came to, in numbers. The last event of a run has it, so that no reader has to count.
///
/// ```
/// use atp_api::{RunStatistics, Status};
///
/// let json = r#"{"counts": {"ok": 3, "failed": 1}, "attempts": 5, "retries": 1, "kinds": {"exit-nonzero": 1}}"#;
/// let statistics: RunStatistics = serde_json::from_str(json)?;
/// assert_eq!((statistics.total(), statistics.failures(), statistics.count(Status::Ok)), (4, 1, 3));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RunStatistics {
    /// The outcomes by status.
    pub counts: StatusCounts,
    /// The outcomes with an error, by its kind.
    #[serde(deserialize_with = "kinds")]
    pub kinds: BTreeMap<ErrorKind, u64>,
    /// The outcomes of which it is not known whether anything happened.
    pub unknown_effects: u64,
    /// The outcomes that an earlier run of the same journal had, and that are not repeated.
    pub from_earlier_run: u64,
    /// The attempts of all targets together.
    pub attempts: u64,
    /// The attempts that repeated an earlier one of their target.
    pub retries: u64,
    /// Milliseconds that the targets took, all added up.
    pub targets_ms: u64,
    /// Milliseconds of the target that took longest.
    pub longest_ms: u64,
    /// Milliseconds from the start of the run to its end.
    pub duration_ms: u64,
}

/// Outcomes by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StatusCounts {
    /// Those that are [`Status::Ok`].
    pub ok: u64,
    /// Those that are [`Status::Unchanged`].
    pub unchanged: u64,
    /// Those that are [`Status::Failed`].
    pub failed: u64,
    /// Those that are [`Status::Timeout`].
    pub timeout: u64,
    /// Those that are [`Status::Unreachable`].
    pub unreachable: u64,
    /// Those that are [`Status::Skipped`].
    pub skipped: u64,
    /// Those that are [`Status::Cancelled`].
    pub cancelled: u64,
}

impl StatusCounts {
    /// How many have this status.
    pub fn of(&self, status: Status) -> u64 {
        match status {
            Status::Ok => self.ok,
            Status::Unchanged => self.unchanged,
            Status::Failed => self.failed,
            Status::Timeout => self.timeout,
            Status::Unreachable => self.unreachable,
            Status::Skipped => self.skipped,
            Status::Cancelled => self.cancelled,
        }
    }

    fn add(&mut self, status: Status, more: u64) {
        let count = match status {
            Status::Ok => &mut self.ok,
            Status::Unchanged => &mut self.unchanged,
            Status::Failed => &mut self.failed,
            Status::Timeout => &mut self.timeout,
            Status::Unreachable => &mut self.unreachable,
            Status::Skipped => &mut self.skipped,
            Status::Cancelled => &mut self.cancelled,
        };
        *count = count.saturating_add(more);
    }
}

impl RunStatistics {
    /// Counts one outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        self.counts.add(outcome.status, 1);
        if let Some(error) = &outcome.error {
            *self.kinds.entry(error.kind).or_default() += 1;
        }
        self.unknown_effects += u64::from(outcome.effect == Effect::Unknown);
        self.from_earlier_run += u64::from(outcome.from_earlier_run);
        self.attempts += u64::from(outcome.attempts);
        self.retries += u64::from(outcome.attempts.saturating_sub(1));
        self.targets_ms = self.targets_ms.saturating_add(outcome.duration_ms);
        self.longest_ms = self.longest_ms.max(outcome.duration_ms);
    }

    /// Adds the numbers of another run that came after this one.
    pub fn merge(&mut self, other: &RunStatistics) {
        for &status in Status::ALL {
            self.counts.add(status, other.counts.of(status));
        }
        for (kind, count) in &other.kinds {
            let sum = self.kinds.entry(*kind).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.unknown_effects = self.unknown_effects.saturating_add(other.unknown_effects);
        self.from_earlier_run = self.from_earlier_run.saturating_add(other.from_earlier_run);
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.retries = self.retries.saturating_add(other.retries);
        self.targets_ms = self.targets_ms.saturating_add(other.targets_ms);
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
    }

    /// How many outcomes have this status.
    pub fn count(&self, status: Status) -> u64 {
        self.counts.of(status)
    }

    /// How many outcomes have an error of this kind.
    pub fn count_of(&self, kind: ErrorKind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    /// How many outcomes there are.
    pub fn total(&self) -> u64 {
        Status::ALL.iter().fold(0, |sum, status| sum.saturating_add(self.count(*status)))
    }

    /// How many outcomes are [no success](Status::is_success).
    pub fn failures(&self) -> u64 {
        let failures = Status::ALL.iter().filter(|status| !status.is_success());
        failures.fold(0, |sum, status| sum.saturating_add(self.count(*status)))
    }
}

impl<'a> FromIterator<&'a Outcome> for RunStatistics {
    fn from_iter<I: IntoIterator<Item = &'a Outcome>>(outcomes: I) -> Self {
        let mut statistics = RunStatistics::default();
        outcomes.into_iter().for_each(|outcome| statistics.add(outcome));
        statistics
    }
}

/// Reads counts by kind. All kinds that this version does not know are counted as one.
fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<ErrorKind, u64>, D::Error> {
    let mut kinds: BTreeMap<ErrorKind, u64> = BTreeMap::new();
    for (word, count) in BTreeMap::<String, u64>::deserialize(deserializer)? {
        let sum = kinds.entry(word.parse().unwrap_or(ErrorKind::Unknown)).or_default();
        *sum = sum.saturating_add(count);
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::OutcomeError;

    fn outcome(status: Status, effect: Effect, attempts: u32, duration_ms: u64) -> Outcome {
        let error = (!status.is_success()).then(|| OutcomeError::new(ErrorKind::CallTimeout, "no"));
        Outcome {
            host: None,
            vm: None,
            found_on: None,
            from_earlier_run: false,
            uuid: None,
            op: "exec".into(),
            status,
            effect,
            attempts,
            duration_ms,
            data: None,
            error,
        }
    }

    #[test]
    fn outcomes_are_counted_once_each() {
        let outcomes = [
            outcome(Status::Ok, Effect::Done, 1, 30),
            outcome(Status::Ok, Effect::Done, 3, 50),
            outcome(Status::Timeout, Effect::Unknown, 1, 70),
            outcome(Status::Skipped, Effect::None, 0, 0),
        ];
        let statistics: RunStatistics = outcomes.iter().collect();
        assert_eq!(
            statistics.counts,
            StatusCounts { ok: 2, timeout: 1, skipped: 1, ..StatusCounts::default() }
        );
        assert_eq!((statistics.total(), statistics.failures()), (4, 2));
        assert_eq!((statistics.attempts, statistics.retries), (5, 2));
        assert_eq!((statistics.targets_ms, statistics.longest_ms), (150, 70));
        assert_eq!((statistics.unknown_effects, statistics.count_of(ErrorKind::CallTimeout)), (1, 2));
        let mut both: RunStatistics = outcomes[..2].iter().collect();
        both.merge(&outcomes[2..].iter().collect());
        assert_eq!(both, statistics);
    }

    #[test]
    fn kinds_of_a_later_version_are_counted_together() {
        let json = r#"{"kinds": {"of-later": 2, "even-later": 3, "panicked": 1}, "more": true}"#;
        let statistics: RunStatistics = serde_json::from_str(json).unwrap();
        assert_eq!(
            (statistics.count_of(ErrorKind::Unknown), statistics.count_of(ErrorKind::Panicked)),
            (5, 1)
        );
    }
}
