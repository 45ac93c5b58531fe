//! How a run goes about its targets, and where it is noted.

use std::path::PathBuf;

use atp_executor::Portion;
use atp_settings::parse_positive_duration;
use clap::Args;

use super::number::{parse_count, parse_number};

/// The word for no limit: it takes away what a file or a variable sets.
pub(crate) const NONE: &str = "none";

/// Options of a run over many targets. Limits are checked here, and kept as they were typed: they are settings like
/// those of files.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of a run")]
pub(crate) struct PolicyArgs {
    /// Targets worked on at once on one host [default: none, no limit but --parallel]
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = limit(parse_count))]
    pub(crate) per_host: Option<String>,

    /// Time for the whole run, listing included; what is under way then is cancelled [default: none]
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true, value_parser = limit(parse_positive_duration))]
    pub(crate) deadline: Option<String>,

    /// Try a target again, so many times at most, after a failure that changed nothing and that may
    /// pass; all within the target's own time [default: 0]
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = parse_number)]
    pub(crate) retries: Option<u32>,

    /// Start no more targets after so many have failed [default: none]
    #[arg(long, global = true, value_name = "N|P%", allow_hyphen_values = true, value_parser = limit(str::parse::<Portion>))]
    pub(crate) max_failures: Option<String>,

    /// Take the targets in batches of this size, one after the other; if a target of the first batch
    /// fails, the run ends with it [default: none]
    #[arg(long, global = true, value_name = "N|P%", allow_hyphen_values = true, value_parser = limit(str::parse::<Portion>))]
    pub(crate) serial: Option<String>,

    /// Note in this new file what is started and what comes of it, each before anything else happens
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) journal: Option<PathBuf>,

    /// Go on from this journal, with the command it was begun with: do what was never started or had no
    /// effect, and what could not be listed or found then, and repeat nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
}

/// Takes what `parse` takes, and [`NONE`].
fn limit<T, E>(parse: fn(&str) -> Result<T, E>) -> impl Fn(&str) -> Result<String, E> + Clone {
    move |text| if text == NONE { Ok(text.to_owned()) } else { parse(text).map(|_| text.to_owned()) }
}
