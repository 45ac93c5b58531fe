//! What all requests share.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atp_executor::Executor;
use atp_telemetry::{Exporter, ExporterConfig};
use atp_transport::TransportManager;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::{Sessions, TokenFile, TokensError};
use crate::cache::{Cache, CacheCounts};
use crate::cluster::Cluster;
use crate::events::Events;
use crate::files::Arriving;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::planned::Plans;
use crate::runs::Runs;
use crate::samplers::Samplers;
use crate::settings::{NoFolder, ServeConfig};
use crate::store::{Database, Store, StoreError};
use crate::time::Clock;
use crate::vms::Listed;

/// The most pictures that are kept. One is some hundred KiB.
const MAX_SCREENS: usize = 200;

/// The service: hosts, tokens, limits, caches. Cheap to clone; clones are the same service.
#[derive(Debug, Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RwLock<Arc<ServeConfig>>,
    manager: TransportManager,
    executor: Executor,
    exporter: Exporter,
    tokens: RwLock<Arc<TokenFile>>,
    sessions: Sessions,
    arriving: Arriving,
    limits: Limits,
    metrics: Metrics,
    listings: Cache<Listed>,
    screens: Cache<Vec<u8>>,
    samplers: Samplers,
    events: Events,
    audit: Audit,
    plans: Plans,
    runs: Runs,
    clock: Clock,
    /// Where several services share the store.
    cluster: Option<Cluster>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// Why the service cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The store of runs cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no folder for the service's files.
    #[error(transparent)]
    NoFolder(#[from] NoFolder),
    /// The settings cannot be used.
    #[error("{problem}")]
    Settings {
        /// What is wrong.
        problem: String,
    },
}

/// Opens the store that the settings name.
async fn open_store(config: &ServeConfig, clock: &Clock) -> Result<(Store, Option<Cluster>), OpenError> {
    let unusable = |problem: String| OpenError::Settings { problem };
    if let Some((key, problem)) = config.problems().first() {
        return Err(unusable(format!("serve.{key} {problem}")));
    }
    if config.database.is_empty() {
        // The database may be named by a variable that only the service has: other commands do not look at this.
        if config.cluster {
            let problem = "serve.cluster needs a database that services share: set serve.database";
            return Err(unusable(problem.to_owned()));
        }
        return Ok((Store::open(&config.store()?, clock.clone()).await?, None));
    }
    let database = Database::read(&config.database, &config.database_password_file)?;
    if !config.cluster {
        return Ok((Store::open_database(database, clock.clone()).await?, None));
    }
    let (store, shared) = Store::open_shared(database, clock.clone()).await?;
    let folder = config.folder()?;
    let cluster = Cluster::new(shared, &folder, config.lease, config.clock_slack)
        .map_err(|error| unusable(format!("{}: {error}", folder.join("outcomes.jsonl").display())))?;
    Ok((store, Some(cluster)))
}

impl Service {
    /// A service for the hosts of a manager. Reads the file of tokens, which need not exist, and opens the
    /// store of runs: what was under way when it was last closed is interrupted.
    ///
    /// # Errors
    /// A file cannot be used.
    ///
    /// Must be called within a tokio runtime.
    pub async fn open(config: ServeConfig, manager: TransportManager) -> Result<Self, OpenError> {
        Service::open_at(config, manager, Clock::system()).await
    }

    /// As [`open`](Self::open), by another clock than that of the machine.
    ///
    /// # Errors
    /// A file cannot be used.
    ///
    /// Must be called within a tokio runtime.
    pub async fn open_at(
        config: ServeConfig,
        manager: TransportManager,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let tokens = TokenFile::read(&config.tokens()?)?;
        let audit = Audit::new(config.audit()?, clock.clone());
        let (store, cluster) = open_store(&config, &clock).await?;
        let limits = Limits::new(&config);
        let listings = Cache::new(config.cache_entries);
        let events = Events::new(config.events);
        let exporter = Exporter::new(&manager, &ExporterConfig::default());
        let executor = Executor::new(manager.clone());
        let inner = Inner {
            config: RwLock::new(Arc::new(config)),
            manager,
            executor,
            exporter,
            tokens: RwLock::new(Arc::new(tokens)),
            sessions: Sessions::default(),
            arriving: Arriving::default(),
            limits,
            metrics: Metrics::default(),
            listings,
            screens: Cache::new(MAX_SCREENS),
            samplers: Samplers::default(),
            events,
            audit,
            plans: Plans::default(),
            runs: Runs::new(store),
            clock,
            cluster,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let service = Service { inner: Arc::new(inner) };
        let settings = service.clone();
        let clock = service.clock().clone();
        service.runs().forget_old(move || settings.config(), clock, service.stopping().clone());
        Ok(service)
    }

    /// The settings.
    pub fn config(&self) -> Arc<ServeConfig> {
        self.inner.config.read().clone()
    }

    /// Takes over settings that were changed. What is settled at the start (the address, the files, the number of streams
    /// and connections, the size of caches) stays as it is; the keys of those that differ are returned.
    pub fn configure(&self, mut config: ServeConfig) -> Vec<&'static str> {
        let fixed = config.keep_fixed(&self.config());
        self.inner.limits.configure(&config);
        *self.inner.config.write() = Arc::new(config);
        fixed
    }

    /// The hosts.
    pub fn manager(&self) -> &TransportManager {
        &self.inner.manager
    }

    /// What plans and runs operations.
    pub fn executor(&self) -> &Executor {
        &self.inner.executor
    }

    /// The tokens.
    pub fn tokens(&self) -> Arc<TokenFile> {
        self.inner.tokens.read().clone()
    }

    /// Reads the file of tokens again. If it cannot be used, the tokens stay as they are. Blocks.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn reload_tokens(&self, path: &Path) -> Result<(), TokensError> {
        let tokens = TokenFile::read(path)?;
        *self.inner.tokens.write() = Arc::new(tokens);
        Ok(())
    }

    /// Is cancelled when the service begins to end: streams end, and nothing new is begun.
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    /// Work that the end of the service waits for, for the time of `drain`.
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// The plans of runs that may be started next.
    pub(crate) fn plans(&self) -> &Plans {
        &self.inner.plans
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn exporter(&self) -> &Exporter {
        &self.inner.exporter
    }

    pub(crate) fn arriving(&self) -> &Arriving {
        &self.inner.arriving
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn screens(&self) -> &Cache<Vec<u8>> {
        &self.inner.screens
    }

    pub(crate) fn samplers(&self) -> &Samplers {
        &self.inner.samplers
    }

    pub(crate) fn listings(&self) -> &Cache<Listed> {
        &self.inner.listings
    }

    /// How the questions to caches were answered.
    pub(crate) fn cache_counts(&self) -> CacheCounts {
        let (listings, screens) = (self.inner.listings.counts(), self.inner.screens.counts());
        listings.and(screens).and(self.inner.samplers.counts())
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.inner.runs
    }

    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.inner.cluster.as_ref()
    }

    /// What outlasts the service: runs and reservations.
    pub(crate) fn store(&self) -> &Store {
        self.inner.runs.store()
    }

    pub(crate) fn events(&self) -> &Events {
        &self.inner.events
    }

    /// Whether a request for this name and port is meant for the service, and not for another name that was made to lead
    /// here. Addresses are: no page can be loaded from one under a name of its own. With TLS a browser has compared the name
    /// with the certificate.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        let config = self.config();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        !config.tls_cert.is_empty()
            || bare.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || config.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// The time for listing a host for a request.
    pub(crate) fn list_timeout(&self) -> Duration {
        self.config().list_timeout
    }
}
