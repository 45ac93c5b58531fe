//! How a run goes about its targets: every number there is to tune.

use std::time::Duration;

/// How many targets at once, and how long each may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Targets under way at once, over all hosts; 64 by default. 0 counts as 1.
    pub parallel: usize,
    /// The budget for connecting to a host and listing it, and then for each target; 60 s by default.
    ///
    /// A target's budget starts when it is admitted among those under way and covers everything after:
    /// queueing for a connection, connecting, calls, polling.
    pub timeout: Duration,
    /// How long past its deadline a target is waited for before it is given up on; 500 ms by default.
    ///
    /// The layers below end by the deadline and say at which stage they were. This is for the case that one
    /// of them does not.
    pub grace: Duration,
    /// The first pause between two looks at a state that is waited for; 20 ms by default. It doubles.
    pub poll_initial: Duration,
    /// The longest such pause; 1 s by default.
    pub poll_max: Duration,
    /// How long a guest agent is waited for where the operation can do without it, or where it must be back soon;
    /// 5 s by default.
    pub agent_patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            parallel: 64,
            timeout: Duration::from_secs(60),
            grace: Duration::from_millis(500),
            poll_initial: Duration::from_millis(20),
            poll_max: Duration::from_secs(1),
            agent_patience: Duration::from_secs(5),
        }
    }
}
