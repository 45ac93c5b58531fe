//! Better hints for command lines that cannot be parsed, where clap's own hints mislead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, ValueEnum as _};

use crate::cli::Cli;
use crate::console::LogFormat;
use crate::problem::Problem;

/// Replaces clap's hint with a better one, if there is one.
pub(crate) fn advise(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    if let Some(tip) = tip(&error, args) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The format of messages that the arguments ask for, or else the environment. The arguments may not parse.
pub(crate) fn log_format(args: &[OsString]) -> Option<LogFormat> {
    const OPTION: &str = "--log-format";
    let words = args.iter().take_while(|word| *word != "--").map(|word| word.to_string_lossy());
    let words: Vec<_> = words.collect();
    let joined = words.iter().filter_map(|word| word.strip_prefix(OPTION)?.strip_prefix('='));
    let apart = words.windows(2).filter(|pair| pair[0] == OPTION).map(|pair| pair[1].as_ref());
    let given = apart.chain(joined).next().map(str::to_owned);
    let given = given.or_else(|| std::env::var("ATP_LOG_FORMAT").ok())?;
    LogFormat::from_str(&given, false).ok()
}

/// The error as a [`Problem`], with clap's tips as the hint.
pub(crate) fn problem(error: &clap::Error) -> Problem {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Problem::new("a command is missing").hint("`--help` lists the commands");
    }
    let text = error.to_string();
    let (message, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.trim_end().strip_prefix("error: ").unwrap_or(message);
    let tips: Vec<_> = rest.lines().filter_map(|line| line.trim_start().strip_prefix("tip: ")).collect();
    let problem = Problem::new(message);
    if tips.is_empty() {
        problem.hint("`--help` lists the arguments and options")
    } else {
        problem.hint(tips.join("; "))
    }
}

fn tip(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let words: Vec<_> = args.iter().skip(1).map(|word| word.to_string_lossy()).collect();
    let dashes = words.iter().position(|word| word == "--");
    let (before, after) = words.split_at(dashes.unwrap_or(words.len()));
    match error.kind() {
        ErrorKind::ValueValidation => {
            let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
            if before.windows(2).any(|pair| pair[0] == "--spool" && pair[1] == *value) {
                return Some(format!("write the folder of --spool after '=': --spool={value}"));
            }
            (value.starts_with("--") && after.iter().any(|word| word == value))
                .then(|| "words after '--' are not options: put options before it".to_owned())
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument
            if dashes.is_none() && error.get(ContextKind::SuggestedArg).is_none() =>
        {
            let cli = Cli::command();
            let (verb, rest) = before.iter().find_map(|word| {
                let verb = cli.find_subcommand(word.as_ref())?;
                let last = verb.get_arguments().find(|argument| argument.is_last_set())?;
                Some((verb, last.get_value_names()?.join(" ")))
            })?;
            Some(format!("write the words for the VMs after '--': atp {} SEL -- {rest}…", verb.get_name()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::gather_hosts;
    use clap::Parser as _;

    fn message(line: &str) -> String {
        let args = gather_hosts(line.split(' ').map(OsString::from));
        advise(Cli::try_parse_from(&args).unwrap_err(), &args).to_string()
    }

    #[test]
    fn hints_say_what_was_meant() {
        for (line, tip) in [
            ("atp exec h1/vm1 --spool /root -- dmesg", "--spool=/root"),
            ("atp exec h1/vm1 uname -r", "after '--': atp exec SEL -- CMD…"),
            ("atp -o json exec h1/vm1 uname", "after '--': atp exec SEL -- CMD…"),
            ("atp key h1/vm1 -- enter --hold 10s", "put options before it"),
        ] {
            let message = message(line);
            assert!(message.contains(tip), "{line}: {message}");
            assert!(!message.contains("use '-- "), "{line}: {message}");
        }
    }

    #[test]
    fn other_errors_keep_their_hints() {
        for line in
            ["atp exec h1/vm1 --spol -- x", "atp vm list --nosuch", "atp exec web[ -- x", "atp exec -- x"]
        {
            let message = message(line);
            assert!(
                !message.contains("goes after '--'") && !message.contains("put options"),
                "{line}: {message}"
            );
        }
    }
}
