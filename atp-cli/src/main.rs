//! `atp`: batch operations on virtual machines, from the command line.
//!
//! Arguments are parsed ([`cli`]), combined with the settings ([`settings`]) and run ([`verbs`]); the outcomes are
//! rendered ([`render`]) and summed up by the exit code ([`exit`]). The work itself is done by `atp-executor` and the
//! crates below it: library users miss nothing that is here.

mod advice;
mod args;
mod batch;
mod cli;
mod completer;
mod confirm;
mod console;
mod context;
mod dry_run;
mod exit;
mod inventory;
mod journal;
mod json;
mod one_vm;
mod output;
mod password;
mod permissions;
mod pipe;
mod problem;
mod progress;
mod remote;
mod render;
mod report;
mod reservations;
mod sampling;
mod scenarios;
mod settings;
mod shell;
mod signals;
mod terminal;
mod traces;
mod units;
mod verbs;
mod words;

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::{io, panic, thread};

use clap::{CommandFactory as _, Parser as _};

use crate::cli::Cli;
use crate::console::Console;
use crate::console::LogFormat;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::settings::{Settings, Sources};
use crate::verbs::Command;
use crate::verbs::verb::Verb as _;

fn main() -> ExitCode {
    // Ends the process if a shell asks for completions.
    completer::environment(Cli::command).complete();
    let args = cli::gather_hosts(std::env::args_os());
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let error = advice::advise(error, &args);
            match advice::log_format(&args) {
                Some(LogFormat::Json) if error.use_stderr() => {
                    Console::new(LogFormat::Json, false).problem(&advice::problem(&error));
                }
                // Help and version go to stdout and are no failure; a closed stdout does not matter.
                _ => drop(error.print()),
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let log_format = cli.global.log_format.or_else(|| advice::log_format(&[]));
    let console = Console::new(log_format.unwrap_or(LogFormat::Text), cli.global.quiet);
    report_panics(console);
    let code = panic::catch_unwind(|| start(cli, console)).unwrap_or(exit::BUG);
    ExitCode::from(code)
}

/// Resolves the settings and runs the verb on a runtime. Returns the exit code.
fn start(cli: Cli, console: Console) -> u8 {
    // Verbs for the installation work whatever the settings are.
    if let Some(code) = cli.command.run_without_settings(&cli.global, &console) {
        return code;
    }
    if let Some(color) = cli.global.color {
        terminal::set_colors(color);
    }
    let mut sources = Sources::of_process(cli.global.clone());
    sources.must_exist &= !cli.command.creates_settings();
    let settings = match Settings::resolve(&sources) {
        Ok(settings) => settings,
        Err(problems) => return fail(&console, &Failure::Usage(problems)),
    };
    terminal::set_colors(settings.color);
    let console = Console::new(settings.log_format, cli.global.quiet);
    // A service that says nothing for days seems to hang.
    let at_least = u8::from(matches!(cli.command, Command::Serve(_)));
    let spans = match traces::of(&cli.command, &settings) {
        Ok(spans) => spans,
        Err(problem) => return fail(&console, &problem.into()),
    };
    console::start_log(settings.log_format, cli.global.verbose.max(at_least), spans.layer());
    if let Err(problem) = cli.command.check(&cli.global) {
        return fail(&console, &problem.into());
    }

    if let Err(error) = try_threads() {
        let problem = Problem::new("the system allows this process too few threads").because(&error);
        let hint = "raise the limit on processes: `ulimit -u`, or that of the service or container";
        return fail(&console, &problem.hint(hint).into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&console, &Problem::new("the runtime cannot be started").because(&error).into());
        }
    };
    let context = Context {
        settings,
        sources,
        console,
        journal: cli.global.policy.journal,
        resume: cli.global.policy.resume,
        dry_run: cli.global.dry_run,
        junit: cli.global.junit,
        html: cli.global.html,
        verbosity: cli.global.verbose,
        yes: cli.global.yes,
    };
    let result = runtime.block_on(cli.command.run(&context));
    // Without waiting: a call that hangs in the C library must not keep the process alive.
    runtime.shutdown_background();
    if let Err(problem) = spans.end() {
        console.problem(&problem);
    }
    result.unwrap_or_else(|failure| fail(&console, &failure))
}

/// Checks that the system allows as many threads as the runtime starts. The runtime has no error for that: it panics,
/// and waits forever for the threads that it did start.
fn try_threads() -> io::Result<()> {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // All threads exist at the same time until this is released.
        let _closed = gate.lock();
        for _ in 0..count {
            thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        Ok(())
    })
}

fn fail(console: &Console, failure: &Failure) -> u8 {
    console.failure(failure);
    failure.code()
}

/// Reports a panic as one error; `RUST_BACKTRACE` gives the standard library's report with a backtrace instead.
fn report_panics(console: Console) {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        return;
    }
    panic::set_hook(Box::new(move |info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let at = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
        console.problem(
            &Problem::new(format!("internal error: {message}{at}"))
                .hint("this is a bug in atp: please report it; RUST_BACKTRACE=1 shows where it happened"),
        );
    }));
}
