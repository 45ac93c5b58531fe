//! The settings of a run: flags over the environment over files over defaults, each value with its origin. Everything that is
//! wrong with them is reported at once.

pub(crate) mod edit;

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_executor::Policy;
use atp_protocol::TextEncoding;
use atp_settings::{CORRECT_IT, ConfigProblem, Kind, Layer, Schema, key_text, load, parse_duration};
use atp_transport::{Fleet, HostInfo, TransportConfig};
use clap::ValueEnum;
use config::{ConfigError, Map, Value, ValueKind};
use serde::{Deserialize, Serialize};

use crate::args::{GlobalArgs, NONE};
use crate::console::LogFormat;
use crate::output::OutputFormat;
use crate::problem::Problem;
use crate::terminal::ColorMode;

pub(crate) use atp_settings::mask_uri;

/// The file for all users of the machine.
pub(crate) const SYSTEM_FILE: &str = "/etc/atp/config.toml";

/// What the names of the environment variables start with, an underscore after it.
const ENV_PREFIX: &str = "ATP";

/// The origin of values that no source sets.
const DEFAULT: &str = "default";

/// Where the settings come from, before anything is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// Files, the later over the earlier; those that need not exist are passed over when they do not.
    pub(crate) files: Vec<PathBuf>,
    /// Whether the file was named by the user: it is then the inventory, even if it is empty.
    pub(crate) is_explicit: bool,
    /// Whether a file that is not there is an error.
    pub(crate) must_exist: bool,
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
        Sources { files, is_explicit, must_exist: is_explicit, variables, flags }
    }

    /// The same for the loader, with the keys and the defaults of the command line.
    fn for_loader(&self, flags: Vec<Layer>, warm: usize) -> Result<atp_settings::Sources, ConfigError> {
        let files = match &self.files[..] {
            [file] if self.must_exist => atp_settings::Sources::file(file),
            files => atp_settings::Sources::files(files.iter().cloned()),
        };
        let sources = files
            .with_schema(schema()?)
            .with_defaults(defaults(warm)?)
            .with_environment(ENV_PREFIX, self.variables.iter().cloned());
        Ok(flags.into_iter().fold(sources, atp_settings::Sources::with_layer))
    }

    /// The same for a program that follows them. It keeps `warm` connections to each host, where the settings do not say
    /// otherwise.
    ///
    /// # Errors
    /// What is wrong with the flags.
    #[cfg(feature = "serve")]
    pub(crate) fn followed(&self, warm: usize) -> Result<atp_settings::Sources, Vec<Problem>> {
        let mut problems = Vec::new();
        let flags = flag_layers(&self.flags, &mut problems);
        match self.for_loader(flags, warm) {
            Ok(sources) if problems.is_empty() => Ok(sources),
            Ok(_) => Err(problems),
            Err(error) => Err(vec![unexpected(&error)]),
        }
    }
}

/// The user's file. A folder that is not absolute is passed over: it would be found from the current folder,
/// and nothing is read from there.
fn user_file(variables: &[(String, String)]) -> Option<PathBuf> {
    Some(user_folder(variables)?.join("config.toml"))
}

/// The folder of the user's files.
fn user_folder(variables: &[(String, String)]) -> Option<PathBuf> {
    let folder = |name: &str| {
        let (_, value) = variables.iter().find(|(variable, _)| variable == name)?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    folder("XDG_CONFIG_HOME")
        .or_else(|| Some(folder("HOME")?.join(".config")))
        .map(|folder| folder.join("atp"))
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
    /// Whether something was masked.
    #[serde(skip)]
    is_secret: bool,
}

impl Entry {
    /// Whether no source sets it.
    pub(crate) fn is_default(&self) -> bool {
        self.origin == DEFAULT
    }
}

/// The service that verbs are run through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its address.
    pub(crate) url: String,
    /// The file that has the token.
    pub(crate) token_file: PathBuf,
    /// The file with the certificates of the authorities that may sign the service's; those of the system without one.
    pub(crate) ca_file: Option<PathBuf>,
}

/// The settings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The form of the data on stdout.
    pub(crate) output: OutputFormat,
    /// The policy of a run.
    pub(crate) policy: Policy,
    /// When to use colours.
    pub(crate) color: ColorMode,
    /// The form of the messages on stderr.
    pub(crate) log_format: LogFormat,
    /// The service that verbs are run through.
    pub(crate) server: Option<Server>,
    /// The file of reservations, without a service.
    pub(crate) reservations_file: Option<PathBuf>,
    /// The transport's tunables.
    pub(crate) transport: TransportConfig,
    /// The hosts, by id.
    pub(crate) hosts: Vec<HostInfo>,
    /// The settings of the service.
    #[cfg(feature = "serve")]
    pub(crate) serve: atp_serve::ServeConfig,
    /// Every setting with its origin.
    pub(crate) entries: Vec<Entry>,
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
    /// The file that commands write settings to: the one the user named, or else the user's own.
    pub(crate) own_file: Option<PathBuf>,
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
        let (mut problems, mut found) = (Vec::new(), Vec::new());
        let flags = flag_layers(&sources.flags, &mut problems);
        let sources_for_loader = sources.for_loader(flags, 0).map_err(|error| vec![unexpected(&error)])?;
        let loaded = load(&sources_for_loader, &Fleet::schema(), &mut found);
        let is_inventory = |layer: &Layer| layer.get(&["hosts"]).is_some();
        let has_inventory =
            sources.is_explicit || loaded.layers.iter().take(loaded.files.len()).any(is_inventory);
        let fleet = Fleet::of(&loaded, &mut found);
        #[cfg(feature = "serve")]
        let serve = loaded.section("serve");
        found.sort_by_cached_key(place);
        problems.extend(found.into_iter().map(Problem::from));
        let entries =
            loaded.merged.cache.clone().into_table().map(|table| entries(&table)).unwrap_or_default();
        let top =
            loaded.merged.try_deserialize::<Top>().map_err(|error| problems.push(unexpected(&error))).ok();
        let mut unusable = |key: &str, problem: String| {
            let origin = entries.iter().find(|entry| entry.key == key).map(|entry| &entry.origin);
            let origin = origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
            problems.push(Problem::new(format!("{origin}`{key}` {problem}")).hint(CORRECT_IT));
        };
        if let Some(Err(error)) = top.as_ref().map(|top| top.encoding.parse::<TextEncoding>()) {
            unusable("encoding", format!("cannot be used: {error}"));
        }
        let is_url = |text: &str| text == NONE || text.starts_with("http://") || text.starts_with("https://");
        if let Some(top) = top.as_ref().filter(|top| !is_url(&top.server)) {
            let problem =
                format!("is {:?}; it must be an http or https URL, or {NONE:?}", mask_uri(&top.server));
            unusable("server", problem);
        }
        #[cfg(feature = "serve")]
        let serve = match atp_serve::ServeConfig::of(serve) {
            Ok(serve) => {
                for (key, problem) in serve.problems() {
                    unusable(&format!("serve.{key}"), problem);
                }
                serve
            }
            Err(error) => {
                problems.push(unexpected(&error));
                atp_serve::ServeConfig::default()
            }
        };
        match (top, fleet) {
            (Some(top), Some(fleet)) if problems.is_empty() => Ok(Settings {
                output: top.output,
                policy: top.policy(),
                color: top.color,
                log_format: top.log_format,
                server: top.server(user_folder(&sources.variables)),
                reservations_file: some(&top.reservations_file).map(PathBuf::from),
                transport: fleet.config,
                hosts: fleet.hosts,
                #[cfg(feature = "serve")]
                serve,
                entries,
                files: loaded.files,
                own_file: sources.files.last().cloned(),
                has_inventory,
            }),
            _ => Err(problems),
        }
    }

    /// Whether a file holds a secret: a password in a URI.
    pub(crate) fn has_secrets(&self, file: &Path) -> bool {
        let place = format!("{}:", file.display());
        self.entries.iter().any(|entry| entry.is_secret && entry.origin.starts_with(&place))
    }

    /// Where a host's URI, or else its address, is set.
    pub(crate) fn origin_of_host(&self, id: &str) -> Option<&str> {
        ["uri", "address"].iter().find_map(|field| {
            let key = key_text(&["hosts", id, field]);
            self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.origin.as_str())
        })
    }
}

/// The settings at the top of a file. Limits that may be absent are as they are written, `none` among them.
#[derive(Serialize, Deserialize)]
struct Top {
    output: OutputFormat,
    parallel: usize,
    per_host: String,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    deadline: String,
    retries: u64,
    max_failures: String,
    serial: String,
    color: ColorMode,
    log_format: LogFormat,
    encoding: String,
    server: String,
    server_token_file: String,
    server_ca_file: String,
    reservations_file: String,
}

/// A text of the settings that may be `none`.
fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| text != NONE)
}

impl Top {
    /// The service that verbs are run through. `folder` has the user's files.
    fn server(&self, folder: Option<PathBuf>) -> Option<Server> {
        let token_file = some(&self.server_token_file).map(PathBuf::from);
        Some(Server {
            url: some(&self.server)?,
            token_file: token_file.unwrap_or_else(|| folder.unwrap_or_default().join("token")),
            ca_file: some(&self.server_ca_file).map(PathBuf::from),
        })
    }

    /// The policy of a run. The values were checked before: what is no limit now is `none`.
    fn policy(&self) -> Policy {
        Policy {
            parallel: self.parallel,
            per_host: self.per_host.parse().ok(),
            timeout: self.timeout,
            deadline: parse_duration(&self.deadline).ok(),
            retries: u32::try_from(self.retries).unwrap_or(u32::MAX),
            max_failures: self.max_failures.parse().ok(),
            serial: self.serial.parse().ok(),
            // UTF-8 is what is assumed without one.
            encoding: self.encoding.parse().ok().filter(|encoding: &TextEncoding| encoding.name() != "utf-8"),
            ..Policy::default()
        }
    }
}

/// An error in values that were all checked before.
fn unexpected(error: &ConfigError) -> Problem {
    Problem::new("the settings cannot be merged").because(error)
}

/// The keys of the command line, beside those of the fleet.
fn schema() -> Result<Schema, ConfigError> {
    let or_none =
        |kinds: &[Kind]| Schema::Value(Kind::AnyOf([kinds, &[Kind::Choice(vec![NONE.to_owned()])]].concat()));
    Ok(Schema::section([
        #[cfg(feature = "serve")]
        ("serve", atp_serve::ServeConfig::schema()?),
        ("output", Schema::Value(choice::<OutputFormat>())),
        ("parallel", Schema::Value(Kind::AtLeastOne)),
        ("per_host", or_none(&[Kind::AtLeastOne])),
        ("timeout", Schema::Value(Kind::Timeout)),
        ("deadline", or_none(&[Kind::Timeout])),
        ("retries", Schema::Value(Kind::Count)),
        ("max_failures", or_none(&[Kind::AtLeastOne, Kind::Percent])),
        ("serial", or_none(&[Kind::AtLeastOne, Kind::Percent])),
        ("color", Schema::Value(choice::<ColorMode>())),
        ("log_format", Schema::Value(choice::<LogFormat>())),
        ("encoding", Schema::Value(Kind::Text)),
        ("server", Schema::Value(Kind::Text)),
        ("server_token_file", Schema::Value(Kind::Text)),
        ("server_ca_file", Schema::Value(Kind::Text)),
        ("reservations_file", Schema::Value(Kind::Text)),
    ]))
}

/// The defaults of every setting that has one.
fn defaults(warm: usize) -> Result<Layer, ConfigError> {
    #[derive(Serialize)]
    struct Defaults {
        #[serde(flatten)]
        top: Top,
        transport: TransportConfig,
        #[cfg(feature = "serve")]
        serve: atp_serve::ServeConfig,
    }
    let policy = Policy::default();
    let none = || NONE.to_owned();
    let top = Top {
        output: OutputFormat::Table,
        parallel: policy.parallel,
        per_host: none(),
        timeout: policy.timeout,
        deadline: none(),
        retries: policy.retries.into(),
        max_failures: none(),
        serial: none(),
        color: ColorMode::Auto,
        log_format: LogFormat::Text,
        encoding: "utf-8".to_owned(),
        server: none(),
        server_token_file: none(),
        server_ca_file: none(),
        reservations_file: none(),
    };
    let mut transport = TransportConfig::default();
    // Without a service nothing connects to a host that no work needs.
    transport.pool.min_connections_per_host = warm;
    // As many as targets at once: none has to share a connection with one that hangs.
    transport.pool.max_connections_per_host = 64;
    let defaults = Defaults {
        top,
        transport,
        #[cfg(feature = "serve")]
        serve: atp_serve::ServeConfig::default(),
    };
    let table = atp_settings::table_of(&defaults).map_err(|error| ConfigError::Message(error.to_string()))?;
    let mut layer = Layer::default();
    for (path, value) in atp_settings::values(&table) {
        layer.set(&path, DEFAULT, value.kind.clone());
    }
    Ok(layer)
}

/// Where a problem is: the source, and the line of a file. Lines are compared as numbers.
fn place(problem: &ConfigProblem) -> (String, usize) {
    let origin = problem.origin.as_deref().unwrap_or_default();
    match origin.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?))) {
        Some((file, line)) => (file.to_owned(), line),
        None => (origin.to_owned(), 0),
    }
}

/// The flags that are settings too, a layer each, named as they are typed.
fn flag_layers(flags: &GlobalArgs, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let policy = &flags.policy;
    let given = [
        ("transport.engine", flags.engine.clone()),
        ("output", flags.output.as_ref().map(name_of)),
        ("parallel", flags.parallel.map(|parallel| parallel.to_string())),
        ("per_host", policy.per_host.clone()),
        ("timeout", flags.timeout.map(|timeout| humantime::format_duration(timeout).to_string())),
        ("deadline", policy.deadline.clone()),
        ("retries", policy.retries.map(|retries| retries.to_string())),
        ("max_failures", policy.max_failures.clone()),
        ("serial", policy.serial.clone()),
        ("color", flags.color.as_ref().map(name_of)),
        ("log_format", flags.log_format.as_ref().map(name_of)),
        ("server", flags.server.clone()),
    ];
    let layer = |(key, text): (&str, Option<String>)| {
        let flag = key.rsplit('.').next().unwrap_or(key).replace('_', "-");
        Some(Layer::map(&format!("--{flag}"), [(key, text?)]))
    };
    let mut layers: Vec<_> = given.into_iter().filter_map(layer).collect();
    let (mut hosts, mut seen) = (Layer::default(), BTreeSet::new());
    for host in &flags.hosts {
        if !seen.insert(host.id.as_str()) {
            problems.push(
                Problem::new(format!("--host gives the host {} twice", host.id))
                    .hint("give each host a different id"),
            );
        }
        hosts.set(&["hosts", host.id.as_str(), "uri"], "--host", host.uri.as_str());
    }
    layers.push(hosts);
    layers
}

/// Every setting: first those at the top, then the transport's, the service's, and the hosts.
fn entries(settings: &Map<String, Value>) -> Vec<Entry> {
    let mut values = atp_settings::values(settings);
    values.sort_by_key(|(path, _)| match path.first() {
        Some(&"transport") => 1,
        Some(&"serve") => 2,
        Some(&"hosts") => 3,
        _ => 0,
    });
    let entry = |(path, value): (Vec<&str>, &Value)| {
        let masked = match (&path[..], &value.kind) {
            (["hosts", _, "uri" | "address"], ValueKind::String(uri)) => {
                Some(mask_uri(uri)).filter(|masked| masked != uri)
            }
            _ => None,
        };
        Entry {
            key: key_text(&path),
            is_secret: masked.is_some(),
            value: masked.map_or_else(|| value.clone().try_deserialize().unwrap_or_default(), Into::into),
            origin: value.origin().unwrap_or(DEFAULT).to_owned(),
        }
    };
    values.into_iter().map(entry).collect()
}

/// The words of an option of the command line.
fn choice<T: ValueEnum>() -> Kind {
    Kind::Choice(T::value_variants().iter().map(name_of).collect())
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
