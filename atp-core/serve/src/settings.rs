//! The settings of the service: the section `[serve]` of the fleet's file.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io};

use atp_settings::{Kind, Schema, mask_uri};
use config::{ConfigError, Map, Value};
use serde::{Deserialize, Serialize};

/// A lease has to outlast some round trips to the database.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

/// The settings of the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// The address and port; port 0 for any free one. An address that is not a loopback one needs TLS.
    pub listen: String,
    /// Whether to listen without TLS on an address that is not a loopback one: tokens are then sent in clear text.
    pub insecure_listen: bool,
    /// The file of the certificate chain, PEM; empty for no TLS.
    pub tls_cert: String,
    /// The file of the certificate's private key, PEM.
    pub tls_key: String,
    /// Names by which browsers and clients may call the service, beside its address, `localhost` and the names of loopback
    /// addresses. A request for another name is refused.
    pub names: Vec<String>,
    /// The folder of the files below; empty for that of systemd (`STATE_DIRECTORY`), else `atp` in the user's folder for
    /// states.
    pub folder: String,
    /// The file of tokens; empty for `tokens.toml` in the folder.
    pub tokens: String,
    /// The database of runs; empty for `runs.sqlite` in the folder.
    pub store: String,
    /// The database of runs in PostgreSQL, as `postgres://USER@HOST/DATABASE`, in place of the file; empty for the file.
    pub database: String,
    /// The file of the password for the database; empty for `PGPASSWORD`, or `~/.pgpass`.
    pub database_password_file: String,
    /// Whether several services share the database, and with it the work on the hosts.
    pub cluster: bool,
    /// How long a service of a cluster has a host without renewing that.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How much later than its deadline a target of a lost service is given up.
    #[serde(with = "humantime_serde")]
    pub clock_slack: Duration,
    /// The audit log; empty for `audit.jsonl` in the folder.
    pub audit: String,
    /// How long a run is kept that has ended.
    #[serde(with = "humantime_serde")]
    pub run_ttl: Duration,
    /// The most runs that are kept; the oldest are forgotten.
    pub max_runs: u64,
    /// Whether all work is refused.
    pub read_only: bool,
    /// Whether metrics need no token.
    pub metrics_public: bool,
    /// The most VMs of which metrics say what they use, 0 for none. Each has some ten lines.
    pub vm_metrics: usize,
    /// How long a session of a browser lasts that is not used.
    #[serde(with = "humantime_serde")]
    pub session_ttl: Duration,
    /// How long a listing of a host is used again.
    #[serde(with = "humantime_serde")]
    pub cache_ttl: Duration,
    /// The most listings and screens that are kept.
    pub cache_entries: usize,
    /// The time for listing a host for a request.
    #[serde(with = "humantime_serde")]
    pub list_timeout: Duration,
    /// The time that a client has for the head of a request, and then for its body.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// The time that a client may take nothing of what is sent to it.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
    /// The time for requests under way, and runs, at the end.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// The most connections at the same time.
    pub max_connections: usize,
    /// The most streams of events at the same time.
    pub max_streams: usize,
    /// The most streams of events of one token at the same time.
    pub max_streams_per_token: usize,
    /// The most requests a second of one token; twice as many at once.
    pub requests_per_second: u64,
    /// The most plans that are made, and runs that are begun, in a second with one token; twice as many at once.
    pub starts_per_second: u64,
    /// The most bytes of a request, files not counted.
    pub max_body: usize,
    /// The most bytes of a file.
    pub max_file: u64,
    /// The most bytes of all files.
    pub max_files: u64,
    /// How long a file is kept.
    #[serde(with = "humantime_serde")]
    pub file_ttl: Duration,
    /// The most events that are kept for streams that resume.
    pub events: usize,
    /// The address of an OpenTelemetry collector that gets spans: OTLP over HTTP, with protobuf. Empty for none.
    pub traces: String,
    /// The share of traces that the collector gets, 0 to 1.
    pub traces_share: f64,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            listen: "127.0.0.1:9440".to_owned(),
            insecure_listen: false,
            tls_cert: String::new(),
            tls_key: String::new(),
            names: Vec::new(),
            folder: String::new(),
            tokens: String::new(),
            store: String::new(),
            database: String::new(),
            database_password_file: String::new(),
            cluster: false,
            lease: Duration::from_secs(15),
            clock_slack: Duration::from_secs(5),
            audit: String::new(),
            run_ttl: Duration::from_secs(30 * 24 * 3600),
            max_runs: 10_000,
            read_only: false,
            metrics_public: false,
            vm_metrics: 0,
            session_ttl: Duration::from_secs(12 * 3600),
            cache_ttl: Duration::from_secs(5),
            cache_entries: 20_000,
            list_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            max_connections: 1024,
            max_streams: 512,
            max_streams_per_token: 512,
            requests_per_second: 200,
            starts_per_second: 20,
            max_body: 1 << 20,
            max_file: 256 << 20,
            max_files: 4 << 30,
            file_ttl: Duration::from_secs(24 * 3600),
            events: 10_000,
            traces: String::new(),
            traces_share: 1.0,
        }
    }
}

impl ServeConfig {
    /// The keys of the section.
    ///
    /// # Errors
    /// The defaults cannot be read as settings: a defect of this crate.
    pub fn schema() -> Result<Schema, ConfigError> {
        let table = atp_settings::table_of(&ServeConfig::default())
            .map_err(|error| ConfigError::Message(error.to_string()))?;
        let mut schema = Schema::of_defaults(&table);
        // Without time nothing is done, and without room nothing is kept.
        let times = [
            "lease",
            "run_ttl",
            "session_ttl",
            "list_timeout",
            "request_timeout",
            "stall_timeout",
            "file_ttl",
        ];
        let counts = [
            "max_runs",
            "cache_entries",
            "max_connections",
            "max_streams",
            "max_streams_per_token",
            "requests_per_second",
            "starts_per_second",
            "max_body",
            "max_file",
            "max_files",
            "events",
        ];
        let kinds = times.map(|key| (key, Kind::Timeout)).into_iter();
        for (key, kind) in kinds.chain(counts.map(|key| (key, Kind::AtLeastOne))) {
            schema.replace(&[key], Some(Schema::Value(kind)));
        }
        Ok(schema)
    }

    /// Every value that cannot be used although it is of its kind: its key, and what is wrong with it.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let is_address = |text: &str| {
            let parts = text.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        let is_url = |text: &str| ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        let checks = [
            (
                "listen",
                is_address(&self.listen),
                format!("is {:?}; it must be an address and port, such as \"127.0.0.1:9440\"", self.listen),
            ),
            (
                "lease",
                !self.cluster || self.lease >= SHORTEST_LEASE,
                format!("is shorter than {}", humantime::format_duration(SHORTEST_LEASE)),
            ),
            (
                "traces",
                self.traces.is_empty() || is_url(&self.traces),
                format!("is {:?}; it must be an http or https URL", mask_uri(&self.traces)),
            ),
            (
                "traces_share",
                (0.0..=1.0).contains(&self.traces_share),
                format!("is {}; it must be from 0 to 1", self.traces_share),
            ),
        ];
        checks.into_iter().filter(|(_, ok, _)| !ok).map(|(key, _, problem)| (key, problem)).collect()
    }

    /// Puts the values of a running service in the place of those that only a start takes over, and names those that differ.
    pub(crate) fn keep_fixed(&mut self, running: &ServeConfig) -> Vec<&'static str> {
        let mut changed = Vec::new();
        macro_rules! keep {
            ($($key:ident),+ $(,)?) => {$(
                if self.$key != running.$key {
                    changed.push(stringify!($key));
                    self.$key.clone_from(&running.$key);
                }
            )+};
        }
        keep!(
            listen,
            insecure_listen,
            folder,
            tokens,
            store,
            database,
            database_password_file,
            cluster,
            lease,
            clock_slack,
            audit,
            max_connections,
            max_streams,
            cache_entries,
            events,
            traces,
            traces_share,
        );
        // A certificate may be replaced, and TLS begins or ends with a start.
        if self.tls_cert.is_empty() != running.tls_cert.is_empty() {
            changed.push("tls_cert");
            self.tls_cert.clone_from(&running.tls_cert);
            self.tls_key.clone_from(&running.tls_key);
        }
        changed
    }

    /// Reads the section.
    ///
    /// # Errors
    /// A value that the schema lets pass cannot be used.
    pub fn of(section: Map<String, Value>) -> Result<Self, ConfigError> {
        Value::new(None, section).try_deserialize()
    }

    /// The folder of the service's files.
    ///
    /// # Errors
    /// None is set, and the environment names none.
    pub fn folder(&self) -> Result<PathBuf, NoFolder> {
        if !self.folder.is_empty() {
            return Ok(PathBuf::from(&self.folder));
        }
        let absolute =
            |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        absolute("STATE_DIRECTORY")
            .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("atp")))
            .or_else(|| Some(absolute("HOME")?.join(".local/state/atp")))
            .ok_or(NoFolder)
    }

    /// The file of tokens.
    ///
    /// # Errors
    /// As [`folder`](Self::folder).
    pub fn tokens(&self) -> Result<PathBuf, NoFolder> {
        self.file(&self.tokens, "tokens.toml")
    }

    /// The database of runs.
    ///
    /// # Errors
    /// As [`folder`](Self::folder).
    pub fn store(&self) -> Result<PathBuf, NoFolder> {
        self.file(&self.store, "runs.sqlite")
    }

    /// The audit log.
    ///
    /// # Errors
    /// As [`folder`](Self::folder).
    pub fn audit(&self) -> Result<PathBuf, NoFolder> {
        self.file(&self.audit, "audit.jsonl")
    }

    /// The folder of files that were sent, or that runs have made.
    ///
    /// # Errors
    /// As [`folder`](Self::folder).
    pub fn files(&self) -> Result<PathBuf, NoFolder> {
        Ok(self.folder()?.join("files"))
    }

    fn file(&self, set: &str, name: &str) -> Result<PathBuf, NoFolder> {
        if set.is_empty() { Ok(self.folder()?.join(name)) } else { Ok(Path::new(set).to_owned()) }
    }
}

/// Makes a folder of the service's files, which only its owner can look into. One that is there stays as it is. Blocks.
pub(crate) fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// There is no folder for the service's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no folder for the service's files: `serve.folder` is not set, and neither are STATE_DIRECTORY, XDG_STATE_HOME and HOME"
)]
pub struct NoFolder;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_for_prometheus_has_the_default_address() {
        let example = include_str!("../../../configs/prometheus/prometheus.yml");
        assert!(example.contains(&format!("targets: [\"{}\"]", ServeConfig::default().listen)), "{example}");
    }

    #[test]
    fn the_section_that_the_schema_describes_can_be_read() {
        let table = atp_settings::table_of(&ServeConfig::default()).unwrap();
        assert_eq!(ServeConfig::of(table).unwrap(), ServeConfig::default());
        let Schema::Section(keys) = ServeConfig::schema().unwrap() else { panic!() };
        assert!(keys.contains_key("listen") && keys.contains_key("stall_timeout"));
    }

    #[test]
    fn values_that_leave_nothing_are_refused_by_name() {
        assert!(ServeConfig::default().problems().is_empty());
        let wrong = ServeConfig {
            listen: "hello".to_owned(),
            cluster: true,
            lease: Duration::from_secs(1),
            traces: "nonsense".to_owned(),
            traces_share: 7.0,
            ..ServeConfig::default()
        };
        let keys: Vec<_> = wrong.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["listen", "lease", "traces", "traces_share"]);
        for listen in ["127.0.0.1:0", "[::1]:9440", "localhost:9440"] {
            assert!(
                ServeConfig { listen: listen.to_owned(), ..ServeConfig::default() }.problems().is_empty()
            );
        }
        let Schema::Section(keys) = ServeConfig::schema().unwrap() else { panic!() };
        for (key, kind) in [("stall_timeout", Kind::Timeout), ("max_runs", Kind::AtLeastOne)] {
            assert_eq!(keys[key], Schema::Value(kind), "{key}");
        }
        assert_eq!(keys["cache_ttl"], Schema::Value(Kind::Duration), "none is kept");
    }

    #[test]
    fn what_only_a_start_takes_over_stays_and_is_named() {
        let running = ServeConfig::default();
        let mut new = ServeConfig {
            folder: "/other".to_owned(),
            tls_cert: "/cert".to_owned(),
            tls_key: "/key".to_owned(),
            read_only: true,
            ..running.clone()
        };
        assert_eq!(new.keep_fixed(&running), ["folder", "tls_cert"]);
        assert_eq!(new, ServeConfig { read_only: true, ..running.clone() });
        // A certificate is replaced by another.
        let running = ServeConfig { tls_cert: "/a".to_owned(), ..running };
        let mut new = ServeConfig { tls_cert: "/b".to_owned(), ..running.clone() };
        assert_eq!((new.keep_fixed(&running), new.tls_cert.as_str()), (Vec::new(), "/b"));
    }
}
