//! A fleet as it should be, and how a manager is brought in line with it while work runs.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};

use atp_settings::{Loaded, Schema, Sources, load};
use tokio::runtime::Handle;

use super::changes::Changes;
use super::hosts::{host_schema, read_hosts};
use crate::config::{ConfigError, ConfigProblem, TransportConfig};
use crate::connection::connector::Connector;
use crate::error::{ErrorKind, TransportError};
use crate::host::{HostId, HostInfo};
use crate::manager::{TransportManager, drain};
use crate::observe::events::TransportEvent;

/// All hosts of a fleet, and the configuration of those that have none of their own.
///
/// [`TransportManager::apply`] brings a manager in line with one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// The common configuration.
    pub config: TransportConfig,
    /// The hosts.
    pub hosts: Vec<HostInfo>,
}

/// Keys at the top of a file that are the command line's: it keeps its settings beside those of the fleet.
const OF_THE_COMMAND_LINE: [&str; 16] = [
    "output",
    "parallel",
    "per_host",
    "timeout",
    "deadline",
    "retries",
    "max_failures",
    "serial",
    "color",
    "log_format",
    "encoding",
    "serve",
    "server",
    "server_token_file",
    "server_ca_file",
    "reservations_file",
];

impl Fleet {
    /// The keys of a file that describes a fleet: the sections `transport` and `hosts`. What the command line keeps in the
    /// same file is passed over.
    pub fn schema() -> Schema {
        let hosts = Schema::Each(Box::new(host_schema()));
        let mut keys = BTreeMap::from(OF_THE_COMMAND_LINE.map(|key| (key.to_owned(), Schema::Foreign)));
        keys.insert("transport".to_owned(), TransportConfig::schema());
        keys.insert("hosts".to_owned(), hosts);
        Schema::Section(keys)
    }

    /// Reads a fleet from files, the environment and maps. A program with settings of its own in the same files adds their
    /// keys with [`Sources::with_schema`], and defaults that differ from the library's with [`Sources::with_defaults`].
    ///
    /// Blocks while it reads files.
    ///
    /// # Errors
    /// Every problem at once, each with its key and its origin.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Fleet::load_with_files(sources).0
    }

    /// As [`load`](Self::load), with the files that were there.
    pub(super) fn load_with_files(sources: &Sources) -> (Result<Self, ConfigError>, Vec<PathBuf>) {
        let mut problems = Vec::new();
        let loaded = load(sources, &Fleet::schema(), &mut problems);
        let fleet = Fleet::of(&loaded, &mut problems);
        (ConfigError::unless_empty(problems).map(|()| fleet.unwrap_or_default()), loaded.files)
    }

    /// The fleet in settings that were loaded by [`schema`](Self::schema), for a program that reads its own settings from them
    /// too. What cannot be used is added to `problems`; none if the common configuration cannot be used.
    pub fn of(loaded: &Loaded, problems: &mut Vec<ConfigProblem>) -> Option<Self> {
        let common = TransportConfig::builder().settings("transport", &loaded.section("transport"));
        let config = common.clone().build().map_err(|error| problems.extend(error.problems)).ok();
        let origin = |id: &str| loaded.origin(&["hosts", id]).map(str::to_owned);
        let common = config.is_some().then_some(&common);
        let hosts = read_hosts(loaded.section("hosts"), origin, common, problems);
        Some(Fleet { config: config?, hosts })
    }

    /// Reads the text of a TOML file; `name` is what the file is called in messages.
    ///
    /// ```
    /// use atp_transport::Fleet;
    ///
    /// let fleet = Fleet::from_toml(
    ///     "fleet.toml",
    ///     "[transport]\ncall_timeout = '20s'\n[hosts.node7]\nuri = 'qemu+tcp://10.0.0.7/system'\nweight = 2",
    /// )?;
    /// assert_eq!((fleet.hosts[0].id.as_str(), fleet.hosts[0].weight), ("node7", 2));
    ///
    /// let error = Fleet::from_toml("fleet.toml", "[hosts.node7]\nurl = 'x'").unwrap_err();
    /// assert!(error.to_string().starts_with("fleet.toml:2: unknown key `hosts.node7.url`"));
    /// # Ok::<(), atp_transport::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Every problem at once, each with its key and its line.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ConfigError> {
        Fleet::load(&Sources::default().with_toml(name, text))
    }

    /// Reads a TOML file. Blocks while it does.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), and when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Fleet::load(&Sources::file(path.as_ref()))
    }
}

impl<C: Connector> TransportManager<C> {
    /// Brings the manager in line with `fleet` without dropping work: adds hosts, removes them, and has those that
    /// stay go by their new configuration, limits, weights, groups and labels at once.
    ///
    /// Where a limit is lowered, calls that are under way go on; connections that are too many are closed when
    /// their leases are back. What is settled when a connection is opened (its lifetime, keepalive) holds for
    /// connections opened from then on. Removed and replaced hosts drain in the background.
    ///
    /// # Errors
    /// [`TransportError::Config`](crate::TransportError::Config) with every problem at once, each under its key
    /// (`transport.…`, `hosts.ID.…`). Nothing has changed then.
    ///
    /// Must be called within a tokio runtime.
    pub fn apply(&self, fleet: Fleet) -> Result<Changes, TransportError> {
        let mut hosts = match self.check(&fleet) {
            Ok(hosts) => hosts,
            Err(error) => {
                let problems = error.problems.iter().map(ToString::to_string).collect();
                self.emit_for_all(TransportEvent::ConfigurationRefused { problems });
                return Err(error.into());
            }
        };
        // Panics where there is none, before anything has changed.
        let runtime = Handle::current();
        let mut state = self.state_mut();
        self.adopt(&mut state, fleet.config);
        let mut changes = Changes::default();
        for (id, pool) in mem::take(&mut state.hosts) {
            match hosts.remove(&id) {
                None => {
                    self.emit(&id, TransportEvent::HostRemoved);
                    runtime.spawn(drain(pool));
                    changes.removed.push(id);
                }
                Some(info)
                    if !info.is_reached_as(&pool.info())
                        || self.config_of(&state, &info).engine != pool.config().engine =>
                {
                    self.emit(&id, TransportEvent::HostRemoved);
                    runtime.spawn(drain(pool));
                    changes.replaced.push(id.clone());
                    self.open_pool(&mut state, id, info);
                }
                Some(info) => {
                    let config = self.config_of(&state, &info);
                    if config != *pool.config() || info != *pool.info() {
                        changes.reconfigured.push(id.clone());
                        pool.reconfigure(info, config);
                    }
                    state.hosts.insert(id, pool);
                }
            }
        }
        for (id, info) in hosts {
            changes.added.push(id.clone());
            self.open_pool(&mut state, id, info);
        }
        drop(state);
        self.emit_for_all(TransportEvent::ConfigurationApplied { changes: changes.clone() });
        Ok(changes)
    }

    /// The hosts of a fleet by their ids, if everything about it can be used.
    fn check(&self, fleet: &Fleet) -> Result<BTreeMap<HostId, HostInfo>, ConfigError> {
        let mut problems = Vec::new();
        let mut add = |section: &[&str], error: ConfigError| {
            problems.extend(error.problems.into_iter().map(|problem| problem.below(section)));
        };
        if let Err(error) = fleet.config.validate() {
            add(&["transport"], error);
        }
        let (mut hosts, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for info in &fleet.hosts {
            let section = ["hosts", info.id.as_str()];
            let problem = |text: String, kind: ErrorKind| ConfigError {
                problems: vec![ConfigProblem::new("", None, text).hint(kind.hint())],
            };
            let id = match info.id.parse::<HostId>() {
                Ok(id) => id,
                Err(error) => {
                    add(&section, problem(error.to_string(), ErrorKind::InvalidHostId));
                    continue;
                }
            };
            if !seen.insert(id.clone()) {
                let twice = format!("the host {id} is given twice");
                add(&section, problem(twice, ErrorKind::DuplicateHost));
            }
            if let Err(reason) = self.connector().validate(info) {
                add(&section, problem(format!("host {id}: {reason}"), ErrorKind::InvalidUri));
            }
            if let Some(own) = &info.config
                && let Err(error) = fleet.config.validate_for_host(own)
            {
                add(&["hosts", info.id.as_str(), "transport"], error);
            }
            hosts.insert(id, info.clone());
        }
        ConfigError::unless_empty(problems).map(|()| hosts)
    }
}
