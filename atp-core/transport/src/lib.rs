//! Healthy connections to every libvirt host, and work run over them in parallel.
//!
//! A [`TransportManager`] holds the hosts. Each host has a [`ConnectionPool`] of [`HostConnection`]s, which
//! open themselves again when they are lost. A closure that is run on a host gets a lease of one of them,
//! a [`LibvirtConnection`], whose async methods are the operations ATP needs of libvirt.
//!
//! ```no_run
//! use atp_transport::{HostInfo, LibvirtConnection, TransportConfig, TransportError, TransportManager};
//!
//! # async fn example() -> atp_transport::Result<()> {
//! let manager = TransportManager::new(TransportConfig::default());
//! manager.add_host(HostInfo::new("host1", "10.0.0.11").with_uri("qemu+tcp://10.0.0.11/system")).await?;
//!
//! let print = |conn: LibvirtConnection| async move {
//!     println!("{}: libvirt {}", conn.host_info(), conn.lib_version().await?);
//!     Ok::<_, TransportError>(())
//! };
//! manager.execute_on_host("host1", print).await?;
//! let alive = manager.execute_on_hosts(&["host1", "host2"], |conn| async move { conn.is_alive().await }).await;
//! for (host_id, result) in manager.execute_on_all_hosts(|conn| async move { conn.hostname().await }).await {
//!     println!("{host_id}: {result:?}");
//! }
//! for (host_id, stats) in manager.stats().await {
//!     println!("{host_id}: {} connections, {} active", stats.total_connections, stats.active_connections);
//!     println!("{} requests, {} errors, {} leases", stats.total_requests, stats.total_errors, stats.total_active_uses);
//! }
//! # let _ = alive;
//! # Ok(())
//! # }
//! ```
//!
//! What it promises, whatever hangs on the other side:
//!
//! - **Work ends by its deadline.** A caller leaves at its deadline, with an error that says at which stage, and a connection
//!   with `calls.suspect_after` overrun calls is replaced (two with the native engine, one with the
//!   library). Calls of libvirt's C library block, some for ever: they run on threads of our own.
//! - **No host and no VM holds up another.** The calls under way are limited per VM, per connection and per
//!   host, below what a daemon can take, so that hung VMs leave room for those that answer.
//! - **Errors say what happened**: the [kind](ErrorKind), whether it may have had an [`Effect`], whether a retry
//!   can help, and what to try.
//!
//! A lease stands for one call; calls that are made beside it take the places of other leases. So that each call has a place and
//! none waits for a VM that hangs, work on several VMs of a host takes a lease for each, and the pool opens connections for
//! them, up to
//! [`max_connections_per_host`](PoolConfig::max_connections_per_host):
//!
//! ```no_run
//! use atp_transport::{TransportError, TransportManager};
//! use futures_util::future::join_all;
//!
//! # async fn example(manager: TransportManager) -> atp_transport::Result<()> {
//! let vms = manager.execute_on_host("host1", |conn| async move { conn.list_domains().await }).await?;
//! let asked = vms.iter().map(|vm| {
//!     manager.execute_on_host("host1", move |conn| async move {
//!         let status = conn.monitor_command(vm.uuid, r#"{"execute": "query-status"}"#).await?;
//!         Ok::<_, TransportError>(status)
//!     })
//! });
//! for (vm, status) in vms.iter().zip(join_all(asked).await) {
//!     println!("{}: {status:?}", vm.name);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A closure may fail with any error that can be made of a [`TransportError`]. One that uses `?` ends with
//! `Ok::<_, TransportError>(…)`, or the compiler cannot tell which error is meant (E0282).
//!
//! The driver that needs no daemon is handy to try things out. It is inside libvirt's C library, so it needs the feature `library`:
//!
//! ```
//! use atp_transport::{HostInfo, TransportConfig, TransportManager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> atp_transport::Result<()> {
//! let manager = TransportManager::new(TransportConfig::default());
//! manager.add_host(HostInfo::from_uri("demo", "test:///default")).await?;
//! let domains = manager.execute_on_host("demo", |conn| async move { conn.list_domains().await }).await?;
//! assert_eq!(domains[0].name, "test");
//! # Ok(())
//! # }
//! ```
//!
//! The crate is not on a registry: a program names its folder in a clone of the repository. It needs Debian's
//! `libvirt-dev` and `pkg-config` to build, and a runtime of tokio with its timer. With `default-features = false` and the feature
//! `native` it needs no libvirt, and reaches hosts with a daemon over `tcp`, `tls`, `unix`, `ssh` and `ext`.
//!
//! ```toml
//! [dependencies]
//! atp-transport = { path = "atp/atp-core/transport" }
//! futures-util = "0.3"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
//! ```
//!
//! # Glossary
//!
//! - **Lease** ([`PooledConnection`]): a connection on loan from its pool, until it is dropped.
//! - **In flight** ([`InFlight`]): a call that was admitted and is not over, also when its caller has left.
//! - **Lane** ([`Lane`]): the queue of a VM's monitor, of its agent, or of its start, that takes one call at a time.
//! - **Unproven**: a VM that has not answered a call within the last minute. Few calls to such VMs are in flight at a time.
//! - **Stuck**: a call, or an attempt to connect, that is past its deadline and has not returned.
//! - **Suspect**: a connection on which `calls.suspect_after` calls have overrun, or a probe. It takes no new leases and closes when it is unused.
//! - **Draining**: a connection that is too old, or one too many. It closes when its leases are back.
//! - **Effect** ([`Effect`]): what work did to its target: `none`, `done`, or `unknown` where it was sent and no answer came.
//! - **Gap** ([`WatchItem::Gap`]): a time in which the events of a host were not received.
//! - **Reconnect gate**: what lets one attempt at a time, of all connections of a host, try to connect.
//! - **Circuit breaker** ([`BreakerState`]): refuses work for a host that keeps failing, until a probe succeeds.
//! - **Engine** ([`LibvirtLink`]): what makes the requests that ATP asks of a daemon.

#![cfg_attr(
    not(any(feature = "library", feature = "native")),
    expect(dead_code, reason = "only engines use it; a program with a connector of its own has none")
)]

// Public API: hosts, and the work run on them.
mod execute;
mod fleet;
mod host;
mod manager;

// One host: its connections, how they are opened, and the limits on calls.
mod admission;
mod connection;
mod pool;

// Libvirt: what a lease offers, and the engines that ask the daemons.
mod engine;
mod session;

// What is reported: errors, effects, events, health.
mod error;
mod observe;

// Tunables.
mod config;

// Time, numbers and limits that are shared between threads.
mod sync;

pub mod domain;

pub use admission::breaker::{BreakerState, BreakerStatus};
pub use admission::calls::{InFlight, Lane, LaneKind};
pub use admission::interceptor::{CallDecision, CallInfo, Interceptor};
pub use atp_api::{Effect, ErrorKind, Hint};
#[cfg(feature = "native")]
pub use atp_rpc::Dialler;
pub use atp_settings as settings;
pub use config::{
    BreakerConfig, CallConfig, ConfigError, ConfigProblem, Engine, EventConfig, HealthConfig,
    KeepaliveConfig, PoolConfig, RateLimitConfig, ReconnectConfig, RetryConfig, SelectionStrategy,
    SharedUuids, TransportConfig, TransportConfigBuilder,
};
pub use connection::connector::{CallFailure, Connector};
pub use connection::reconnect::ConnectAttempt;
pub use connection::{ConnectionMetrics, ConnectionState, HostConnection};
pub use domain::{Hypervisor, RawImage, Version};
pub use engine::LibvirtLink;
pub use engine::connector::{DaemonWay, LibvirtConnector, default_uri};
pub use error::{AcquireStage, ConnectError, ConnectStage, LibvirtError, Result, TransportError};
pub use execute::{ExecuteOptions, Failure, Pick, Unanswered, UnansweredCall};
pub use fleet::{Changes, Fleet, Following};
pub use host::{Credentials, Password, PasswordSource};
pub use host::{HostId, HostInfo, InvalidHostId};
pub use manager::TransportManager;
pub use observe::events::{
    Event, EventKind, EventStream, GrowthReason, LossCause, ReapReason, TransportEvent,
};
pub use observe::health::{FleetHealth, Health, HealthState, Vitals};
pub use observe::latency::Percentiles;
pub use pool::stats::PoolStats;
pub use pool::{ConnectionPool, PooledConnection};
pub use session::{
    ChannelError, ChannelOptions, DomainChannel, DomainEvents, LibvirtConnection, WatchItem, WatchOptions,
};

/// Compiles the examples of the page.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/configuration.md")]
struct ConfigurationPage;

/// Compiles the example of the page.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
