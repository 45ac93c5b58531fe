//! What is known of a run, for the laws to judge.

use std::time::Duration;

use atp_executor::RunEvent;

use crate::case::End;

/// What is known of one run.
pub(crate) struct Record {
    /// Its targets and the outcomes that were settled when it was planned, as hosts and VMs.
    pub(crate) planned: Vec<(Option<String>, Option<String>)>,
    /// The number of `planned` that are targets.
    pub(crate) targets: usize,
    pub(crate) planned_in: Duration,
    /// Its events, with the time since its beginning.
    pub(crate) events: Vec<(Duration, RunEvent)>,
    /// How it was ended from outside.
    pub(crate) end: End,
    /// Whether it continues another.
    pub(crate) is_resumed: bool,
}
