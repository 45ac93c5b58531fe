//! `atp host add` and `atp host remove`: the inventory in the settings' file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use atp_executor::{Data, Outcome, Status};
use atp_transport::{Effect, HostId, HostInfo};
use serde_json::json;

use crate::args::HostAddArgs;
use crate::context::Context;
use crate::inventory;
use crate::json as json_form;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::problem::{Failure, Problem};
use crate::render::{csv, name, target_name};
use crate::settings::edit::{NewHost, SettingsFile};
use crate::settings::mask_uri;

/// Adds a host. One that is there as it is asked for is left as it is.
pub(crate) async fn add(args: HostAddArgs, context: &Context) -> Result<u8, Failure> {
    let HostAddArgs { id, uri, groups, labels } = args;
    if mask_uri(&uri) != uri {
        return Err(Problem::new(format!("the URI {} holds a password; nothing was done", mask_uri(&uri)))
            .hint("arguments and files are read by others: leave the password out, and use a key or [hosts.ID.auth]")
            .into());
    }
    let path = own_file(context)?;
    let labels: BTreeMap<_, _> = labels.into_iter().map(|label| (label.key, label.value)).collect();
    check(&id, &uri).await?;
    let mut file = SettingsFile::open(&path)?;
    if file.has(id.as_str()) {
        let known = context.settings.hosts.iter().find(|host| host.id == id.as_str());
        let differences = known.map(|known| differences(known, &uri, &groups, &labels)).unwrap_or_default();
        if differences.is_empty() {
            return report(&id, &uri, &path, "host-add", Status::Unchanged, context);
        }
        let place = context.settings.origin_of_host(id.as_str()).unwrap_or_default();
        return Err(Problem::new(format!("the host {id} is defined already: {}", differences.join("; ")))
            .cause(place)
            .hint(format!("choose another id, or `atp host remove {id}` first"))
            .into());
    }
    if !context.dry_run {
        file.add(id.as_str(), &NewHost { uri: uri.clone(), groups, labels });
        file.save()?;
    }
    report(&id, &uri, &path, "host-add", done(context), context)
}

/// In what a host is not as it is asked for. What was not given may be as it is.
fn differences(
    known: &HostInfo,
    uri: &str,
    groups: &[String],
    labels: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut differences = Vec::new();
    let known_uri = known.effective_uri();
    if known_uri != uri {
        differences.push(format!("its URI is {}, not {uri}", mask_uri(&known_uri)));
    }
    let sorted = |groups: &[String]| groups.iter().cloned().collect::<BTreeSet<_>>();
    if !groups.is_empty() && sorted(&known.groups) != sorted(groups) {
        differences.push(format!("its groups are {}, not {}", listed(&known.groups), listed(groups)));
    }
    if !labels.is_empty() && known.labels != *labels {
        let pairs = |labels: &BTreeMap<String, String>| {
            listed(&labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        };
        differences.push(format!("its labels are {}, not {}", pairs(&known.labels), pairs(labels)));
    }
    differences
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Removes a host.
pub(crate) fn remove(id: &HostId, context: &Context) -> Result<u8, Failure> {
    let path = own_file(context)?;
    let mut file = SettingsFile::open(&path)?;
    if !file.has(id.as_str()) {
        let problem = Problem::new(format!("{}: defines no host {id}", path.display()));
        return Err(match context.settings.origin_of_host(id.as_str()) {
            Some(origin) => {
                problem.hint(format!("it is defined by {origin}: name that file with --config, or edit it"))
            }
            None => problem.hint("`atp host list` shows the hosts there are"),
        }
        .into());
    }
    let host = context.settings.hosts.iter().find(|host| host.id == id.as_str());
    let uri = host.map(HostInfo::effective_uri).unwrap_or_default();
    if !context.dry_run {
        file.remove(id.as_str());
        file.save()?;
    }
    report(id, &uri, &path, "host-remove", done(context), context)
}

fn done(context: &Context) -> Status {
    if context.dry_run { Status::Skipped } else { Status::Ok }
}

fn own_file(context: &Context) -> Result<PathBuf, Problem> {
    context.settings.own_file.clone().ok_or_else(|| {
        Problem::new(
            "there is no file for your settings: neither $XDG_CONFIG_HOME nor $HOME is an absolute path",
        )
        .hint("name one with --config FILE")
    })
}

/// A URI that cannot be used is not written.
async fn check(id: &HostId, uri: &str) -> Result<(), Problem> {
    inventory::check(&HostInfo::from_uri(id.as_str(), uri)).await.map_err(|error| {
        Problem::new(format!("host {id} cannot have the URI {:?}; nothing was done", mask_uri(uri)))
            .cause(inventory::reason(&error))
            .hint(error.hint())
    })
}

fn report(
    id: &HostId,
    uri: &str,
    path: &std::path::Path,
    op: &'static str,
    status: Status,
    context: &Context,
) -> Result<u8, Failure> {
    let file = path.display().to_string();
    let outcome = Outcome {
        host: Some(id.clone()),
        vm: None,
        uuid: None,
        op,
        status,
        effect: if status == Status::Ok { Effect::Done } else { Effect::None },
        attempts: if status == Status::Skipped { 0 } else { 1 },
        duration_ms: 0,
        data: Some(Data::Reply(json!({"uri": mask_uri(uri), "file": file}))),
        error: None,
    };
    let mut output = Output::stdout();
    match context.settings.output {
        // There is no data; who wants to know is told on stderr.
        OutputFormat::Table => {
            let text = match (op, status) {
                (_, Status::Unchanged) => format!("host {id} is in {file} already\n"),
                ("host-add", Status::Skipped) => format!("dry run: host {id} would be added to {file}\n"),
                ("host-add", _) => format!("host {id} added to {file}; `atp host check {id}` tries it\n"),
                (_, Status::Skipped) => format!("dry run: host {id} would be removed from {file}\n"),
                _ => format!("host {} removed from {file}\n", target_name(Some(id), None)),
            };
            if !context.console.is_quiet() {
                context.console.styled(&text);
            }
        }
        OutputFormat::Json => output.write(&json_form::array(&[outcome])),
        OutputFormat::Jsonl => output.write(&json_form::line(&outcome)),
        OutputFormat::Csv => output.write(&csv::outcomes(&["uri", "file"], &[outcome])),
        OutputFormat::Name => output.write(&name::names(&[outcome])),
    }
    Ok(output.end(&context.console))
}
