//! The parsed command line: global options and a verb. [`crate::settings`] combines the options with the settings.

use std::ffi::OsString;

use clap::Parser;

use crate::args::GlobalArgs;
use crate::verbs::Command;

/// Run one operation on many virtual machines at once, through libvirt.
///
/// Every target gets exactly one outcome by its deadline, even if hosts or VMs hang. Data goes to stdout, everything
/// else to stderr.
#[derive(Debug, Parser)]
#[command(name = "atp", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Selectors of VMs, [HOST/]VM:
  'web-*'           VMs with such names, on every host
  'node7/'          all VMs of a host
  '@rack-2/db-1'    a VM on each host of a group
  '/^web-[0-9]+$/'  a regular expression on the name

Examples:
  atp --host demo=test:///default vm list
  atp exec 'web-*' --timeout 10s -- uname -r

Exit codes:
  0 all targets ok   1 some targets not ok   2 usage or configuration   4 nothing matched
  5 stopped early   70 a bug in atp    130, 143 interrupted";

/// Moves every `--host` to the front, right after the program's name.
///
/// A repeatable option can stand before and after the command, but clap keeps only the values of one place.
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
            // Without a value it stays where it is, so that the error points at it.
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
    fn the_definition_is_valid() {
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

    /// Splits a line into words as a shell does, up to the end of the command. No variable has a value.
    fn split_words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut open) = (Vec::new(), String::new(), None, false);
        for c in line.trim().chars().chain([' ']) {
            match c {
                '\'' | '"' if quoted.is_none() => (quoted, open) = (Some(c), true),
                c if quoted == Some(c) => quoted = None,
                ' ' | ';' | '|' | '&' | ')' | '>' | '#' if quoted.is_none() => {
                    if open || !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    open = false;
                    if c != ' ' {
                        return words;
                    }
                }
                c => word.push(c),
            }
        }
        words
    }

    /// The pages, each with its name.
    fn pages() -> Vec<(String, String)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = ["", "docs"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
        let files = files.into_iter().flatten().map(|entry| entry.unwrap().path());
        let pages = files.filter(|file| file.extension().is_some_and(|extension| extension == "md"));
        pages.map(|file| (file.display().to_string(), std::fs::read_to_string(&file).unwrap())).collect()
    }

    #[test]
    fn every_command_line_of_the_pages_is_accepted() {
        let (mut refused, mut count) = (Vec::new(), 0);
        for (page, text) in pages() {
            // Every second part is a block, whose first line is its language.
            for block in text.split("```").skip(1).step_by(2) {
                let (language, lines) = block.split_once('\n').unwrap();
                if !["", "sh", "console"].contains(&language.trim()) {
                    continue;
                }
                for line in lines.lines() {
                    let line = line.trim_start().trim_start_matches("$ ").trim_start_matches("# ");
                    // The form of all lines is none.
                    let begins = (line.starts_with("atp ") && !line.contains("[OPTIONS]")).then_some(0);
                    let Some(at) = begins.or_else(|| Some(line.find("$(atp ")? + 2)) else { continue };
                    let words = split_words(&line[at..]);
                    let words: Vec<_> = words.iter().map(String::as_str).collect();
                    if let Err(error) = parse(&words) {
                        refused.push(format!("{page}: {line}: {error}"));
                    }
                    count += 1;
                }
            }
        }
        assert_eq!(refused, Vec::<String>::new());
        assert!(count > 35, "the pages are not read as they are written: {count}");
    }

    #[test]
    fn every_command_and_option_in_the_text_of_the_pages_exists() {
        let mut atp = Cli::command();
        atp.build();
        let (mut unknown, mut count) = (Vec::new(), 0);
        for (page, text) in pages() {
            let prose = text.split("```").step_by(2);
            for span in prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)) {
                let Some(words) = span.strip_prefix("atp ") else { continue };
                let mut command = &atp;
                let mut words = words.split_whitespace().take_while(|word| *word != "--").peekable();
                while let Some(sub) = words.peek().and_then(|word| command.find_subcommand(word)) {
                    command = sub;
                    words.next();
                }
                let has_subcommands = command.get_subcommands().next().is_some();
                let is_placeholder = |word: &str| !word.starts_with(|c: char| c.is_ascii_lowercase());
                if has_subcommands && !words.peek().is_none_or(|word| is_placeholder(word)) {
                    unknown.push(format!("{page}: {span}"));
                }
                for option in words.filter_map(|word| word.trim_matches(['[', ']']).strip_prefix("--")) {
                    let name = option.split('=').next();
                    if !command.get_arguments().any(|argument| argument.get_long() == name) {
                        unknown.push(format!("{page}: {span}"));
                    }
                }
                count += 1;
            }
        }
        assert_eq!(unknown, Vec::<String>::new());
        assert!(count > 100, "the pages are not read as they are written: {count}");
    }

    #[test]
    fn every_command_and_option_is_on_the_page() {
        const PAGE: &str = include_str!("../../docs/cli.md");
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
    fn hosts_before_and_after_the_command_are_combined() {
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
            // It is parsed or refused, without a panic.
            if let Err(error) = Cli::try_parse_from(&gathered) {
                let _ = advise(error, &gathered).to_string();
            }
        }
    }

    #[test]
    fn words_after_two_dashes_are_not_options() {
        let words = ["atp", "exec", "web", "--host", "a=test:///default", "--", "ls", "--host", "x"];
        let matches = Cli::command().get_matches_from(gather_hosts(words.map(OsString::from)));
        let exec = matches.subcommand_matches("exec").unwrap();
        let command: Vec<_> = exec.get_many::<String>("command").unwrap().collect();
        assert_eq!(command, ["ls", "--host", "x"]);
        assert_eq!(exec.get_many::<atp_executor::Selector>("selectors").unwrap().count(), 1);
        assert_eq!(parse(&words).unwrap().global.hosts.len(), 1);
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
