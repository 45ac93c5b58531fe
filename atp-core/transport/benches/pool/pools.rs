//! The pools that are compared, each set up to do the same.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use atp_transport::{
    ConnectAttempt, ConnectError, ConnectionPool, Connector, HostInfo, InFlight, TransportConfig,
    TransportManager,
};
use deadpool::managed::{Metrics, RecycleResult};
use tokio::time::Instant;

/// Longest wait for a connection; never reached.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pool under measurement.
pub(crate) trait Pool: Sized + Send + Sync + 'static {
    /// What it is called in the results.
    const NAME: &'static str;

    /// A pool of that many connections, all of them open.
    fn open(slots: usize) -> impl Future<Output = Self> + Send;

    /// Waits for a connection; dropping what it returns gives it back.
    fn take(&self) -> impl Future<Output = impl Send> + Send;
}

/// A link that opens at once and is never lost.
pub(crate) struct Link;

/// Opens such links.
pub(crate) struct AtOnce;

impl Connector for AtOnce {
    type Link = Link;

    fn validate(&self, _: &HostInfo) -> Result<(), String> {
        Ok(())
    }

    async fn connect(&self, _: &HostInfo, _: ConnectAttempt) -> Result<Link, ConnectError> {
        Ok(Link)
    }

    async fn probe(&self, _: &Arc<Link>, _: InFlight, _: Instant) -> Result<(), ConnectError> {
        Ok(())
    }

    fn is_open(&self, _: &Link) -> bool {
        true
    }
}

/// `atp_transport`'s.
pub(crate) struct Ours {
    pool: Arc<ConnectionPool<AtOnce>>,
    _manager: TransportManager<AtOnce>,
}

impl Pool for Ours {
    const NAME: &'static str = "atp";

    async fn open(slots: usize) -> Self {
        let mut config = TransportConfig::default();
        config.pool.min_connections_per_host = slots;
        config.pool.max_connections_per_host = slots;
        config.pool.max_uses_per_connection = 1;
        config.pool.acquire_timeout = PATIENCE;
        // No connection is ever quiet for so long that it would be asked for a sign of life.
        config.pool.validate_after = Duration::from_secs(24 * 60 * 60);
        let manager = TransportManager::with_connector(config, AtOnce);
        manager.add_host(HostInfo::new("host", "host")).await.expect("the host is new");
        let pool = manager.pool("host").expect("the host was added");
        while pool.stats().idle_connections < slots {
            tokio::task::yield_now().await;
        }
        Ours { pool, _manager: manager }
    }

    async fn take(&self) -> impl Send {
        self.pool.get().await.expect("a connection comes free in time")
    }
}

/// `bb8`'s.
pub(crate) struct Bb8(bb8::Pool<AtOnce>);

impl bb8::ManageConnection for AtOnce {
    type Connection = Link;
    type Error = Infallible;

    async fn connect(&self) -> Result<Link, Infallible> {
        Ok(Link)
    }

    async fn is_valid(&self, _: &mut Link) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Link) -> bool {
        false
    }
}

impl Pool for Bb8 {
    const NAME: &'static str = "bb8";

    async fn open(slots: usize) -> Self {
        let slots = u32::try_from(slots).expect("a few");
        let pool = bb8::Pool::builder()
            .max_size(slots)
            .min_idle(slots)
            .connection_timeout(PATIENCE)
            .test_on_check_out(false)
            .build(AtOnce)
            .await;
        Bb8(pool.expect("links open"))
    }

    async fn take(&self) -> impl Send {
        self.0.get().await.expect("a connection comes free in time")
    }
}

/// `deadpool`'s.
pub(crate) struct Deadpool(deadpool::managed::Pool<AtOnce>);

impl deadpool::managed::Manager for AtOnce {
    type Type = Link;
    type Error = Infallible;

    async fn create(&self) -> Result<Link, Infallible> {
        Ok(Link)
    }

    async fn recycle(&self, _: &mut Link, _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

impl Pool for Deadpool {
    const NAME: &'static str = "deadpool";

    async fn open(slots: usize) -> Self {
        let pool = deadpool::managed::Pool::builder(AtOnce)
            .max_size(slots)
            .wait_timeout(Some(PATIENCE))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("there is a runtime");
        // It opens connections only when they are asked for.
        let mut all = Vec::new();
        for _ in 0..slots {
            all.push(pool.get().await.expect("links open"));
        }
        Deadpool(pool)
    }

    async fn take(&self) -> impl Send {
        self.0.get().await.expect("a connection comes free in time")
    }
}
