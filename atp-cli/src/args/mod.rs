//! The command line as it is typed, a noun a file, each with the examples that end its help. What the settings make
//! of it is in [`crate::settings`].

mod config;
mod copy;
mod doctor;
mod events;
mod exec;
mod global;
mod host;
mod input;
mod manual;
mod number;
mod policy;
mod raw;
mod run;
mod screenshot;
mod targets;
mod vm;
mod wait;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

pub(crate) use config::ConfigCommand;
pub(crate) use copy::{CopyArgs, Side};
pub(crate) use doctor::DoctorArgs;
pub(crate) use events::EventsArgs;
pub(crate) use exec::ExecArgs;
#[cfg(test)]
pub(crate) use global::AdHocHost;
pub(crate) use global::GlobalArgs;
pub(crate) use host::{HostAddArgs, HostCommand};
pub(crate) use input::{KeyArgs, MouseArgs, TypeArgs};
pub(crate) use manual::{CompletionsArgs, ManArgs};
pub(crate) use policy::NONE;
#[cfg(test)]
pub(crate) use policy::PolicyArgs;
pub(crate) use raw::RawArgs;
pub(crate) use run::RunArgs;
pub(crate) use screenshot::ScreenshotArgs;
pub(crate) use targets::{NarrowArgs, TargetArgs};
pub(crate) use vm::{LifecycleArgs, VmCommand};
pub(crate) use wait::{Awaited, WaitArgs};

/// Do one thing to many virtual machines at once, over libvirt.
///
/// Every target gets exactly one outcome, by its deadline, whatever hangs. Data goes to stdout, everything
/// else to stderr.
#[derive(Debug, Parser)]
#[command(name = "atp", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List, check, add and remove the hosts
    #[command(subcommand, after_help = host::EXAMPLES)]
    Host(HostCommand),

    /// List VMs and change their state
    #[command(subcommand, after_help = vm::EXAMPLES)]
    Vm(VmCommand),

    /// Run a command in the guests, through the guest agent
    #[command(after_help = exec::EXAMPLES)]
    Exec(ExecArgs),

    /// Copy a file into guests, or out of them, through the guest agent
    #[command(after_help = copy::EXAMPLES)]
    Cp(CopyArgs),

    /// Wait until something is true of all VMs, or the timeout has passed
    #[command(after_help = wait::EXAMPLES)]
    Wait(WaitArgs),

    /// Send a command to the QEMU monitors
    #[command(after_help = raw::QMP_EXAMPLES)]
    Qmp(RawArgs),

    /// Send a command to the guest agents
    #[command(after_help = raw::QGA_EXAMPLES)]
    Qga(RawArgs),

    /// Take VMs through the steps of a scenario file
    #[command(after_help = run::EXAMPLES)]
    Run(RunArgs),

    /// Press keys, as if someone sat at the VMs
    #[command(after_help = input::KEY_EXAMPLES)]
    Key(KeyArgs),

    /// Type text on the VMs' keyboards
    #[command(after_help = input::TYPE_EXAMPLES)]
    Type(TypeArgs),

    /// Move, click, scroll and drag with the VMs' mice
    #[command(after_help = input::MOUSE_EXAMPLES)]
    Mouse(MouseArgs),

    /// Take pictures of the VMs' screens, a PNG for each
    #[command(after_help = screenshot::EXAMPLES)]
    Screenshot(ScreenshotArgs),

    /// Tell what happens to VMs, on all hosts at once, until stopped
    #[command(after_help = events::EXAMPLES)]
    Events(EventsArgs),

    /// Find what is wrong between here and the guest agents, and what to do about it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),

    /// Show and check the settings
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(ConfigCommand),

    /// Print the script that lets a shell complete commands, options, hosts, groups and VMs
    #[command(after_help = manual::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),

    /// Print the manual page, or write those of all commands to a folder
    #[command(after_help = manual::MAN_EXAMPLES)]
    Man(ManArgs),
}

impl Command {
    /// Whether the settings' file is made if there is none.
    pub(crate) fn makes_settings(&self) -> bool {
        matches!(self, Command::Host(HostCommand::Add(_)))
    }

    /// Whether it is a run over targets, which can be noted in a journal.
    pub(crate) fn is_run(&self) -> bool {
        match self {
            Command::Host(command) => matches!(command, HostCommand::Check { .. }),
            Command::Events(_)
            | Command::Doctor(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Man(_) => false,
            _ => true,
        }
    }

    /// Whether outputs are shown by what differs from the commonest of them.
    pub(crate) fn shows_differences(&self) -> bool {
        match self {
            Command::Exec(args) => args.diff,
            Command::Qmp(args) | Command::Qga(args) => args.diff,
            _ => false,
        }
    }
}

const EXAMPLES: &str = "\
Selectors of VMs, [HOST/]VM:
  'web-*'           the VMs of that name on every host
  'node7/'          all VMs of a host
  '@rack-2/db-1'    a VM on each host of a group
  '/^web-[0-9]+$/'  a regular expression on the name

Examples:
  atp --host demo=test:///default vm list
  atp exec 'web-*' --timeout 10s -- uname -r

Exit codes:
  0 all targets ok   1 some are not   2 usage or configuration   4 nothing matched
  5 stopped early   70 a bug in atp    130, 143 interrupted";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::advise;
    use crate::output::OutputFormat;
    use clap::CommandFactory as _;
    use proptest::prelude::*;

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
    fn every_command_and_option_is_on_the_page() {
        const PAGE: &str = include_str!("../../../docs/cli.md");
        fn check(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                let is_there = PAGE.match_indices(&format!("--{option}")).any(|(at, name)| {
                    !PAGE[at + name.len()..].starts_with(|c: char| c == '-' || c.is_ascii_alphanumeric())
                });
                if !is_there {
                    missing.push(format!("{path} --{option}"));
                }
            }
            let subs: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
            if subs.is_empty() && !PAGE.contains(&format!("`{path} ")) && !PAGE.contains(&format!("`{path}`"))
            {
                missing.push(path.to_owned());
            }
            for sub in subs {
                check(sub, &format!("{path} {}", sub.get_name()), missing);
            }
        }
        let mut missing = Vec::new();
        check(&Cli::command(), "atp", &mut missing);
        assert!(missing.is_empty(), "not in docs/cli.md: {missing:#?}");
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

    proptest! {
        #[test]
        fn no_word_is_lost_or_changed(
            words in prop::collection::vec(prop_oneof![
                prop::sample::select(vec!["--host", "--host=", "--host=a=x", "a=x", "--", "-", "vm", "--hosts"])
                    .prop_map(str::to_owned),
                any::<String>(),
            ], 0..8),
        ) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let gathered = gather_hosts(words.clone());
            prop_assert_eq!(gathered.first(), words.first());
            let behind = |words: &[OsString]| {
                let dashes = words.iter().skip(1).position(|word| word == "--");
                dashes.map(|at| words[at + 1..].to_vec())
            };
            prop_assert_eq!(behind(&gathered), behind(&words));
            let sorted = |mut words: Vec<OsString>| { words.sort(); words };
            prop_assert_eq!(sorted(gathered.clone()), sorted(words));
            // Whatever it is, it is read or refused.
            if let Err(error) = Cli::try_parse_from(&gathered) {
                let _ = advise(error, &gathered).to_string();
            }
        }
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
