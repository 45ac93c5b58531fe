//! Cancelled callers: at every point at which a caller can wait, cancelling it loses nothing.
//!
//! Each test repeats its work, and drops it one poll later each time, until it completes.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use atp_transport::{
    CallConfig, CallFailure, ConnectionPool, ErrorKind, ExecuteOptions, HostInfo, Lane, LaneKind, PoolConfig,
    PooledConnection, ReconnectConfig, Result, TransportConfig, TransportError, TransportManager,
};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::scripted::{SECOND, Script, Step};

const MS: Duration = Duration::from_millis(1);
/// Longer than anything here needs to settle, including the slowest reconnects.
const LONG: Duration = Duration::from_secs(200);

type Lease = PooledConnection<Script>;

/// The point at which a caller is cancelled.
#[derive(Debug, Clone, Copy)]
struct Cancellation {
    /// After this number of polls,
    polls: usize,
    /// and, if set, only when it has been woken: it is dropped instead of polled.
    woken: bool,
}

#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl Cancellation {
    /// Polls `work` when it is woken, and then drops it. Returns its result if it completed first.
    async fn apply<T>(self, work: impl Future<Output = T>) -> Option<T> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut work = Box::pin(work);
        for poll in 1..=self.polls {
            if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(result);
            }
            if poll < self.polls || self.woken {
                assert!(timeout(LONG, woken.0.notified()).await.is_ok(), "the work is not woken");
            }
        }
        None
    }
}

/// A host with its other callers.
struct Scene {
    script: Script,
    manager: TransportManager<Script>,
    pool: Arc<ConnectionPool<Script>>,
    /// One clone for each other caller that has a lease or has asked for one.
    others: Arc<()>,
    start: Instant,
}

/// Cancels the work of `scene` at one point after the other, until it reports that the work completed. This must take
/// at least `at_least` polls: work with fewer waits than expected proves nothing.
fn at_every_await(at_least: usize, scene: impl AsyncFn(Cancellation) -> bool) {
    for woken in [false, true] {
        for polls in 0.. {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            if runtime.block_on(scene(Cancellation { polls, woken })) {
                assert!(polls >= at_least, "it completed after {polls} polls");
                break;
            }
        }
    }
}

/// Cancels `work` at every point. The other callers in the scene must not notice.
fn cancelled_at_every_await<P, T>(
    at_least: usize,
    config: &TransportConfig,
    prepare: impl AsyncFn(&Scene) -> P,
    work: impl AsyncFn(&Scene, P) -> T,
) {
    at_every_await(at_least, async |cancellation| {
        let scene = Scene::new(config.clone()).await;
        let prepared = prepare(&scene).await;
        let done = cancellation.apply(work(&scene, prepared)).await.is_some();
        scene.check_nothing_is_lost(cancellation).await;
        done
    });
}

impl Scene {
    async fn new(config: TransportConfig) -> Self {
        fastrand::seed(1);
        let script = Script::default();
        let manager = TransportManager::with_connector(config, script.clone());
        manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
        let pool = manager.pool("h1").unwrap();
        Scene { script, manager, pool, others: Arc::default(), start: Instant::now() }
    }

    fn at(&self, ms: u32) -> Instant {
        self.start + ms * MS
    }

    async fn acquire(&self) -> Result<Lease> {
        self.pool.acquire(Instant::now() + SECOND).await
    }

    /// Another caller holds a lease `from` a time `until` another, in milliseconds.
    fn other_caller(&self, from: u32, until: u32) {
        let (from, until, pool) = (self.at(from), self.at(until), self.pool.clone());
        let others = Arc::downgrade(&self.others);
        tokio::spawn(async move {
            sleep_until(from).await;
            let _counted = others.upgrade();
            let lease = pool.acquire(from + LONG).await.unwrap();
            sleep_until(until).await;
            drop(lease);
        });
    }

    /// Checks that the cancelled caller holds nothing any more, and that all other callers continue.
    async fn check_nothing_is_lost(&self, cancellation: Cancellation) {
        for _ in 0..8 {
            yield_now().await;
        }
        let stats = self.pool.stats();
        let others = Arc::strong_count(&self.others) - 1;
        assert_eq!(stats.total_active_uses + stats.waiting, others, "{cancellation:?}: {stats}");

        self.script.set_attempts(Step::default());
        sleep(LONG).await;
        assert_eq!(Arc::strong_count(&self.others), 1, "{cancellation:?} delayed another caller");
        let stats = self.pool.stats();
        let left = (stats.total_active_uses, stats.waiting, stats.calls_in_flight);
        assert_eq!(left, (0, 0, 0), "{cancellation:?}: {stats}");
        let config = self.pool.config();
        assert!(stats.total_connections <= config.pool.max_connections_per_host, "{cancellation:?}: {stats}");
        assert_eq!(stats.total_connections, stats.idle_connections, "{cancellation:?}: {stats}");

        let next = answered(&self.acquire().await.unwrap(), 1).await;
        assert_eq!(next.unwrap(), 42, "{cancellation:?}");
        assert!(self.manager.close(SECOND).await, "{cancellation:?}");
        assert_eq!(self.script.open_links(), 0, "{cancellation:?}");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "{cancellation:?}");
    }
}

async fn answered(lease: &Lease, vm: u128) -> Result<u32> {
    let lane = Some(Lane { target: vm, kind: LaneKind::Monitor });
    lease
        .call("answers", lane, |_, _in_flight| async {
            sleep(5 * MS).await;
            Ok(42)
        })
        .await
}

/// A pool of one connection with one lease at a time, which is validated before every lease.
fn narrow() -> TransportConfig {
    TransportConfig {
        heartbeat_timeout: 50 * MS,
        pool: PoolConfig {
            max_connections_per_host: 1,
            min_connections_per_host: 0,
            max_uses_per_connection: 1,
            validate_after: Duration::ZERO,
            ..PoolConfig::default()
        },
        reconnect: ReconnectConfig { initial_delay: 5 * MS, ..ReconnectConfig::default() },
        ..TransportConfig::default()
    }
}

/// Opening takes a while, and so do probes; the first two connections do not answer.
async fn hard_to_reach(scene: &Scene) {
    scene.script.set_attempts(Step::Opens(10 * MS));
    scene.script.set_probe_time(5 * MS);
    scene.script.set_silent(true);
    let (script, answers_again) = (scene.script.clone(), scene.at(100));
    tokio::spawn(async move {
        sleep_until(answers_again).await;
        script.set_silent(false);
    });
}

#[test]
fn an_acquire_that_connects_validates_and_starts_over() {
    cancelled_at_every_await(6, &narrow(), hard_to_reach, async |scene, ()| {
        // Another caller waits behind this one, and must be served in any case.
        scene.other_caller(1, 300);
        drop(scene.acquire().await.unwrap());
    });
}

#[test]
fn an_acquire_that_waits_for_a_lease_to_come_back() {
    let config = TransportConfig { pool: PoolConfig { validate_after: SECOND, ..narrow().pool }, ..narrow() };
    let others = async |scene: &Scene| {
        scene.other_caller(0, 20);
        sleep(5 * MS).await;
    };
    cancelled_at_every_await(2, &config, others, async |scene, ()| {
        scene.other_caller(10, 30);
        drop(scene.acquire().await.unwrap());
    });
}

#[test]
fn an_acquire_that_is_refused() {
    let refuses = async |scene: &Scene| scene.script.set_attempts(Step::Fails(10 * MS));
    cancelled_at_every_await(2, &narrow(), refuses, async |scene, ()| {
        let error = scene.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_acquire_that_times_out() {
    let all_taken = async |scene: &Scene| {
        scene.other_caller(0, 5_000);
        sleep(5 * MS).await;
    };
    cancelled_at_every_await(2, &narrow(), all_taken, async |scene, ()| {
        scene.other_caller(10, 6_000);
        assert_eq!(scene.acquire().await.unwrap_err().kind(), ErrorKind::PoolExhausted);
    });
}

#[test]
fn work_on_a_host() {
    cancelled_at_every_await(9, &narrow(), hard_to_reach, async |scene, ()| {
        scene.other_caller(1, 300);
        let options = ExecuteOptions::by(Instant::now() + SECOND);
        let work = async |lease: Lease| {
            assert!(lease.is_alive().await?);
            answered(&lease, 1).await?;
            sleep(5 * MS).await;
            Ok::<_, TransportError>(())
        };
        scene.manager.execute_on_host_with("h1", options, work).await.unwrap();
    });
}

#[test]
fn work_on_several_hosts() {
    cancelled_at_every_await(3, &narrow(), hard_to_reach, async |scene, ()| {
        scene.manager.add_host(HostInfo::new("h2", "192.0.2.2")).await.unwrap();
        let work = |lease: Lease| async move { answered(&lease, 1).await };
        let results = scene.manager.execute_on_hosts(&["h1", "h2"], work).await;
        assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
    });
}

/// Four connections with one lease each, with little room for further long calls.
fn crowded() -> TransportConfig {
    TransportConfig {
        pool: PoolConfig {
            max_connections_per_host: 4,
            min_connections_per_host: 4,
            max_uses_per_connection: 1,
            ..PoolConfig::default()
        },
        reconnect: ReconnectConfig { initial_delay: MS, max_per_second: 1_000, ..ReconnectConfig::default() },
        calls: CallConfig {
            max_per_connection: 2,
            max_per_host: 4,
            max_unproven_per_host: 1,
            proven_for: 5 * MS,
            ..CallConfig::default()
        },
        ..TransportConfig::default()
    }
}

/// A lease that other callers use.
struct OthersLease {
    lease: Lease,
    _counted: Arc<()>,
}

impl OthersLease {
    async fn acquire(scene: &Scene) -> Arc<Self> {
        Arc::new(OthersLease { lease: scene.acquire().await.unwrap(), _counted: scene.others.clone() })
    }

    /// A call that ends at a given time without an answer of its VM.
    fn call_until(self: &Arc<Self>, scene: &Scene, vm: Option<u128>, until: u32) {
        let (lease, until) = (self.clone(), scene.at(until));
        tokio::spawn(async move {
            let lane = vm.map(|target| Lane { target, kind: LaneKind::Monitor });
            let call = lease.lease.call("ends", lane, |_, in_flight| async move {
                sleep_until(until).await;
                drop(in_flight);
                Err::<(), _>(CallFailure::Panicked { message: "scripted".to_owned() })
            });
            assert_eq!(call.await.unwrap_err().kind(), ErrorKind::Panicked);
            assert!(Instant::now() <= until + 2 * MS, "a call was delayed");
        });
    }
}

#[test]
fn a_call_that_waits_for_everything() {
    let others = async |scene: &Scene| {
        let (caller, full) = (OthersLease::acquire(scene).await, OthersLease::acquire(scene).await);
        let waiting = [OthersLease::acquire(scene).await, OthersLease::acquire(scene).await];
        answered(&full.lease, 1).await.unwrap();
        // The VM's lane, the share of the unproven, the connection, the host: each is free ten milliseconds after the
        // previous one.
        full.call_until(scene, Some(1), 30);
        sleep(6 * MS).await;
        full.call_until(scene, Some(2), 40);
        caller.call_until(scene, None, 50);
        caller.call_until(scene, None, 80);
        sleep(MS).await;
        waiting[0].call_until(scene, None, 60);
        waiting[0].call_until(scene, None, 80);
        waiting[1].call_until(scene, None, 80);
        // The link is lost as well.
        scene.script.set_attempts(Step::Opens(MS));
        scene.script.cut();
        sleep(MS).await;
        // All stay lent, so that the caller's call can be sent on its own connection only.
        (caller, full, waiting)
    };
    cancelled_at_every_await(7, &crowded(), others, async |scene, (caller, ..)| {
        assert_eq!(answered(&caller.lease, 1).await.unwrap(), 42);
        let took = (Instant::now() - scene.start).as_millis();
        assert!((65..70).contains(&took), "the call did not wait for every limit, but took {took} ms");
    });
}

#[test]
fn a_call_that_never_ends() {
    let hung = Arc::new(std::sync::Mutex::new(None));
    let lend = async |scene: &Scene| scene.acquire().await.unwrap();
    let config = TransportConfig { call_timeout: SECOND, ..narrow() };
    cancelled_at_every_await(2, &config, lend, async |scene, lease: Lease| {
        let (hung, below) = (hung.clone(), hung.clone());
        // The underlying call returns after a minute, with or without a caller.
        let returns = scene.at(60_000);
        tokio::spawn(async move {
            sleep_until(returns).await;
            drop(below.lock().unwrap().take());
        });
        let lane = Some(Lane { target: 1, kind: LaneKind::Monitor });
        let call = lease.call("hangs", lane, |_, in_flight| async move {
            *hung.lock().unwrap() = Some(in_flight);
            std::future::pending::<Result<(), CallFailure>>().await
        });
        assert_eq!(call.await.unwrap_err().kind(), ErrorKind::CallTimeout);
    });
}

#[test]
fn the_closing_of_a_pool() {
    at_every_await(2, async |cancellation| {
        let scene = Scene::new(narrow()).await;
        scene.other_caller(0, 20);
        sleep(5 * MS).await;
        let closed = cancellation.apply(scene.pool.close(SECOND)).await;
        assert_ne!(closed, Some(false), "{cancellation:?}: the pool did not wait for other callers' work");
        if cancellation.polls > 0 {
            assert_eq!(scene.acquire().await.unwrap_err().kind(), ErrorKind::Closed, "{cancellation:?}");
        }
        assert!(scene.pool.close(SECOND).await, "{cancellation:?}: it cannot be closed again");
        assert_eq!(scene.script.open_links(), 0, "{cancellation:?}");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "{cancellation:?}");
        closed.is_some()
    });
}

#[test]
fn the_removal_of_a_host() {
    at_every_await(2, async |cancellation| {
        let Scene { script, manager, pool, .. } = Scene::new(narrow()).await;
        let lease = pool.acquire(Instant::now() + SECOND).await.unwrap();
        drop(pool);
        tokio::spawn(async move {
            sleep(20 * MS).await;
            drop(lease);
        });
        let removed = cancellation.apply(manager.remove_host("h1")).await;
        assert_eq!(manager.hosts().is_empty(), cancellation.polls > 0, "{cancellation:?}");
        if cancellation.polls > 0 {
            sleep(SECOND).await;
            assert_eq!(script.open_links(), 0, "{cancellation:?}");
            assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "{cancellation:?}");
        }
        removed.is_some()
    });
}
