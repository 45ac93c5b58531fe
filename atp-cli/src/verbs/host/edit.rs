//! Common parts of `atp host add` and `atp host remove`, which edit the settings file.

use std::path::{Path, PathBuf};

use atp_executor::{Data, Outcome, Status};
use atp_transport::{Effect, HostId};
use serde_json::json;

use crate::context::Context;
use crate::output::Output;
use crate::problem::{Failure, Problem};
use crate::render::{csv, for_programs, target_name};
use crate::settings::mask_uri;

/// The columns of CSV.
const COLUMNS: csv::Columns = &["uri", "file"];

/// The status of an edit that was necessary.
pub(super) fn done(context: &Context) -> Status {
    if context.dry_run { Status::Skipped } else { Status::Ok }
}

/// The file that settings are written to.
///
/// # Errors
/// There is no such file.
pub(super) fn own_file(context: &Context) -> Result<PathBuf, Problem> {
    context.settings.own_file.clone().ok_or_else(|| {
        Problem::new("no settings file: neither $XDG_CONFIG_HOME nor $HOME is an absolute path")
            .hint("name one with --config FILE")
    })
}

/// Reports the edit of a host. Returns the exit code.
pub(super) fn report(
    id: &HostId,
    uri: &str,
    path: &Path,
    op: &'static str,
    status: Status,
    context: &Context,
) -> Result<u8, Failure> {
    let file = path.display().to_string();
    let outcome = Outcome {
        host: Some(id.clone()),
        effect: if status == Status::Ok { Effect::Done } else { Effect::None },
        attempts: if status == Status::Skipped { 0 } else { 1 },
        data: Some(Data::Reply(json!({"uri": mask_uri(uri), "file": file}))),
        ..Outcome::not_started(op, status)
    };
    let mut output = Output::stdout();
    match for_programs(context.settings.output, COLUMNS, &[outcome]) {
        Some(text) => output.write(&text),
        // There is no data; the result is a message on stderr.
        None => {
            let text = match (op, status) {
                (_, Status::Unchanged) => format!("host {id} is already in {file}\n"),
                ("host-add", Status::Skipped) => format!("dry run: host {id} would be added to {file}\n"),
                ("host-add", _) => format!("host {id} added to {file}; `atp host check {id}` checks it\n"),
                (_, Status::Skipped) => format!("dry run: host {id} would be removed from {file}\n"),
                _ => format!("host {} removed from {file}\n", target_name(Some(id), None)),
            };
            if !context.console.is_quiet() {
                context.console.styled(&text);
            }
        }
    }
    Ok(output.end(&context.console))
}
