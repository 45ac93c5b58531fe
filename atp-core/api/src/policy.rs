//! The policy of a run: all its tunables.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration;
use crate::encoding::TextEncoding;
use crate::portion::Portion;

/// How many targets at once, how long each may take, and when a run ends early.
///
/// In JSON, durations are whole milliseconds and say so in their names. What is not given has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Policy {
    /// Targets under way at once, over all hosts; 64 by default. 0 counts as 1. Those that wait for an answer for longer than
    /// [`answer_patience`](Self::answer_patience) do not count.
    pub parallel: usize,
    /// Targets under way at once on one host; without it, as many as in all. 0 counts as 1.
    pub per_host: Option<usize>,
    /// Targets under way at once that are the same VM, if it is among the targets more than once; 1 by default. 0 counts
    /// as 1.
    pub per_vm: usize,
    /// The budget for connecting to a host and listing it, and then for each target; 60 s by default.
    ///
    /// A target's budget starts when it is admitted among those under way and covers everything after:
    /// queueing for a connection, connecting, calls, polling, every further attempt.
    #[serde(rename = "timeout_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub timeout: Duration,
    /// The budget for the whole run, listing included, which takes no more than half of it; without it there is none.
    /// When it is used up nothing more is started, and what is under way is cancelled.
    #[serde(rename = "deadline_ms", with = "duration::optional_millis")]
    #[schemars(with = "Option<u64>")]
    pub deadline: Option<Duration>,
    /// How long after its deadline a target is still waited for before it is abandoned; 500 ms by default.
    ///
    /// The layers below end by the deadline and report their stage. This is for the case that one of them does not.
    #[serde(rename = "grace_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub grace: Duration,
    /// How often a target is retried after a failure that changed nothing and that may pass; 0 by default. All attempts
    /// share the target's budget.
    pub retries: u32,
    /// The pause before the first retry; 200 ms by default. It doubles.
    #[serde(rename = "retry_initial_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub retry_initial: Duration,
    /// The longest such pause; 5 s by default.
    #[serde(rename = "retry_max_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub retry_max: Duration,
    /// The number of failures (`failed`, `timeout`, `unreachable`) after which no more targets are started; without it the
    /// run continues to the end. Failures of the planning count, those of earlier runs of a journal do not. A share is one
    /// of the targets and the failures of the planning together.
    pub max_failures: Option<Portion>,
    /// The size of batches. They are in the plan's order, and each begins when the one before has ended.
    /// The first is the canary: if one of its targets fails, the run ends with it. Without it there is one batch,
    /// and no canary.
    pub serial: Option<Portion>,
    /// The first pause between two looks at an awaited state; 20 ms by default. It doubles.
    #[serde(rename = "poll_initial_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub poll_initial: Duration,
    /// The longest such pause; 1 s by default.
    #[serde(rename = "poll_max_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub poll_max: Duration,
    /// How long a guest agent is waited for if the operation can do without it, or if it should be back soon; 5 s by
    /// default.
    #[serde(rename = "agent_patience_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub agent_patience: Duration,
    /// How long a target keeps its slot among those under way while a call is not answered; 1 s by default. After that other
    /// targets are started beside it, until there are eight times as many as `parallel`. 0 means that a target keeps its slot to
    /// its end, and so does `parallel` = 1.
    #[serde(rename = "answer_patience_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub answer_patience: Duration,
    /// How long another host is asked before a start whether the VM runs there; 1 s by default. For a VM that has left its
    /// host, others are asked five times as long. Hosts are asked at the same time.
    #[serde(rename = "placement_timeout_ms", with = "duration::millis")]
    #[schemars(with = "u64")]
    pub placement_timeout: Duration,
    /// The encoding of what programs in guests write, where neither the operation nor the label `console-encoding` of the
    /// host names one; without it UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TextEncoding>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            parallel: 64,
            per_host: None,
            per_vm: 1,
            timeout: Duration::from_secs(60),
            deadline: None,
            grace: Duration::from_millis(500),
            retries: 0,
            retry_initial: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
            max_failures: None,
            serial: None,
            poll_initial: Duration::from_millis(20),
            poll_max: Duration::from_secs(1),
            agent_patience: Duration::from_secs(5),
            answer_patience: Duration::from_secs(1),
            placement_timeout: Duration::from_secs(1),
            encoding: None,
        }
    }
}
