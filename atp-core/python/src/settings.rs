//! The settings of a fleet: the files and variables of the command line `atp`, or what a program gives.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use atp_api::{ErrorKind, OutcomeError, Policy};
use atp_client::ClientOptions;
use atp_settings::{
    ConfigError, ConfigProblem, Kind, Layer, Loaded, Schema, Sources, load, mask_uri, parse_duration,
};
use atp_transport::{Fleet, HostInfo};
use config::ValueKind;
use serde_json::Value;

use crate::error;

/// What the names of environment variables start with.
const ENV_PREFIX: &str = "ATP";

/// The file for all users of the machine.
const SYSTEM_FILE: &str = "/etc/atp/config.toml";

/// As many connections to a host as there are targets at once: none has to share one with a target that hangs.
const MAX_CONNECTIONS: i64 = 64;

/// The word for a limit that is absent.
const NONE: &str = "none";

/// Where the settings come from.
pub(crate) struct Given {
    /// A file that must exist; without it, those of the machine and of the user, unless `hosts` are given.
    pub(crate) file: Option<PathBuf>,
    /// Whether the files of the machine and of the user are read if no other is named.
    pub(crate) with_own_files: bool,
    /// Whether the program has given hosts itself, be it none.
    pub(crate) has_hosts: bool,
    /// The environment.
    pub(crate) variables: Vec<(String, String)>,
    /// Values by their paths, above all others.
    pub(crate) values: Vec<(Vec<String>, Value)>,
}

/// The settings of a fleet.
pub(crate) struct Settings {
    pub(crate) backend: Chosen,
    pub(crate) policy: Policy,
    /// The file of reservations, if the settings name one.
    pub(crate) reservations: Option<PathBuf>,
}

/// What does the work.
pub(crate) enum Chosen {
    Hosts(Box<Fleet>),
    Service(ClientOptions),
}

impl Settings {
    /// Reads and checks everything. Blocks while it reads files.
    ///
    /// # Errors
    /// Every problem that was found.
    pub(crate) fn load(given: Given) -> Result<Self, OutcomeError> {
        let is_named = given.file.is_some() || given.has_hosts;
        let own = user_file(&given.variables);
        let files = match (given.file, given.with_own_files) {
            (Some(file), _) => Sources::file(file),
            (None, true) => {
                Sources::files([Some(PathBuf::from(SYSTEM_FILE)), own.clone()].into_iter().flatten())
            }
            (None, false) => Sources::default(),
        };
        let defaults = Layer::map(
            "default",
            [
                ("transport.pool.min_connections_per_host", 0),
                ("transport.pool.max_connections_per_host", MAX_CONNECTIONS),
            ],
        );
        let mut values = Layer::default();
        for (path, value) in given.values {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            values.set(&path, "Fleet()", kind_of(value));
        }
        let sources = files
            .with_schema(schema())
            .with_defaults(defaults)
            .with_environment(ENV_PREFIX, given.variables)
            .with_layer(values);
        let mut problems = Vec::new();
        let loaded = load(&sources, &Fleet::schema(), &mut problems);
        let fleet = Fleet::of(&loaded, &mut problems);
        let policy = policy(&loaded, &mut problems);
        let reservations = loaded.merged.get_string("reservations_file").ok();
        let reservations = reservations.filter(|file| file != NONE).map(PathBuf::from);
        // Settings that name a service are those of the command line, which works through it too.
        if problems.is_empty()
            && !given.has_hosts
            && let Some(service) = named_service(&loaded, own)?
        {
            return Ok(Settings { backend: Chosen::Service(service), policy, reservations: None });
        }
        match fleet {
            Some(mut fleet) if problems.is_empty() => {
                if fleet.hosts.is_empty() {
                    let is_inventory = |layer: &Layer| layer.get(&["hosts"]).is_some();
                    if is_named || loaded.layers.iter().take(loaded.files.len()).any(is_inventory) {
                        return Err(error::of_settings(&ConfigError { problems: vec![no_host(&loaded)] }));
                    }
                    let uri = atp_transport::default_uri().unwrap_or_else(|| "qemu:///system".to_owned());
                    fleet.hosts.push(HostInfo::from_uri("local", uri));
                }
                Ok(Settings { backend: Chosen::Hosts(Box::new(fleet)), policy, reservations })
            }
            _ => Err(error::of_settings(&ConfigError { problems })),
        }
    }
}

/// The service that the settings name, if they name one, with the token of the file that they name, or of `token` beside the user's
/// own file.
///
/// # Errors
/// The token cannot be read.
fn named_service(loaded: &Loaded, own: Option<PathBuf>) -> Result<Option<ClientOptions>, OutcomeError> {
    let text = |key: &str| loaded.merged.get_string(key).ok().filter(|text| text != NONE);
    let Some(url) = text("server") else { return Ok(None) };
    let beside = || own.unwrap_or_default().with_file_name("token");
    let file = text("server_token_file").map_or_else(beside, PathBuf::from);
    let token = fs::read_to_string(&file).map_err(|error| {
        let message = format!("the token for {} cannot be read from {}: {error}", mask_uri(&url), file.display());
        let hint = "write the token that `atp serve token add` printed into that file, name another one in server_token_file, or \
                    connect from this machine with settings={\"server\": \"none\"}";
        OutcomeError::new(ErrorKind::InvalidConfig, message).with_hint(hint)
    })?;
    let options = ClientOptions::new(&url, token);
    Ok(Some(match text("server_ca_file") {
        Some(file) => options.with_ca_file(PathBuf::from(file)),
        None => options,
    }))
}

/// There is no host where somebody has said which there are.
fn no_host(loaded: &Loaded) -> ConfigProblem {
    let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let files = if files.is_empty() { "the program".to_owned() } else { files.join(" and ") };
    ConfigProblem::new("hosts", None, format!("the inventory is empty: {files} defines no host")).hint(
        "give hosts={\"h1\": \"qemu+tcp://10.0.0.7/system\"}, or a section such as [hosts.h1] in the file",
    )
}

/// The user's file, if its folder is an absolute one.
fn user_file(variables: &[(String, String)]) -> Option<PathBuf> {
    let folder = |name: &str| {
        let (_, value) = variables.iter().find(|(variable, _)| variable == name)?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    let folder = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(folder.join("atp/config.toml"))
}

/// The keys of the command line's file that are a run's policy, or name a service or the file of reservations.
fn schema() -> Schema {
    let or_none =
        |kinds: &[Kind]| Schema::Value(Kind::AnyOf([kinds, &[Kind::Choice(vec![NONE.to_owned()])]].concat()));
    Schema::section([
        ("parallel", Schema::Value(Kind::AtLeastOne)),
        ("per_host", or_none(&[Kind::AtLeastOne])),
        ("timeout", Schema::Value(Kind::Timeout)),
        ("deadline", or_none(&[Kind::Timeout])),
        ("retries", Schema::Value(Kind::Count)),
        ("max_failures", or_none(&[Kind::AtLeastOne, Kind::Percent])),
        ("serial", or_none(&[Kind::AtLeastOne, Kind::Percent])),
        ("encoding", Schema::Value(Kind::Text)),
        ("server", Schema::Value(Kind::Text)),
        ("server_token_file", Schema::Value(Kind::Text)),
        ("server_ca_file", Schema::Value(Kind::Text)),
        ("reservations_file", Schema::Value(Kind::Text)),
    ])
}

/// The policy in settings that were checked, except for the name of the encoding. What is no limit is `none`, and is read as none.
fn policy(loaded: &Loaded, problems: &mut Vec<ConfigProblem>) -> Policy {
    let text = |key: &str| loaded.merged.get_string(key).ok();
    let duration = |key: &str| -> Option<Duration> { parse_duration(&text(key)?).ok() };
    let encoding = text("encoding").map(|text| text.parse());
    if let Some(Err(error)) = &encoding {
        let origin = loaded.origin(&["encoding"]).map(str::to_owned);
        problems.push(ConfigProblem::new("encoding", origin, format!("encoding: {error}")));
    }
    let base = Policy::default();
    Policy {
        parallel: text("parallel").and_then(|text| text.parse().ok()).unwrap_or(base.parallel),
        per_host: text("per_host").and_then(|text| text.parse().ok()),
        timeout: duration("timeout").unwrap_or(base.timeout),
        deadline: duration("deadline"),
        retries: text("retries").and_then(|text| text.parse().ok()).unwrap_or(base.retries),
        max_failures: text("max_failures").and_then(|text| text.parse().ok()),
        serial: text("serial").and_then(|text| text.parse().ok()),
        encoding: encoding.and_then(Result::ok),
        ..base
    }
}

fn kind_of(value: Value) -> ValueKind {
    match value {
        Value::Null => ValueKind::Nil,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::String(text) => text.into(),
        Value::Array(values) => ValueKind::Array(
            values.into_iter().map(|value| config::Value::new(None, kind_of(value))).collect(),
        ),
        Value::Object(values) => {
            let value = |(key, value)| (key, config::Value::new(None, kind_of(value)));
            ValueKind::Table(values.into_iter().map(value).collect())
        }
    }
}
