//! The command line as it is typed. What the settings make of it is in [`crate::settings`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use atp_executor::{HostSelector, LabelFilter, Selector, StateFilter};
use atp_protocol::TextEncoding;
use atp_transport::HostId;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::examples;

/// Do one thing to many virtual machines at once, over libvirt.
///
/// Every target gets exactly one outcome, by its deadline, whatever hangs. Data goes to stdout, everything
/// else to stderr.
#[derive(Debug, Parser)]
#[command(name = "atp", version, after_help = examples::ATP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that stand before or after the command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Read the settings from this file instead of those found by themselves
    /// ($XDG_CONFIG_HOME/atp/config.toml over /etc/atp/config.toml)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Add a host for this run, or give a configured host another URI; may be repeated
    #[arg(id = "ad-hoc-host", long = "host", global = true, value_name = "ID=URI", value_parser = parse_host)]
    pub(crate) hosts: Vec<AdHocHost>,

    /// Form of the data on stdout [default: table]
    #[arg(short, long, global = true, value_name = "FORM")]
    pub(crate) output: Option<OutputFormat>,

    /// Targets worked on at once [default: 64]
    #[arg(long, global = true, value_name = "N", value_parser = parse_count)]
    pub(crate) parallel: Option<usize>,

    /// Time for listing a host, and then for each target, as in 30s or 2m [default: 1m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,

    /// Show the targets and what would be done; change nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,

    /// Do not ask before destroy, reset, reboot, shutdown or suspend of more than one VM
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,

    /// When to use colours [default: auto]
    #[arg(long, global = true, value_name = "WHEN")]
    pub(crate) color: Option<ColorMode>,

    /// Say on stderr what is done; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Say nothing on stderr but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Form of the messages on stderr [default: text]
    #[arg(long, global = true, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
}

/// A host given by `--host ID=URI`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdHocHost {
    pub(crate) id: HostId,
    pub(crate) uri: String,
}

/// The form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutputFormat {
    /// For people: tables, and equal outputs grouped
    Table,
    /// One array of outcomes, sorted, at the end
    Json,
    /// One outcome a line, as each target finishes
    Jsonl,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorMode {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The form of the messages on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List and check the hosts
    #[command(subcommand, after_help = examples::HOST)]
    Host(HostCommand),

    /// List VMs and change their state
    #[command(subcommand, after_help = examples::VM)]
    Vm(VmCommand),

    /// Run a command in the guests, through the guest agent
    #[command(after_help = examples::EXEC)]
    Exec(ExecArgs),

    /// Send a command to the QEMU monitors
    #[command(after_help = examples::QMP)]
    Qmp(RawArgs),

    /// Send a command to the guest agents
    #[command(after_help = examples::QGA)]
    Qga(RawArgs),

    /// Show and check the settings
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(ConfigCommand),
}

/// `atp host …`
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List the inventory; connects to nothing
    #[command(after_help = examples::HOST_LIST)]
    List,

    /// Connect to hosts and report versions, latency, and what is wrong
    #[command(after_help = examples::HOST_CHECK)]
    Check {
        /// Host ids, globs on them, or @GROUP; all hosts if none is given
        #[arg(value_name = "HOST")]
        hosts: Vec<HostSelector>,
    },
}

/// `atp vm …`
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// List VMs, active or not, with state, vCPUs and memory
    #[command(after_help = examples::VM_LIST)]
    List {
        /// VMs to list, as [HOST/]VM; all VMs of all hosts if none is given
        #[arg(value_name = "SEL")]
        selectors: Vec<Selector>,
        #[command(flatten)]
        narrow: NarrowArgs,
    },

    /// Show all that is known of VMs, the guest agent's channel included
    #[command(after_help = examples::VM_INFO)]
    Info(TargetArgs),

    /// Boot VMs that are shut off
    #[command(after_help = examples::VM_START)]
    Start(LifecycleArgs),

    /// Ask guests to power off
    #[command(after_help = examples::VM_SHUTDOWN)]
    Shutdown(LifecycleArgs),

    /// Ask guests to restart
    #[command(after_help = examples::VM_REBOOT)]
    Reboot(LifecycleArgs),

    /// Press the reset button: restart without asking the guest
    #[command(after_help = examples::VM_RESET)]
    Reset(LifecycleArgs),

    /// Pull the plug: power off without asking the guest
    #[command(after_help = examples::VM_DESTROY)]
    Destroy(LifecycleArgs),

    /// Stop the vCPUs and keep the memory
    #[command(after_help = examples::VM_SUSPEND)]
    Suspend(LifecycleArgs),

    /// Let suspended VMs run on
    #[command(after_help = examples::VM_RESUME)]
    Resume(LifecycleArgs),
}

/// `atp config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting, its value and where it comes from; passwords in URIs are masked
    #[command(after_help = examples::CONFIG_SHOW)]
    Show,

    /// Check the settings and the hosts' URIs; connects to nothing
    #[command(after_help = examples::CONFIG_CHECK)]
    Check,
}

/// The VMs to work on.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// VMs, as [HOST/]VM: both are globs, HOST may be @GROUP, HOST/ alone is all VMs there,
    /// [HOST/]/RE/ is a regular expression on the VM's name
    #[arg(value_name = "SEL", required = true)]
    pub(crate) selectors: Vec<Selector>,
    #[command(flatten)]
    pub(crate) narrow: NarrowArgs,
}

/// What takes VMs away from a selection.
#[derive(Debug, Default, Args)]
pub(crate) struct NarrowArgs {
    /// Leave out the VMs this selects; may be repeated
    #[arg(long, value_name = "SEL")]
    pub(crate) exclude: Vec<Selector>,

    /// Only VMs in this state
    #[arg(long, value_name = "STATE", default_value = "any", value_parser = state_parser())]
    pub(crate) state: StateFilter,

    /// Only VMs of hosts with this label; may be repeated, and then all must fit
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<LabelFilter>,
}

/// `atp vm start …` and its like.
#[derive(Debug, Args)]
pub(crate) struct LifecycleArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Wait until the state is reached, or the timeout has passed
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `atp exec …`
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Give this file to the command's standard input; - is atp's own standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,

    /// Set an environment variable of the command; may be repeated. The command then has these and a PATH,
    /// and no others
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_env)]
    pub(crate) env: Vec<(String, String)>,

    /// Run the command through the guest's shell, its words joined by spaces
    #[arg(long)]
    pub(crate) shell: bool,

    /// Run it in this directory of the guest
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,

    /// Let the output go through files in the guest, so that it may be of any size; they are put into DIR, and
    /// removed in the end [default of DIR: /tmp]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/tmp")]
    pub(crate) spool: Option<String>,

    /// What the command prints is text in this encoding, such as utf-16le or windows-1252 [default: utf-8]
    #[arg(long, value_name = "NAME")]
    pub(crate) encoding: Option<TextEncoding>,

    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// `atp qmp …` and `atp qga …`
#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// COMMAND [KEY=VALUE… | JSON], after --; a value is JSON if it parses as JSON, else a string
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Moves every `--host` before the command to right behind the program's name.
///
/// An option that may be repeated can stand before and after the command, and clap would keep those of one
/// place only.
pub(crate) fn gather_hosts(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut first: Vec<OsString> = args.next().into_iter().collect();
    let mut rest = Vec::new();
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            rest.push(arg);
            rest.extend(args);
            break;
        }
        if arg.to_str().is_some_and(|arg| arg.starts_with("--host=")) {
            first.push(arg);
        } else if arg == "--host" {
            // Without a value it stays where it is, for the message to point at.
            match args.next_if(|value| !value.to_string_lossy().starts_with('-')) {
                Some(value) => first.extend([arg, value]),
                None => rest.push(arg),
            }
        } else {
            rest.push(arg);
        }
    }
    first.extend(rest);
    first
}

fn parse_host(text: &str) -> Result<AdHocHost, String> {
    let (id, uri) = text
        .split_once('=')
        .filter(|(_, uri)| !uri.is_empty())
        .ok_or("expected ID=URI, such as demo=test:///default or node7=qemu+tcp://10.0.0.7/system")?;
    let id = id.parse::<HostId>().map_err(|error| error.to_string())?;
    Ok(AdHocHost { id, uri: uri.to_owned() })
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| "expected a duration such as 30s, 2m or 500ms".to_owned())
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as LANG=C".to_owned()),
    }
}

/// Reads a state, and lets the help list those there are.
fn state_parser() -> impl TypedValueParser<Value = StateFilter> {
    PossibleValuesParser::new(["running", "shut-off", "paused", "any"])
        .try_map(|text| text.parse::<StateFilter>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(gather_hosts(args.iter().map(OsString::from)))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_ends_its_help_with_two_examples() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.lines().filter(|line| line.trim_start().starts_with("atp ")).count();
            assert!(examples >= 2, "{}: {examples} examples", command.get_name());
            for line in help.lines().filter(|line| line.trim_start().starts_with("atp ")) {
                let words = split_words(line);
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(check);
        }
        check(&Cli::command());
    }

    /// The words of a line as a shell sees them, up to a pipe; single quotes only.
    fn split_words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut open) = (Vec::new(), String::new(), false, false);
        for c in line.trim().chars().chain([' ']) {
            match c {
                '\'' => (quoted, open) = (!quoted, true),
                ' ' if !quoted => {
                    if word == "|" {
                        return words;
                    }
                    if open || !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    open = false;
                }
                c => word.push(c),
            }
        }
        words
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for args in [
            ["atp", "-o", "json", "vm", "list"],
            ["atp", "vm", "-o", "json", "list"],
            ["atp", "vm", "list", "-o", "json"],
        ] {
            assert_eq!(parse(&args).unwrap().global.output, Some(OutputFormat::Json), "{args:?}");
        }
    }

    #[test]
    fn hosts_from_both_sides_of_the_command_add_up() {
        let cli =
            parse(&["atp", "--host", "a=test:///default", "vm", "list", "--host=b=test:///default"]).unwrap();
        let ids: Vec<_> = cli.global.hosts.iter().map(|host| host.id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
    }

    #[test]
    fn what_stands_behind_two_dashes_is_left_alone() {
        let cli =
            parse(&["atp", "exec", "web", "--host", "a=test:///default", "--", "ls", "--host", "x"]).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert_eq!(exec.command, ["ls", "--host", "x"]);
        assert_eq!(exec.targets.selectors.len(), 1);
        assert_eq!(cli.global.hosts.len(), 1);
    }

    #[test]
    fn values_that_cannot_be_used_are_refused() {
        for args in [
            &["atp", "vm", "list", "--timeout", "30"][..],
            &["atp", "vm", "list", "--timeout", "0s"],
            &["atp", "vm", "list", "--parallel", "0"],
            &["atp", "vm", "list", "--host", "nouri"],
            &["atp", "vm", "list", "--host", "a b=test:///default"],
            &["atp", "vm", "list", "--label", "site"],
            &["atp", "vm", "list", "web["],
            &["atp", "vm", "start"],
            &["atp", "exec", "web"],
            &["atp", "exec", "web", "--env", "=x", "--", "true"],
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }
}
