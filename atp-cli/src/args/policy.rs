//! How a run goes about its targets, and where it is noted.

use std::path::PathBuf;
use std::time::Duration;

use atp_executor::{Policy, Portion};
use clap::Args;

use super::global::{parse_count, parse_timeout};

/// Options of a run over many targets.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of a run")]
pub(crate) struct PolicyArgs {
    /// Targets worked on at once on one host [default: no limit but --parallel]
    #[arg(long, global = true, value_name = "N", value_parser = parse_count)]
    per_host: Option<usize>,

    /// Time for the whole run, listing included; what is under way then is cancelled
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_timeout)]
    deadline: Option<Duration>,

    /// Try a target again, so many times at most, after a failure that changed nothing and that may
    /// pass; all within the target's own time [default: 0]
    #[arg(long, global = true, value_name = "N")]
    retries: Option<u32>,

    /// Start no more targets after so many have failed
    #[arg(long, global = true, value_name = "N|P%")]
    max_failures: Option<Portion>,

    /// Take the targets in batches of this size, one after the other; if a target of the first batch
    /// fails, the run ends with it
    #[arg(long, global = true, value_name = "N|P%")]
    serial: Option<Portion>,

    /// Note in this new file what is started and what comes of it, each before anything else happens
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) journal: Option<PathBuf>,

    /// Go on from this journal, with the command it was begun with: do what was never started or had no
    /// effect, and repeat nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
}

impl PolicyArgs {
    /// Lays what was typed over a policy.
    pub(crate) fn over(&self, policy: Policy) -> Policy {
        Policy {
            per_host: self.per_host.or(policy.per_host),
            deadline: self.deadline.or(policy.deadline),
            retries: self.retries.unwrap_or(policy.retries),
            max_failures: self.max_failures.or(policy.max_failures),
            serial: self.serial.or(policy.serial),
            ..policy
        }
    }
}
