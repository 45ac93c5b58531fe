//! The settings a run goes by: flags over the environment over files over defaults, each value with its
//! origin, and everything that is wrong with them reported at once.

mod hosts;
mod kind;
mod layer;
mod schema;
mod secret;

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use atp_transport::{HostInfo, TransportConfig};
use config::{Config, Map, Value, ValueKind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::{ColorMode, GlobalArgs, LogFormat, OutputFormat};
use crate::problem::Problem;
use layer::Layer;
use schema::Node;

pub(crate) use secret::mask_uri;

/// The file for all users of the machine.
const SYSTEM_FILE: &str = "/etc/atp/config.toml";

/// The file of one user, below the folder for configurations.
const USER_FILE: &str = "atp/config.toml";

/// Where the settings come from, before anything is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// Files, the later over the earlier; those that need not exist are passed over when they do not.
    pub(crate) files: Vec<PathBuf>,
    /// Whether the file was named by the user, and so must exist.
    pub(crate) is_explicit: bool,
    /// The environment.
    pub(crate) variables: Vec<(String, String)>,
    /// The flags.
    pub(crate) flags: GlobalArgs,
}

impl Sources {
    /// The sources of this process.
    pub(crate) fn of_process(flags: GlobalArgs) -> Self {
        let variables: Vec<_> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let is_explicit = flags.config.is_some();
        let files = match &flags.config {
            Some(file) => vec![file.clone()],
            None => [Some(PathBuf::from(SYSTEM_FILE)), user_file(&variables)].into_iter().flatten().collect(),
        };
        Sources { files, is_explicit, variables, flags }
    }
}

/// The user's file. A folder that is not absolute is passed over: it would be found from the current folder,
/// and nothing is read from there.
fn user_file(variables: &[(String, String)]) -> Option<PathBuf> {
    let folder = |name: &str| {
        let (_, value) = variables.iter().find(|(variable, _)| variable == name)?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    folder("XDG_CONFIG_HOME")
        .or_else(|| Some(folder("HOME")?.join(".config")))
        .map(|folder| folder.join(USER_FILE))
}

/// A setting as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Entry {
    /// The key, as it is written in a file.
    pub(crate) key: String,
    /// The value, secrets masked.
    pub(crate) value: serde_json::Value,
    /// Where it was set: `FILE:LINE`, a variable of the environment, a flag, or `default`.
    pub(crate) origin: String,
}

impl Entry {
    /// Whether nobody set it.
    pub(crate) fn is_default(&self) -> bool {
        self.origin == layer::DEFAULT
    }
}

/// The settings a run goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The form of the data on stdout.
    pub(crate) output: OutputFormat,
    /// Targets worked on at once.
    pub(crate) parallel: usize,
    /// Time for listing a host, and then for each target.
    pub(crate) timeout: Duration,
    /// When to use colours.
    pub(crate) color: ColorMode,
    /// The form of the messages on stderr.
    pub(crate) log_format: LogFormat,
    /// The transport's tunables.
    pub(crate) transport: TransportConfig,
    /// The hosts, by id.
    pub(crate) hosts: Vec<HostInfo>,
    /// Every setting with its origin.
    pub(crate) entries: Vec<Entry>,
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
    /// Whether the user named a file, or a file has a `[hosts]` section: the inventory is then what they say,
    /// even if it is empty.
    pub(crate) has_inventory: bool,
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every problem that was found.
    pub(crate) fn resolve(sources: &Sources) -> Result<Settings, Vec<Problem>> {
        let mut problems = Vec::new();
        let keys = Node::all();
        let (mut layers, files) = read_layers(sources, &mut problems);
        let has_inventory = sources.is_explicit
            || layers.iter().any(|layer| !layer.is_text && layer.table.contains_key("hosts"));
        layers.iter_mut().for_each(|layer| keys.check(layer, &mut problems));
        layers.insert(0, Layer::defaults(&defaults()));

        let merged = match merge(&layers) {
            Ok(merged) => merged,
            Err(error) => {
                problems.push(unexpected(&error));
                return Err(problems);
            }
        };
        let transport = read_transport(&merged, &mut problems);
        let hosts = match merged.get("hosts").map(|hosts| hosts.kind.clone()) {
            Some(ValueKind::Table(table)) => {
                hosts::read_hosts(table, |id| origin(&layers, &["hosts", id]), &mut problems)
            }
            _ => Vec::new(),
        };
        let root = Value::new(None, merged);
        let entries = entries(&root);
        let top =
            root.try_deserialize::<Top>().map_err(|error| unexpected(&error)).map_err(|p| problems.push(p));
        match (top, transport) {
            (Ok(top), Some(transport)) if problems.is_empty() => Ok(Settings {
                output: top.output,
                parallel: top.parallel,
                timeout: top.timeout,
                color: top.color,
                log_format: top.log_format,
                transport,
                hosts,
                entries,
                files,
                has_inventory,
            }),
            _ => Err(problems),
        }
    }

    /// Where a host's URI, or else its address, is set.
    pub(crate) fn origin_of_host(&self, id: &str) -> Option<&str> {
        ["uri", "address"].iter().find_map(|field| {
            let key = schema::key_text(&["hosts".to_owned(), id.to_owned(), (*field).to_owned()]);
            self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.origin.as_str())
        })
    }
}

/// The settings at the top of a file.
#[derive(Deserialize)]
struct Top {
    output: OutputFormat,
    parallel: usize,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    color: ColorMode,
    log_format: LogFormat,
}

/// An error in values that were all checked before.
fn unexpected(error: &config::ConfigError) -> Problem {
    Problem::new("the settings cannot be put together").because(error)
}

/// The defaults of every setting that has one.
fn defaults() -> serde_json::Value {
    let policy = atp_executor::Policy::default();
    json!({
        "output": "table",
        "parallel": policy.parallel,
        "timeout": humantime::format_duration(policy.timeout).to_string(),
        "color": "auto",
        "log_format": "text",
        "transport": schema::transport_defaults(),
    })
}

/// Reads the files, the environment and the flags, lowest first.
fn read_layers(sources: &Sources, problems: &mut Vec<Problem>) -> (Vec<Layer>, Vec<PathBuf>) {
    let mut layers = Vec::new();
    let mut files = Vec::new();
    for path in &sources.files {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                files.push(path.clone());
                match Layer::file(path, &text) {
                    Ok(layer) => layers.push(layer),
                    Err(problem) => problems.push(problem),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !sources.is_explicit => {}
            Err(error) => problems.push(
                Problem::new(format!("the settings in {} cannot be read", path.display()))
                    .because(&error)
                    .hint("check the path given with --config and the file's permissions"),
            ),
        }
    }
    layers.push(Layer::environment(&sources.variables));
    layers.push(flag_layer(&sources.flags, problems));
    (layers, files)
}

fn flag_layer(flags: &GlobalArgs, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::empty();
    if let Some(output) = flags.output {
        layer.set(&["output"], "--output", name_of(output));
    }
    if let Some(parallel) = flags.parallel {
        layer.set(&["parallel"], "--parallel", i64::try_from(parallel).unwrap_or(i64::MAX));
    }
    if let Some(timeout) = flags.timeout {
        layer.set(&["timeout"], "--timeout", humantime::format_duration(timeout).to_string());
    }
    if let Some(color) = flags.color {
        layer.set(&["color"], "--color", name_of(color));
    }
    if let Some(format) = flags.log_format {
        layer.set(&["log_format"], "--log-format", name_of(format));
    }
    let mut seen = BTreeSet::new();
    for host in &flags.hosts {
        if !seen.insert(host.id.as_str()) {
            problems.push(
                Problem::new(format!("--host gives the host {} twice", host.id))
                    .hint("give each host an id of its own"),
            );
        }
        layer.set(&["hosts", host.id.as_str(), "uri"], "--host", host.uri.as_str());
    }
    layer
}

fn merge(layers: &[Layer]) -> Result<Map<String, Value>, config::ConfigError> {
    let builder = layers.iter().fold(Config::builder(), |builder, layer| builder.add_source(layer.clone()));
    builder.build()?.cache.into_table()
}

/// The transport's settings, each tried by itself so that every one that does not fit is named.
fn read_transport(merged: &Map<String, Value>, problems: &mut Vec<Problem>) -> Option<TransportConfig> {
    let section = merged.get("transport")?;
    let defaults = schema::transport_defaults();
    let before = problems.len();
    let mut leaves = Vec::new();
    collect_leaves(&mut Vec::new(), section, &mut leaves);
    for (path, value) in &leaves {
        let mut alone = defaults.clone();
        let pointer = format!("/{}", path.join("/"));
        let Some(place) = alone.pointer_mut(&pointer) else { continue };
        *place = layer::to_json(value);
        if let Err(error) = serde_json::from_value::<TransportConfig>(alone) {
            problems.push(
                Problem::new(format!(
                    "{}: `transport.{}` is {value}: {error}",
                    value.origin().unwrap_or(layer::DEFAULT),
                    path.join("."),
                ))
                .hint("correct the value, or take the setting out to use its default"),
            );
        }
    }
    if problems.len() > before {
        return None;
    }
    let config = serde_json::from_value::<TransportConfig>(layer::to_json(section));
    let config = config
        .map_err(|error| {
            problems.push(Problem::new("the settings in [transport] do not fit").because(&error))
        })
        .ok()?;
    if let Err(error) = config.validate() {
        for wrong in error.problems {
            let at = leaves.iter().find(|(path, _)| path.join(".") == wrong.path);
            let origin = at.and_then(|(_, value)| value.origin()).unwrap_or(layer::DEFAULT);
            problems.push(
                Problem::new(format!("{origin}: `transport.{}` {}", wrong.path, wrong.problem))
                    .hint("correct the value, or take the setting out to use its default"),
            );
        }
        return None;
    }
    Some(config)
}

fn collect_leaves<'a>(path: &mut Vec<String>, value: &'a Value, leaves: &mut Vec<(Vec<String>, &'a Value)>) {
    match &value.kind {
        ValueKind::Table(table) => {
            let mut keys: Vec<_> = table.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            for (key, value) in keys {
                path.push(key.clone());
                collect_leaves(path, value, leaves);
                path.pop();
            }
        }
        _ => leaves.push((path.clone(), value)),
    }
}

/// Every setting: first those at the top, then the transport's, then the hosts.
fn entries(root: &Value) -> Vec<Entry> {
    let mut leaves = Vec::new();
    collect_leaves(&mut Vec::new(), root, &mut leaves);
    leaves.sort_by_key(|(path, _)| match path.first().map(String::as_str) {
        Some("transport") => 1,
        Some("hosts") => 2,
        _ => 0,
    });
    leaves
        .into_iter()
        .map(|(path, value)| {
            let is_uri = path.first().is_some_and(|section| section == "hosts")
                && path.last().is_some_and(|field| field == "uri" || field == "address");
            Entry {
                key: schema::key_text(&path),
                value: if is_uri { mask_uri(&value.to_string()).into() } else { layer::to_json(value) },
                origin: value.origin().unwrap_or(layer::DEFAULT).to_owned(),
            }
        })
        .collect()
}

fn name_of(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Where the table at a path is defined: by the layer that has the last word on it.
fn origin(layers: &[Layer], path: &[&str]) -> String {
    let find = |layer: &Layer| {
        let (first, rest) = path.split_first()?;
        let mut value = layer.table.get(*first)?;
        for part in rest {
            let ValueKind::Table(table) = &value.kind else { return None };
            value = table.get(*part)?;
        }
        value.origin().map(str::to_owned)
    };
    layers.iter().rev().find_map(find).unwrap_or_else(|| layer::DEFAULT.to_owned())
}

#[cfg(test)]
mod tests;
