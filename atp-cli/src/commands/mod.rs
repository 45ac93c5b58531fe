//! What each command does, a noun a file. Most are an operation over a selection of VMs, carried out by [`batch`].

mod config;
mod copy;
mod doctor;
pub(crate) mod events;
mod exec;
mod host;
mod input;
mod inventory_file;
pub(crate) mod manual;
mod raw;
mod run;
mod screenshot;
mod vm;
mod wait;

use std::io;
use std::path::Path;

use atp_executor::Selection;

use crate::args::{Command, NarrowArgs, TargetArgs};
use crate::context::Context;
use crate::problem::{Failure, Problem};

/// Carries out a command. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run(command: Command, context: &Context) -> Result<u8, Failure> {
    if !command.is_run() && (context.journal.is_some() || context.resume.is_some()) {
        let problem = Problem::new("--journal and --resume are of runs over targets, and this is none");
        return Err(problem.hint("leave them out").into());
    }
    if let Some(junit) = &context.junit {
        if !(command.is_run() || matches!(command, Command::Doctor(_))) {
            let problem = Problem::new("--junit is of outcomes of targets, and there are none here");
            return Err(problem.hint("leave it out").into());
        }
        let journals = context.journal.iter().chain(&context.resume);
        if journals.into_iter().any(|journal| is_same_file(journal, junit)) {
            let message = format!("--junit {}: it is the journal, which it would replace", junit.display());
            return Err(Problem::new(message).hint("name another file").into());
        }
    }
    match command {
        Command::Host(command) => host::run(command, context).await,
        Command::Vm(command) => vm::run(command, context).await,
        Command::Exec(args) => exec::run(args, context).await,
        Command::Cp(args) => copy::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Qmp(args) => raw::qmp(args, context).await,
        Command::Qga(args) => raw::qga(args, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Key(args) => input::key(args, context).await,
        Command::Type(args) => input::text(args, context).await,
        Command::Mouse(args) => input::mouse(args, context).await,
        Command::Screenshot(args) => screenshot::run(args, context).await,
        Command::Events(args) => events::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Config(command) => config::run(command, context).await,
        Command::Completions(args) => Ok(manual::completions(&args, &context.console)),
        Command::Man(args) => Ok(manual::man(&args, context.dry_run, &context.console)),
    }
}

/// Whether two paths lead to one file, which may not be there yet.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        path.canonicalize().or_else(|_| Ok(folder.canonicalize()?.join(path.file_name().unwrap_or_default())))
    };
    matches!((real(one), real(other)), (Ok::<_, io::Error>(one), Ok(other)) if one == other)
}

/// The VMs that a command's arguments select.
fn selection(targets: TargetArgs) -> Selection {
    narrowed(Selection::of(targets.selectors), targets.narrow)
}

fn narrowed(selection: Selection, narrow: NarrowArgs) -> Selection {
    Selection { exclude: narrow.exclude, state: narrow.state, labels: narrow.labels, ..selection }
}
