//! The policy of a run over targets, and its journal.

use std::path::PathBuf;

use atp_executor::Portion;
use atp_settings::parse_positive_duration;
use clap::Args;

use super::number::{parse_count, parse_number};

/// The word for no limit; it removes a limit set by a file or a variable.
pub(crate) const NONE: &str = "none";

/// Options of a run over many targets. Limits are checked here and kept as typed: they are settings, like those in
/// files.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of a run")]
pub(crate) struct PolicyArgs {
    /// Maximum number of targets processed at the same time on one host [default: none, only --parallel limits it]
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = limit(parse_count))]
    pub(crate) per_host: Option<String>,

    /// Time limit for the whole run, including listing; targets in progress are then cancelled [default: none]
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true, value_parser = limit(parse_positive_duration))]
    pub(crate) deadline: Option<String>,

    /// Maximum number of retries of a target after a failure that changed nothing and may be temporary; all attempts
    /// share the target's time limit [default: 0]
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = parse_number)]
    pub(crate) retries: Option<u32>,

    /// Start no further targets after this many have failed [default: none]
    #[arg(long, global = true, value_name = "N|P%", allow_hyphen_values = true, value_parser = limit(str::parse::<Portion>))]
    pub(crate) max_failures: Option<String>,

    /// Process the targets in batches of this size, one batch after another; if a target of the first batch fails,
    /// the run ends after that batch [default: none]
    #[arg(long, global = true, value_name = "N|P%", allow_hyphen_values = true, value_parser = limit(str::parse::<Portion>))]
    pub(crate) serial: Option<String>,

    /// Record in this new file each target that is started and its outcome, before the run continues
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) journal: Option<PathBuf>,

    /// Continue from this journal, or with --server from the run of this number, with the same command: process the targets
    /// that were never started, that failed without effect, or that could not be listed or found, and repeat no others
    #[arg(long, global = true, value_name = "FILE|NUMBER")]
    pub(crate) resume: Option<PathBuf>,
}

/// Accepts what `parse` accepts, and [`NONE`].
fn limit<T, E>(parse: fn(&str) -> Result<T, E>) -> impl Fn(&str) -> Result<String, E> + Clone {
    move |text| if text == NONE { Ok(text.to_owned()) } else { parse(text).map(|_| text.to_owned()) }
}
