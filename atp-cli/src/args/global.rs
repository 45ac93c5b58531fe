//! The options that are valid before or after any command.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_settings::parse_positive_duration;
use atp_transport::{Engine, HostId};
use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args};

use super::number::parse_count;
use super::policy::PolicyArgs;
use crate::console::LogFormat;
use crate::output::OutputFormat;
use crate::problem::Problem;
use crate::terminal::ColorMode;

/// Options that are valid before or after any command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Read the settings from this file only, instead of $XDG_CONFIG_HOME/atp/config.toml and /etc/atp/config.toml
    /// (the first overrides the second)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Add a host for this run, or give a configured host another URI; may be repeated
    #[arg(id = "ad-hoc-host", long = "host", global = true, value_name = "ID=URI", value_parser = parse_host)]
    pub(crate) hosts: Vec<AdHocHost>,

    /// What speaks to the daemons of the hosts that have no engine of their own: atp's own client of libvirt's protocol
    /// (native), libvirt's C library, or the one that reaches the host's URI [default: auto]
    #[arg(long, global = true, value_name = "ENGINE", value_parser = PossibleValuesParser::new(Engine::ALL.iter().map(|engine| engine.as_str())))]
    pub(crate) engine: Option<String>,

    /// Run through the service at this URL, over its warm connections, instead of connecting to the hosts; none for no
    /// service
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,

    /// Format of the data on stdout [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,

    /// Also write the outcomes to this file as JUnit XML, for CI systems
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,

    /// Also write the outcomes to this file as one HTML page, with the pictures and texts that were collected
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Maximum number of targets processed at the same time [default: 64]
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = parse_count)]
    pub(crate) parallel: Option<usize>,

    /// Time limit for connecting to each host and listing it, and then for each target, such as 30s or 2m [default:
    /// 1m]
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_positive_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Show the targets and what would be done; change nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,

    /// Do not ask for confirmation before work that interrupts or takes back several VMs, such as reboot, save or
    /// snapshot revert
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,

    /// When to use colours [default: auto]
    #[arg(long, global = true, value_name = "WHEN")]
    pub(crate) color: Option<ColorMode>,

    /// Log what is done to stderr; repeat for more detail
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Write only warnings and errors to stderr
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Format of the messages on stderr [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,

    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
}

/// A host given by `--host ID=URI`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdHocHost {
    pub(crate) id: HostId,
    pub(crate) uri: String,
}

impl GlobalArgs {
    /// The given options that are only for runs over targets; `--timeout` has a use elsewhere too.
    pub(crate) fn run_options(&self) -> Vec<&'static str> {
        let PolicyArgs { per_host, deadline, retries, max_failures, serial, journal, resume } = &self.policy;
        let given = [
            ("--junit", self.junit.is_some()),
            ("--html", self.html.is_some()),
            ("--parallel", self.parallel.is_some()),
            ("--dry-run", self.dry_run),
            ("--per-host", per_host.is_some()),
            ("--deadline", deadline.is_some()),
            ("--retries", retries.is_some()),
            ("--max-failures", max_failures.is_some()),
            ("--serial", serial.is_some()),
            ("--journal", journal.is_some()),
            ("--resume", resume.is_some()),
        ];
        given.into_iter().filter_map(|(option, is_given)| is_given.then_some(option)).collect()
    }

    /// Checks the options of a verb that is not a run over targets and has no outcomes.
    pub(crate) fn refuse_reports(&self) -> Result<(), Problem> {
        self.refuse_journal()?;
        let Some((option, _)) = self.reports().into_iter().next() else { return Ok(()) };
        let message = format!("{option} is for outcomes of targets, which this command does not have");
        Err(Problem::new(message).hint("remove the option"))
    }

    /// Checks the options of a verb that is not a run over targets, and so has no journal.
    pub(crate) fn refuse_journal(&self) -> Result<(), Problem> {
        if self.policy.journal.is_none() && self.policy.resume.is_none() {
            return Ok(());
        }
        let problem =
            Problem::new("--journal and --resume are for runs over targets, which this command is not");
        Err(problem.hint("remove these options"))
    }

    /// Checks the options of a run over targets: no file may be both journal and report, or two reports.
    pub(crate) fn check_files(&self) -> Result<(), Problem> {
        let reports = self.reports();
        for (option, report) in &reports {
            let mut journals = self.policy.journal.iter().chain(&self.policy.resume);
            if journals.any(|journal| is_same_file(journal, report)) {
                let message = format!(
                    "{option} {}: this file is the journal, which would be replaced",
                    report.display()
                );
                return Err(Problem::new(message).hint("name another file"));
            }
        }
        match &reports[..] {
            [(_, junit), (option, html)] if is_same_file(junit, html) => {
                let message = format!("{option} {}: this file is that of --junit", html.display());
                Err(Problem::new(message).hint("name another file"))
            }
            _ => Ok(()),
        }
    }

    /// The files of reports, with their options.
    fn reports(&self) -> Vec<(&'static str, &Path)> {
        let files = [("--junit", &self.junit), ("--html", &self.html)];
        files.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?))).collect()
    }

    /// Parses the value of `--host`, if it is valid.
    pub(crate) fn host(text: &str) -> Option<AdHocHost> {
        parse_host(text).ok()
    }
}

/// Whether two paths name the same file, which may not exist yet.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        path.canonicalize().or_else(|_| Ok(folder.canonicalize()?.join(path.file_name().unwrap_or_default())))
    };
    matches!((real(one), real(other)), (Ok::<_, io::Error>(one), Ok(other)) if one == other)
}

fn parse_host(text: &str) -> Result<AdHocHost, String> {
    let (id, uri) = text
        .split_once('=')
        .filter(|(_, uri)| !uri.is_empty())
        .ok_or("expected ID=URI, such as demo=test:///default or node7=qemu+tcp://10.0.0.7/system")?;
    let id = id.parse::<HostId>().map_err(|error| error.to_string())?;
    Ok(AdHocHost { id, uri: uri.to_owned() })
}
