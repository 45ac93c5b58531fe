//! A configuration put together from files, the environment, maps and code.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use atp_settings::{self as settings, CORRECT_IT, Kind, Layer, Schema, Sources, load};
use config::{Config, Map, Value, ValueKind};

use super::{ConfigError, ConfigProblem, Engine, SelectionStrategy, SharedUuids, TransportConfig};

/// Puts a [`TransportConfig`] together; the later value counts. See [`TransportConfig::builder`].
#[derive(Debug, Clone)]
pub struct TransportConfigBuilder {
    config: TransportConfig,
    /// What sources said last of each key, for the origins.
    said: BTreeMap<String, Value>,
    /// What stands before the transport's keys in the source.
    prefix: String,
    problems: Vec<ConfigProblem>,
}

impl TransportConfig {
    /// Starts with the defaults, and takes what is set by any mix of sources, the later over the earlier. All
    /// problems of all of them are reported at the end, each with the key and where it was set.
    ///
    /// ```
    /// use atp_transport::{SelectionStrategy, TransportConfig};
    ///
    /// let config = TransportConfig::builder()
    ///     .with(|config| config.pool.selection_strategy = SelectionStrategy::LeastConnections)
    ///     .toml("call_timeout = '20s'\n[pool]\nmax_connections_per_host = 4")
    ///     .environment("MYTOOL") // MYTOOL_POOL__MAX_CONNECTIONS_PER_HOST=8
    ///     .map("--set", [("pool.idle_timeout", "2m")])
    ///     .build()?;
    /// assert_eq!(config.pool.max_connections_per_host, 4);
    ///
    /// let error = TransportConfig::builder().toml("[pool]\nmax_conections_per_host = 4").build().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "TOML:2: unknown key `pool.max_conections_per_host` (did you mean `max_connections_per_host`?)"
    /// );
    /// # Ok::<(), atp_transport::ConfigError>(())
    /// ```
    pub fn builder() -> TransportConfigBuilder {
        TransportConfig::default().to_builder()
    }

    /// As [`builder`](Self::builder), but starts with these values. So a host gets a configuration of its own
    /// that differs from the common one in what is set here.
    pub fn to_builder(&self) -> TransportConfigBuilder {
        let (said, prefix) = (BTreeMap::new(), String::new());
        TransportConfigBuilder { config: self.clone(), said, prefix, problems: Vec::new() }
    }

    /// The keys there are, and what each takes.
    pub fn schema() -> Schema {
        let mut schema = Schema::of_defaults(&table(&TransportConfig::default()));
        let engines = Engine::ALL.iter().map(ToString::to_string).collect();
        schema.replace(&["engine"], Some(Schema::Value(Kind::Choice(engines))));
        let meanings = SharedUuids::ALL.iter().map(ToString::to_string).collect();
        schema.replace(&["shared_uuids"], Some(Schema::Value(Kind::Choice(meanings))));
        let strategies = SelectionStrategy::ALL.iter().map(ToString::to_string).collect();
        schema.replace(&["pool", "selection_strategy"], Some(Schema::Value(Kind::Choice(strategies))));
        schema.keep_former(&["pool"], "strategy", "selection_strategy");
        schema
    }

    /// As [`schema`](Self::schema), without the keys that hold for all hosts together.
    pub fn host_schema() -> Schema {
        let mut schema = TransportConfig::schema();
        for (path, _) in TransportConfig::default().shared() {
            schema.replace(&path.split('.').collect::<Vec<_>>(), None);
        }
        schema
    }
}

impl TransportConfigBuilder {
    /// Takes values from the text of a TOML file, with the keys of [`TransportConfig`] at its top.
    pub fn toml(self, text: &str) -> Self {
        self.sources(&Sources::default().with_toml("TOML", text))
    }

    /// Takes values from a TOML file; it is an error if there is none. Reads the file now, and blocks for it.
    pub fn toml_file(self, path: impl AsRef<Path>) -> Self {
        self.sources(&Sources::file(path.as_ref()))
    }

    /// Takes values from the variables of this process's environment that start with `prefix` and an
    /// underscore: `PREFIX_POOL__MAX_CONNECTIONS_PER_HOST` is `pool.max_connections_per_host`.
    pub fn environment(self, prefix: &str) -> Self {
        // What is not UTF-8 is a bad value of a setting, or none of ours.
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        self.variables(prefix, env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    fn variables(self, prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.sources(&Sources::default().with_environment(prefix, variables))
    }

    /// Takes values from a map by keys with dots, such as `pool.max_connections_per_host`. Values may be text, as
    /// in the environment. `origin` is what the map is called in messages.
    pub fn map<K, V>(self, origin: &str, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: Into<ValueKind>,
    {
        self.sources(&Sources::default().with_layer(Layer::map(origin, entries)))
    }

    /// Sets values in code.
    pub fn with(mut self, change: impl FnOnce(&mut TransportConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Takes values from a table that was checked against [`TransportConfig::schema`]. `prefix` is what stands
    /// before the transport's keys in messages from now on: where the transport's settings are the section
    /// `[transport]` of a larger whole, `transport`.
    pub fn settings(mut self, prefix: &str, table: &Map<String, Value>) -> Self {
        prefix.clone_into(&mut self.prefix);
        match with_values(&self.config, Layer::of_table(table.clone())) {
            Ok(config) => self.config = config,
            Err(_) => self.take_each(table),
        }
        let said = settings::values(table).into_iter().map(|(path, value)| (path.join("."), value.clone()));
        self.said.extend(said);
        self
    }

    /// Takes values one by one, to find which of them cannot be taken.
    fn take_each(&mut self, table: &Map<String, Value>) {
        for (path, value) in settings::values(table) {
            let mut one = Layer::default();
            one.set(&path, "", value.kind.clone());
            match with_values(&self.config, one) {
                Ok(config) => self.config = config,
                Err(error) => {
                    let key = self.key(&path.join("."));
                    let problem = format!("`{key}` is {value}: {}", reason(error));
                    let origin = value.origin().map(str::to_owned);
                    self.problems.push(ConfigProblem::new(key, origin, problem).hint(CORRECT_IT));
                }
            }
        }
    }

    /// The configuration.
    ///
    /// # Errors
    /// Every problem of every source, and every value that [`validate`](TransportConfig::validate) finds fault
    /// with.
    pub fn build(mut self) -> Result<TransportConfig, ConfigError> {
        let table = table(&self.config);
        let values: BTreeMap<_, _> = settings::values(&table)
            .into_iter()
            .map(|(path, value)| (path.join("."), value.to_string()))
            .collect();
        for (path, wrong) in self.config.problems() {
            let key = self.key(path);
            // What a source said counts as the origin only if code did not set another value since.
            let said = self.said.get(path).filter(|said| values.get(path) == Some(&said.to_string()));
            let origin = said.and_then(|said| said.origin().map(str::to_owned));
            let problem = ConfigProblem::new(key.clone(), origin, format!("`{key}` {wrong}"));
            self.problems.push(problem.hint(CORRECT_IT));
        }
        ConfigError::unless_empty(self.problems).map(|()| self.config)
    }

    fn sources(mut self, sources: &Sources) -> Self {
        let loaded = load(sources, &TransportConfig::schema(), &mut self.problems);
        let table = loaded.merged.cache.into_table().unwrap_or_default();
        self.settings("", &table)
    }

    fn key(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}.{path}", self.prefix) }
    }
}

/// The configuration as a table. Plain data always is one.
fn table(config: &TransportConfig) -> Map<String, Value> {
    settings::table_of(config).unwrap_or_default()
}

/// The configuration with the values of a layer set.
fn with_values(config: &TransportConfig, layer: Layer) -> Result<TransportConfig, config::ConfigError> {
    let present = Layer::of_table(table(config));
    Config::builder().add_source(present).add_source(layer).build()?.try_deserialize()
}

/// What is wrong, without the key and the origin, which stand before it.
fn reason(error: config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => reason(*error),
        config::ConfigError::Type { expected, .. } => format!("expected {expected}"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn variable(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    /// Path, origin and text of each problem.
    fn problems(builder: TransportConfigBuilder) -> Vec<(String, Option<String>, String)> {
        let problems = builder.build().unwrap_err().problems;
        problems.into_iter().map(|it| (it.path.clone(), it.origin.clone(), it.to_string())).collect()
    }

    #[test]
    fn the_later_source_counts() {
        let builder = TransportConfig::builder()
            .with(|config| config.call_timeout = Duration::from_secs(1))
            .toml("call_timeout = '2s'\nconnect_timeout = '2s'\nheartbeat_timeout = '2s'\n[pool]\nstrategy = 'random'")
            .variables("T", variable("T_CONNECT_TIMEOUT", "3s"))
            .map("map", [("heartbeat_timeout", "4s"), ("pool.max_connections_per_host", "5")]);
        let config = builder.clone().build().unwrap();
        assert_eq!(config.call_timeout, Duration::from_secs(2));
        assert_eq!(config.connect_timeout, Duration::from_secs(3));
        assert_eq!(config.heartbeat_timeout, Duration::from_secs(4));
        assert_eq!(
            (config.pool.max_connections_per_host, config.pool.selection_strategy),
            (5, SelectionStrategy::Random)
        );
        let config = builder.with(|config| config.call_timeout = Duration::from_secs(9)).build().unwrap();
        assert_eq!(config.call_timeout, Duration::from_secs(9));
    }

    #[test]
    fn a_key_is_read_under_its_former_name() {
        let built = |text: &str| TransportConfig::builder().toml(text).build();
        let config = built("[pool]\nstrategy = 'random'").unwrap();
        assert_eq!(config.pool.selection_strategy, SelectionStrategy::Random);
        let both = built("[pool]\nstrategy = 'random'\nselection_strategy = 'weighted'").unwrap_err();
        assert!(both.to_string().contains("`pool.strategy` is the former name"), "{both}");
        let wrong = built("[pool]\nstrategy = 'fastest'").unwrap_err();
        assert!(wrong.to_string().contains("`pool.strategy` is \"fastest\""), "{wrong}");
    }

    #[test]
    fn values_of_a_map_have_types_or_are_text() {
        let values: [(&str, ValueKind); 3] = [
            ("pool.max_connections_per_host", 3.into()),
            ("reconnect.multiplier", 2.into()),
            ("auto_reconnect", "false".into()),
        ];
        let config = TransportConfig::builder().map("map", values).build().unwrap();
        assert_eq!(config.pool.max_connections_per_host, 3);
        assert!(!config.auto_reconnect);
    }

    #[test]
    fn every_problem_of_every_source_is_reported_with_its_origin() {
        let builder = TransportConfig::builder()
            .toml("[pool]\nmax_conections_per_host = 3\nstrategy = 'fastest'")
            .toml("call_timeout =")
            .toml_file("/nonexistent/transport.toml")
            .variables("T", variable("T_RECONNECT__MULTIPLIER", "0.5"))
            .map("--set", [("reconnect.max_attempts", "5000000000"), ("call_timeout", "soon")])
            .with(|config| config.keepalive.interval = Duration::from_millis(1));
        let problems = problems(builder);
        let expected = [
            ("pool.max_conections_per_host", Some("TOML:2"), "unknown key `pool.max_conections_per_host`"),
            ("pool.strategy", Some("TOML:3"), "`pool.strategy` is \"fastest\"; expected one of"),
            ("", Some("TOML:1"), "TOML:1: "),
            ("", Some("/nonexistent/transport.toml"), "cannot be read"),
            ("call_timeout", Some("--set"), "`call_timeout` is \"soon\"; expected a duration"),
            (
                "reconnect.max_attempts",
                Some("--set"),
                "`reconnect.max_attempts` is 5000000000: expected an unsigned 32 bit integer",
            ),
            ("reconnect.multiplier", Some("T_RECONNECT__MULTIPLIER"), "is 0.5; it must be"),
            ("keepalive.interval", None, "`keepalive.interval` is 1ms; libvirt takes whole seconds"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for ((path, origin, text), (wanted_path, wanted_origin, part)) in problems.iter().zip(expected) {
            assert_eq!((path.as_str(), origin.as_deref()), (wanted_path, wanted_origin), "{problems:#?}");
            assert!(text.contains(part), "{text} has no {part}");
        }
    }

    #[test]
    fn a_value_set_in_code_has_no_origin_and_hides_that_of_an_earlier_one() {
        let builder = TransportConfig::builder().toml("call_timeout = '0s'");
        let [(_, origin, _)] = &problems(builder.clone())[..] else { panic!() };
        assert_eq!(origin.as_deref(), Some("TOML:1"));
        let builder = builder.toml("[reconnect]\nmultiplier = 0.5").with(|config| {
            config.call_timeout = Duration::from_secs(1);
            config.reconnect.multiplier = 0.25;
        });
        let [(path, origin, _)] = &problems(builder)[..] else { panic!() };
        assert_eq!((path.as_str(), origin), ("reconnect.multiplier", &None));
    }

    #[test]
    fn settings_of_a_larger_whole_are_named_in_full() {
        let mut layer = Layer::default();
        layer.set(&["pool", "max_connections_per_host"], "f.toml:7", 0);
        let problems = problems(TransportConfig::builder().settings("hosts.h1.transport", layer.table()));
        let (path, origin, _) = &problems[0];
        assert_eq!(path, "hosts.h1.transport.pool.max_connections_per_host");
        assert_eq!(origin.as_deref(), Some("f.toml:7"));
    }

    #[test]
    fn a_host_s_configuration_differs_in_what_is_set() {
        let common = TransportConfig::builder().toml("call_timeout = '9s'").build().unwrap();
        let own = common.to_builder().toml("[pool]\nmax_connections_per_host = 2").build().unwrap();
        assert_eq!((own.call_timeout, own.pool.max_connections_per_host), (common.call_timeout, 2));
        common.validate_for_host(&own).unwrap();
    }

    #[test]
    fn every_default_is_read_back_as_it_is() {
        let defaults = TransportConfig::default();
        let text = toml::to_string(&defaults).unwrap();
        assert_eq!(TransportConfig::builder().toml(&text).build().unwrap(), defaults);
    }
}
