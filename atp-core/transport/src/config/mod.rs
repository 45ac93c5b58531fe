//! Every tunable of the transport, as plain data with its default.
//!
//! Durations are written as `30s`, `5m`, `250ms`. Other modules have only limits that libvirt or the operating system sets, and
//! bounds that no user needs to choose.
//! `docs/configuration.md` says how to choose each; a test compares it with these types.

mod breaker;
mod builder;
mod engine;
mod health;
mod rate_limit;
mod retry;
mod shared_uuids;
mod validate;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr, VariantArray};

use crate::sync::backoff::Backoff;

pub use atp_settings::{ConfigError, ConfigProblem};
pub use breaker::BreakerConfig;
pub use builder::TransportConfigBuilder;
pub use engine::Engine;
pub use health::HealthConfig;
pub use rate_limit::RateLimitConfig;
pub use retry::RetryConfig;
pub use shared_uuids::SharedUuids;

/// How hosts are connected to, and how work is run on them.
///
/// It is plain data; [`builder`](Self::builder) reads it from files, the environment and maps.
///
/// ```
/// use std::time::Duration;
/// use atp_transport::{PoolConfig, TransportConfig};
///
/// let config = TransportConfig {
///     connect_timeout: Duration::from_secs(5),
///     pool: PoolConfig { max_connections_per_host: 4, ..PoolConfig::default() },
///     ..TransportConfig::default()
/// };
/// config.validate()?;
/// # Ok::<(), atp_transport::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// What speaks to the daemons.
    pub engine: Engine,
    /// What VMs are to VMs of other hosts that have the same UUID.
    pub shared_uuids: SharedUuids,
    /// Longest one attempt to open a connection may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest a call may take, where the work was given no deadline of its own.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// How long a connection may be quiet before it is probed with a real call.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// Longest a probe may take before the connection counts as lost.
    #[serde(with = "humantime_serde")]
    pub heartbeat_timeout: Duration,
    /// Whether a lost connection is opened again by itself.
    pub auto_reconnect: bool,
    /// The pool of each host.
    pub pool: PoolConfig,
    /// How a lost connection is opened again.
    pub reconnect: ReconnectConfig,
    /// Limits on calls under way.
    pub calls: CallConfig,
    /// libvirt's own keepalive messages.
    pub keepalive: KeepaliveConfig,
    /// When a host is left alone for a while.
    pub breaker: BreakerConfig,
    /// How work is tried again, where a program asks for it.
    pub retry: RetryConfig,
    /// How many calls a host gets.
    pub rate_limit: RateLimitConfig,
    /// When a host counts as healthy.
    pub health: HealthConfig,
    /// The stream of events.
    pub events: EventConfig,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            engine: Engine::Auto,
            shared_uuids: SharedUuids::OneVm,
            connect_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(60),
            heartbeat_timeout: Duration::from_secs(10),
            auto_reconnect: true,
            pool: PoolConfig::default(),
            reconnect: ReconnectConfig::default(),
            calls: CallConfig::default(),
            keepalive: KeepaliveConfig::default(),
            breaker: BreakerConfig::default(),
            retry: RetryConfig::default(),
            rate_limit: RateLimitConfig::default(),
            health: HealthConfig::default(),
            events: EventConfig::default(),
        }
    }
}

/// The pool of connections each host has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Most connections to one host. Connections that were replaced because a call hangs on them do not count.
    pub max_connections_per_host: usize,
    /// Most connections to one host that are opened side by side while it is well. A daemon takes 20 clients that have not
    /// authenticated (`max_anonymous_clients`) and sshd 10 (`MaxStartups`), of all programs together.
    pub max_opening: usize,
    /// Connections kept open even when idle. With 0 nothing connects to a host that no work needs.
    pub min_connections_per_host: usize,
    /// How long a connection beyond the minimum may be unused before it is closed.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long work waits for a connection, where it was given no deadline of its own.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// How long work waits for a further connection to open before it shares one that is in use. While the
    /// pool can grow, a connection is lent no more often than it may have calls in flight.
    #[serde(with = "humantime_serde")]
    pub grow_patience: Duration,
    /// How often the pool looks after itself: load, idle and old connections, the minimum, long leases.
    #[serde(with = "humantime_serde")]
    pub maintenance_interval: Duration,
    /// How long work under way may go on when its host is removed.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Most leases on one connection at once. libvirt connections carry several; 1 for links that cannot.
    pub max_uses_per_connection: usize,
    /// Which connection the next lease gets.
    pub selection_strategy: SelectionStrategy,
    /// How old a connection may get before it is replaced, give or take a tenth; 0 for no limit.
    #[serde(with = "humantime_serde")]
    pub max_lifetime: Duration,
    /// A connection that has been quiet for longer is asked for a sign of life before it is lent.
    #[serde(with = "humantime_serde")]
    pub validate_after: Duration,
    /// A connection with more leases than this is highly loaded; 0 for one that has at least three quarters of the leases
    /// that it can have with a call in flight each: three with the native engine, one with the library.
    pub high_load_uses: usize,
    /// The pool grows when at least this share of its connections is highly loaded; 0 to 1.
    pub scale_up_threshold: f64,
    /// The pool closes an idle connection when less than this share is highly loaded; 0 to 1.
    pub scale_down_threshold: f64,
    /// A lease held for longer is reported, with where it was taken; 0 for never.
    #[serde(with = "humantime_serde")]
    pub report_leases_after: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            max_connections_per_host: 10,
            max_opening: 4,
            min_connections_per_host: 1,
            idle_timeout: Duration::from_secs(300),
            acquire_timeout: Duration::from_secs(30),
            grow_patience: Duration::from_secs(1),
            maintenance_interval: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            max_uses_per_connection: 16,
            selection_strategy: SelectionStrategy::RoundRobin,
            max_lifetime: Duration::ZERO,
            validate_after: Duration::from_secs(30),
            high_load_uses: 0,
            scale_up_threshold: 0.8,
            scale_down_threshold: 0.2,
            report_leases_after: Duration::from_secs(600),
        }
    }
}

/// How a pool chooses among the connections that can carry another lease.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Display, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SelectionStrategy {
    /// One after the other.
    RoundRobin,
    /// One after the other, each as often as the calls that it carries say, evenly mixed.
    WeightedRoundRobin,
    /// At random, in proportion to how many more leases each can carry.
    Weighted,
    /// The one with the fewest leases.
    LeastConnections,
    /// At random, each alike.
    Random,
}

impl SelectionStrategy {
    /// All of them.
    pub const ALL: &[SelectionStrategy] = SelectionStrategy::VARIANTS;

    /// The word for it in configuration files.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Exponential backoff with full jitter: before attempt n the wait is a random part of
/// `initial_delay × multiplierⁿ⁻¹`, and never more than `max_delay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconnectConfig {
    /// Attempts before the host counts as failed and work for it fails at once; 0 means for ever.
    /// A failed host is still tried again, at the pace of `max_delay`.
    pub max_attempts: u32,
    /// Longest wait before the first attempt.
    #[serde(with = "humantime_serde")]
    pub initial_delay: Duration,
    /// Longest wait before any attempt.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
    /// Growth of the wait from one attempt to the next.
    pub multiplier: f64,
    /// How long a connection must have stayed up for the next loss to start again at `initial_delay`.
    #[serde(with = "humantime_serde")]
    pub reset_after: Duration,
    /// Most attempts to one host that may hang in the C library at once: an attempt that overran its time
    /// cannot be stopped. When so many hang, no further one is made until one returns.
    pub max_hung_attempts: usize,
    /// Most attempts to open lost connections a second, all hosts together, so that a rack coming back is
    /// not a storm.
    pub max_per_second: u32,
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        ReconnectConfig {
            max_attempts: 5,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            multiplier: 2.0,
            reset_after: Duration::from_secs(30),
            max_hung_attempts: 4,
            max_per_second: 100,
        }
    }
}

impl ReconnectConfig {
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { initial: self.initial_delay, multiplier: self.multiplier, longest: self.max_delay }
    }
}

/// Limits on calls under way. They keep a hung VM from taking all that its host's daemon has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallConfig {
    /// Most calls in flight on one connection; 0 for what the host's engine allows: 4 with the native one, 1 with the
    /// library and with connectors of a program's own. More than one with the library is asking for trouble: libvirt's
    /// client (9.0 at least) can leave a call unsent beside one that hangs, and corrupts its memory when a connection
    /// with several calls in flight dies of its keepalive. A connection of the native engine has fewer if its
    /// daemon takes fewer (`max_client_requests`, 5 by default), which is measured when more than one is wanted.
    pub max_per_connection: usize,
    /// Calls on one connection that overran and have not returned, at which it takes no new work and is replaced; 0 for
    /// what the host's engine allows: 2 with the native one, 1 with the library and with connectors of a program's own.
    pub suspect_after: usize,
    /// Most calls in flight to one host. Keep it below the daemon's `max_workers` (20 by default).
    pub max_per_host: usize,
    /// Most monitor and agent calls in flight to VMs of one host that have not answered lately. A hung VM
    /// holds one of the daemon's workers until it answers; this is how many of them may be lost to such VMs.
    pub max_unproven_per_host: usize,
    /// Before a monitor command to a VM that has not answered lately, libvirt is asked whether the VM's monitor
    /// is occupied. If any client has occupied it for longer than this, nothing is sent.
    #[serde(with = "humantime_serde")]
    pub monitor_busy_after: Duration,
    /// For how long a VM that answered counts as answering.
    #[serde(with = "humantime_serde")]
    pub proven_for: Duration,
    /// Most threads for blocking calls, all hosts together.
    pub max_threads: usize,
    /// How long such a thread is kept for the next call.
    #[serde(with = "humantime_serde")]
    pub thread_idle_timeout: Duration,
}

impl Default for CallConfig {
    fn default() -> Self {
        CallConfig {
            max_per_connection: 0,
            suspect_after: 0,
            max_per_host: 15,
            max_unproven_per_host: 8,
            monitor_busy_after: Duration::from_secs(5),
            proven_for: Duration::from_secs(60),
            max_threads: 4096,
            thread_idle_timeout: Duration::from_secs(10),
        }
    }
}

impl CallConfig {
    /// Most calls in flight on one connection. A connector whose links allow several says so in its
    /// [`adapt`](crate::Connector::adapt).
    pub(crate) fn per_connection(&self) -> usize {
        self.max_per_connection.max(1)
    }

    /// Calls that overran at which a connection takes no new work.
    pub(crate) fn suspect_after(&self) -> usize {
        self.suspect_after.max(1)
    }
}

/// libvirt's keepalive: a connection whose daemon is silent for `interval × count` is closed by its engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepaliveConfig {
    /// Time between messages, whole seconds; 0 turns keepalive off.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Messages without an answer before the connection is closed.
    pub count: u32,
}

impl Default for KeepaliveConfig {
    fn default() -> Self {
        KeepaliveConfig { interval: Duration::from_secs(5), count: 5 }
    }
}

/// The stream of events: [`TransportManager::events`](crate::TransportManager::events).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventConfig {
    /// Most events kept for a listener that does not keep up; a power of two, or the next. When there are more the
    /// oldest are dropped for it, and it gets the number of them.
    pub capacity: usize,
}

impl EventConfig {
    /// Room for events is set aside beforehand, so there is an end to it.
    pub(crate) const MOST: usize = 1 << 20;
}

impl Default for EventConfig {
    fn default() -> Self {
        EventConfig { capacity: 4096 }
    }
}
