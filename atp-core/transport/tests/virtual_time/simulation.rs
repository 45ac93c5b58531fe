//! Simulates a day of a fleet whose hosts flap, hang and fail, under all kinds of work, and checks the promises
//! throughout.
//!
//! The seed determines the hosts' faults and the work, to the millisecond. The order of events at the same moment may
//! differ between runs. `ATP_SIMULATION_SEED` sets another seed.

mod event_log;
mod simulated_host;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use atp_transport::{
    BreakerState, ConnectionState, ErrorKind, EventKind, EventStream, Fleet, HealthState, HostConnection,
    HostInfo, Pick, RetryConfig, SelectionStrategy, TransportConfig, TransportEvent, TransportManager,
};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::scripted::{SECOND, Scripts, Step};

use event_log::EventLog;
use simulated_host::{Fault, SimulatedHost, plan_faults};
use work::{Piece, Place};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// tokio's timers have a resolution of a millisecond.
const TICK: Duration = Duration::from_millis(2);

const HOSTS: usize = 200;
/// The number of hosts in a group.
const PER_GROUP: usize = 20;
/// The longest pause between two pieces of work.
const PAUSE: Duration = Duration::from_secs(14);
/// The maximum number of open breakers.
const MOST_OPEN: usize = HOSTS / 4;
/// A host without a fault for longer than any cool-down and any wait for an attempt to connect must do work again.
const RECOVERY_TIME: Duration = Duration::from_secs(5 * 60);
/// The interval between checks of the whole fleet.
const CHECK_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// A host without a fault for this time must be reported as healthy.
const HEALTHY_TIME: Duration = Duration::from_secs(55 * 60);

#[test]
fn promises_hold_for_a_day_of_two_hundred_hosts_that_flap_hang_and_fail() {
    let given = std::env::var("ATP_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(vec![1, 2, 3], |seed: u64| vec![seed]);
    std::thread::scope(|scope| {
        let days: Vec<_> = seeds.iter().map(|&seed| scope.spawn(move || (seed, run_day(seed)))).collect();
        for day in days {
            let (seed, violations) = day.join().unwrap();
            let first: Vec<_> = violations.iter().take(10).collect();
            assert!(violations.is_empty(), "seed {seed}: {} violations: {first:#?}", violations.len());
        }
    });
}

/// Simulates a day and returns the violated promises.
fn run_day(seed: u64) -> Vec<String> {
    // The library draws its random numbers on this thread.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed))
}

/// The fleet and its environment.
struct Simulation {
    start: Instant,
    manager: TransportManager<Scripts>,
    hosts: BTreeMap<String, Arc<SimulatedHost>>,
    event_log: Mutex<EventLog>,
    work_log: Mutex<WorkLog>,
}

/// A record of the work, independent of the transport's counters.
#[derive(Default)]
struct WorkLog {
    /// The times of requests for work that a host may have been the first to try.
    asked: BTreeMap<String, Vec<Instant>>,
    /// The times at which a host ran work again, after a failed run on this or another host.
    retried: BTreeMap<String, Vec<Instant>>,
    /// The last time at which a host got a burst of work.
    flooded: BTreeMap<String, Instant>,
    /// The number of requested pieces of work, and of ended ones.
    pieces: (u64, u64),
    cancelled: u64,
    /// The number of checks that a recovered host did work.
    recoveries: u64,
    violations: Vec<String>,
}

fn config() -> TransportConfig {
    let mut config = TransportConfig {
        connect_timeout: 10 * SECOND,
        call_timeout: 20 * SECOND,
        heartbeat_interval: 10 * MINUTE,
        ..TransportConfig::default()
    };
    config.pool.max_connections_per_host = 4;
    config.pool.acquire_timeout = 20 * SECOND;
    config.pool.maintenance_interval = 5 * MINUTE;
    config.pool.idle_timeout = 15 * MINUTE;
    config.breaker.max_open_share = MOST_OPEN as f64 / HOSTS as f64;
    config.retry = RetryConfig {
        budget_share: 0.2,
        budget_floor: 3,
        budget_window: 30 * MINUTE,
        ..RetryConfig::default()
    };
    config.health.interval = 5 * MINUTE;
    config.health.window = 15 * MINUTE;
    config.health.better_after = 15 * MINUTE;
    config.events.capacity = 1024;
    config
}

fn id(number: usize) -> String {
    format!("h{number:03}")
}

fn group_of(id: &str) -> String {
    format!("g{}", id.trim_start_matches('h').parse::<usize>().unwrap() / PER_GROUP)
}

fn host(id: &str) -> HostInfo {
    HostInfo::new(id, "192.0.2.1").with_group(group_of(id))
}

async fn simulate(seed: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let scripts = Scripts::default();
    let manager = TransportManager::with_connector(config(), scripts.clone());
    let (events, mut slow) = (manager.events(), manager.events());
    let hosts = (0..HOSTS).map(|number| {
        let (id, faults) = (id(number), plan_faults(&mut random, number));
        (id.clone(), Arc::new(SimulatedHost::new(id.clone(), scripts.of(&id), faults)))
    });
    let sim = Arc::new(Simulation {
        start: Instant::now(),
        manager: manager.clone(),
        hosts: hosts.collect(),
        event_log: Mutex::default(),
        work_log: Mutex::default(),
    });
    let listens = tokio::spawn(sim.clone().listen(events));
    manager.apply(sim.fleet(config(), &[])).unwrap();

    let mut tasks = JoinSet::new();
    for host in sim.hosts.values() {
        tasks.spawn(sim.clone().inject_faults(host.clone(), random.fork()));
    }
    tasks.spawn(sim.clone().generate_work(random.fork()));
    tasks.spawn(sim.clone().change_fleet(random.fork()));
    let looks = tokio::spawn(sim.clone().check_periodically());
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    // An hour without faults.
    sleep(60 * MINUTE).await;
    looks.abort();
    let _aborted = looks.await;
    sim.clone().check_at_end().await;

    let links = |count: fn(&crate::scripted::Script) -> usize| {
        sim.hosts.values().map(|host| count(&host.script)).sum::<usize>()
    };
    sim.expect_that(manager.close(MINUTE).await, || "closed with work under way".to_owned());
    sleep(MINUTE).await;
    let opened = links(|script| script.closed_links()) as u64;
    sim.expect_that(links(|script| script.open_links()) == 0, || "links are still open".to_owned());
    listens.abort();
    let _aborted = listens.await;
    let (mut received, mut missed) = (0, 0);
    while let Some(event) = slow.try_recv() {
        match event.what {
            TransportEvent::Missed { count } => missed += count,
            _ => received += 1,
        }
    }
    let (event_log, counts) = (sim.event_log(), manager.event_counts());
    let reported = event_log.count(EventKind::Connected) + event_log.count(EventKind::Recovered);
    sim.expect_that(opened == reported, || format!("{opened} links were opened, {reported} reported"));
    for (kind, count) in counts {
        sim.expect_that(event_log.count(kind) == count, || {
            format!("{} events {} of {count} were received", event_log.count(kind), kind.as_str())
        });
    }
    sim.expect_that(received + missed == event_log.last && missed > 0, || {
        format!("the slow listener received {received} and missed {missed} of {}", event_log.last)
    });
    let mut violations = event_log.violations.clone();
    violations.append(&mut sim.work_log().violations);
    violations
}

impl Simulation {
    fn work_log(&self) -> MutexGuard<'_, WorkLog> {
        self.work_log.lock().unwrap()
    }

    fn event_log(&self) -> MutexGuard<'_, EventLog> {
        self.event_log.lock().unwrap()
    }

    fn expect_that(&self, law: bool, otherwise: impl FnOnce() -> String) {
        if !law {
            let violation = format!("{:?}: {}", self.start.elapsed(), otherwise());
            self.work_log().violations.push(violation);
        }
    }

    /// All hosts except some.
    fn fleet(&self, config: TransportConfig, without: &[String]) -> Fleet {
        let ids = self.hosts.keys().filter(|id| !without.contains(id));
        Fleet { config, hosts: ids.map(|id| host(id)).collect() }
    }

    async fn listen(self: Arc<Self>, mut events: EventStream) {
        while let Some(event) = events.recv().await {
            self.event_log().record_event(&event);
        }
    }

    /// Injects a host's faults of the day.
    async fn inject_faults(self: Arc<Self>, host: Arc<SimulatedHost>, mut random: fastrand::Rng) {
        let script = &host.script;
        for period in &host.faults {
            sleep_until(self.start + period.after).await;
            let until = Instant::now() + period.lasts;
            host.begin_fault(period.fault);
            match period.fault {
                Fault::Flaps => {
                    while Instant::now() < until {
                        script.set_attempts(Step::Fails(SECOND / 2));
                        self.cut(&host).await;
                        sleep(Duration::from_secs(random.u64(1..30))).await;
                        script.set_attempts(Step::Opens(SECOND / 5));
                        sleep(Duration::from_secs(random.u64(1..90))).await;
                    }
                }
                Fault::Down => {
                    script.set_attempts(Step::Fails(SECOND.mul_f64(2.0 * random.f64())));
                    self.cut(&host).await;
                }
                Fault::Hangs => {
                    script.set_attempts(Step::Hangs);
                    script.set_silent(true);
                }
                Fault::Slow => script.set_probe_time(2 * SECOND),
                Fault::Flaky | Fault::VmsHang => {}
            }
            sleep_until(until).await;
            host.end_fault();
        }
    }

    /// Cuts a host's links. Each link that was up must be reported as lost.
    async fn cut(&self, host: &SimulatedHost) {
        let lost = || self.event_log().hosts.get(&host.id).map_or(0, |record| record.lost);
        let before = lost();
        let pool = self.manager.pool(&host.id);
        let up = pool.map_or(0, |pool| {
            let connections = pool.connections();
            connections.iter().filter(|connection| is_up(connection)).count() as u64
        });
        host.script.cut();
        sleep(TICK).await;
        let noticed = lost() - before;
        self.expect_that(noticed == up, || format!("{}: {up} links were cut, {noticed} lost", host.id));
    }

    async fn generate_work(self: Arc<Self>, mut random: fastrand::Rng) {
        let mut under_way = JoinSet::new();
        while self.start.elapsed() < DAY {
            sleep(PAUSE.mul_f64(random.f64())).await;
            let on = id(random.usize(0..HOSTS));
            let place = match random.u16(0..1000) {
                0..350 => Place::On(on),
                350..600 => Place::Repeatable(on),
                600..980 => Place::Any(group_of(&on), Pick::ALL[random.usize(0..Pick::ALL.len())]),
                980..996 => Place::Some((0..5).map(|n| id((n * 37 + random.usize(0..37)) % HOSTS)).collect()),
                996.. => Place::All,
            };
            let mut pieces = 1;
            if let Place::Repeatable(host) = &place
                && self.hosts[host].fault().is_some_and(|fault| fault != Fault::VmsHang)
            {
                pieces = 40;
                self.work_log().flooded.insert(host.clone(), Instant::now());
            }
            for _ in 0..pieces {
                let piece = Arc::new(Piece::random(&mut random, place.clone()));
                let leaves = (random.u8(0..10) == 0).then(|| Duration::from_millis(random.u64(0..5000)));
                self.work_log().pieces.0 += 1;
                under_way.spawn(self.clone().drive(piece, leaves));
            }
            while under_way.try_join_next().is_some() {}
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        let (asked, ended) = self.work_log().pieces;
        self.expect_that(asked == ended, || format!("{asked} pieces of work were asked for, {ended} ended"));
    }

    /// Waits for a piece of work to end, or cancels it before.
    async fn drive(self: Arc<Self>, piece: Arc<Piece>, leaves: Option<Duration>) {
        let mut task = tokio::spawn(self.clone().perform(piece));
        if let Some(after) = leaves
            && tokio::time::timeout(after, &mut task).await.is_err()
        {
            task.abort();
            let _aborted = task.await;
            self.work_log().cancelled += 1;
        } else if !task.is_finished() {
            let ended = task.await;
            self.expect_that(ended.is_ok(), || format!("a piece of work ended {ended:?}"));
        }
        self.work_log().pieces.1 += 1;
    }

    /// Removes and adds hosts, changes limits and strategies, and applies invalid configurations, which must be
    /// refused.
    async fn change_fleet(self: Arc<Self>, mut random: fastrand::Rng) {
        let mut absent: Vec<String> = Vec::new();
        while self.start.elapsed() < DAY {
            sleep(Duration::from_secs(random.u64(15 * 60..45 * 60))).await;
            match random.u8(0..3) {
                0 => {
                    let mut broken = config();
                    broken.pool.max_connections_per_host = 0;
                    let refused = self.manager.apply(self.fleet(broken, &[])).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
                }
                1 => {
                    for id in std::mem::take(&mut absent) {
                        self.forget_retries(&id);
                        self.manager.add_host(host(&id)).await.unwrap();
                    }
                    let gone = id(random.usize(0..HOSTS));
                    self.manager.remove_host(&gone).await.unwrap();
                    absent.push(gone);
                }
                _ => {
                    let mut config = config();
                    config.pool.max_connections_per_host = random.usize(3..=6);
                    config.pool.selection_strategy =
                        SelectionStrategy::ALL[random.usize(0..SelectionStrategy::ALL.len())];
                    let back = std::mem::take(&mut absent);
                    while absent.len() < 8 {
                        let id = id(random.usize(0..HOSTS));
                        if !back.contains(&id) && !absent.contains(&id) {
                            absent.push(id);
                        }
                    }
                    back.iter().for_each(|id| self.forget_retries(id));
                    let changes = self.manager.apply(self.fleet(config, &absent)).unwrap();
                    self.expect_that(changes.added.len() == back.len() && changes.removed.len() == 8, || {
                        format!("{back:?} came back: {changes:?}")
                    });
                }
            }
        }
        absent.iter().for_each(|id| self.forget_retries(id));
        self.manager.apply(self.fleet(config(), &[])).unwrap();
    }

    /// A host that is added again starts with a new budget.
    fn forget_retries(&self, id: &str) {
        self.work_log().retried.remove(id);
    }

    async fn check_periodically(self: Arc<Self>) {
        let mut recoveries = BTreeMap::new();
        loop {
            sleep(CHECK_INTERVAL).await;
            self.check().await;
            let healths = self.manager.health().hosts;
            for host in self.hosts.values() {
                let Some(well) = self.healthy_for(host) else { continue };
                if well >= HEALTHY_TIME {
                    let health =
                        healths.iter().find(|(id, _)| id.as_str() == host.id).map(|(_, health)| health);
                    self.expect_that(
                        health.is_some_and(|health| health.state == HealthState::Healthy),
                        || format!("{} has been without a fault for {well:?} and is {health:?}", host.id),
                    );
                }
                let since = host.healthy_since();
                if well >= RECOVERY_TIME && recoveries.get(&host.id) != Some(&since) {
                    recoveries.insert(host.id.clone(), since);
                    tokio::spawn(self.clone().check_recovery(host.clone()));
                }
            }
        }
    }

    /// How long a host has been without a fault, present in the fleet, and without a burst of work.
    fn healthy_for(&self, host: &SimulatedHost) -> Option<Duration> {
        let flooded = self.work_log().flooded.get(&host.id).copied().unwrap_or(self.start);
        let since = host.healthy_since()?.max(flooded);
        let event_log = self.event_log();
        let record = event_log.hosts.get(&host.id).filter(|record| record.present)?;
        Some(since.max(record.added).elapsed())
    }

    /// Checks that a recovered host does work and that its breaker is closed.
    async fn check_recovery(self: Arc<Self>, host: Arc<SimulatedHost>) {
        let Some(since) = host.healthy_since() else { return };
        let result = self.clone().perform(Arc::new(Piece::sound(&host.id))).await;
        // It may just have been removed, or have a fault again.
        if let Ok(pool) = self.manager.pool(&host.id)
            && host.healthy_since() == Some(since)
        {
            let breaker = pool.breaker();
            self.expect_that(result.is_ok() && breaker.state == BreakerState::Closed, || {
                format!("{} has recovered: work on it gave {result:?}, {breaker:?}", host.id)
            });
            self.work_log().recoveries += 1;
        }
    }

    /// Checks that the numbers add up, and that not too many breakers are open.
    async fn check(&self) {
        let mut open = 0;
        for (id, stats) in self.manager.stats().await {
            let by_state = stats.idle_connections
                + stats.active_connections
                + stats.connecting
                + stats.reconnecting
                + stats.failed
                + stats.suspect
                + stats.draining;
            self.expect_that(by_state == stats.total_connections, || format!("{id}: {stats:?}"));
            self.expect_that(stats.total_active_uses >= stats.active_connections, || {
                format!("{id}: {stats:?}")
            });
        }
        for pool in self.manager.pools() {
            open += usize::from(pool.breaker().state != BreakerState::Closed);
        }
        self.expect_that(open <= MOST_OPEN, || format!("{open} breakers are open"));
    }

    /// Checks at the end that all work has ended, all hosts are healthy, and the counters agree with the events and
    /// with the calls seen.
    async fn check_at_end(self: Arc<Self>) {
        self.check().await;
        let mut last = JoinSet::new();
        for host in self.hosts.values() {
            last.spawn(self.clone().check_recovery(host.clone()));
        }
        while let Some(ended) = last.join_next().await {
            ended.unwrap();
        }
        sleep(SECOND).await;
        let health = self.manager.health();
        let event_log = self.event_log();
        self.expect_that(health.state == HealthState::Healthy && event_log.fleet() == health.state, || {
            format!("the fleet is {}: {}; reported was {}", health.state, health.reason, event_log.fleet())
        });
        for pool in self.manager.pools() {
            let (id, stats, record) =
                (pool.host_id(), pool.stats(), &event_log.hosts[pool.host_id().as_str()]);
            let left = [
                stats.total_active_uses,
                stats.waiting,
                stats.calls_in_flight,
                stats.stuck_calls,
                stats.unproven_calls,
                stats.stuck_attempts,
                stats.suspect,
                stats.long_held_leases,
            ];
            self.expect_that(left == [0; 8], || format!("{id} still holds: {stats:?}"));
            self.expect_that(record.health == pool.health().state, || {
                format!("{id} is not {}", record.health)
            });
            self.expect_that(record.breaker == pool.breaker().state, || {
                format!("{id}: its breaker is not {}", record.breaker)
            });
            let lines =
                record.connections.iter().filter_map(|connection| event_log.connections.get(connection));
            let (calls, errors) =
                lines.fold((0, 0), |(calls, errors), line| (calls + line.calls, errors + line.errors));
            let seen = (calls, errors, record.recovered, record.acquire_timeouts);
            let counted =
                (stats.total_requests, stats.total_errors, stats.reconnects, stats.acquire_timeouts);
            self.expect_that(counted == seen, || {
                format!("{id}: calls, errors, reconnects, timeouts {counted:?}, not {seen:?}")
            });
        }
        self.check_retries();
        self.check_coverage(&event_log);
    }

    /// Checks that the retries on each host stay within the budget at any time.
    fn check_retries(&self) {
        let retry = config().retry;
        // A granted retry runs when its delay is over and it has a connection.
        let lag = 2 * MINUTE + 10 * SECOND;
        let span = retry.budget_window.mul_f64(0.9) - lag;
        let work_log = self.work_log();
        let mut violations = Vec::new();
        for (host, retried) in &work_log.retried {
            for &last in retried {
                let within = |times: &[Instant], span: Duration| {
                    times.iter().filter(|&&at| at <= last && last - at < span).count()
                };
                let retries = within(retried, span);
                let work = within(&work_log.asked[host], retry.budget_window + lag);
                let most = retry.budget_floor + (work as f64 * retry.budget_share) as usize;
                if retries > most {
                    violations.push(format!("{host}: {retries} retries of {work} pieces of work"));
                }
            }
        }
        drop(work_log);
        self.work_log().violations.append(&mut violations);
    }

    /// Checks that the day contained the situations that the simulation is for.
    fn check_coverage(&self, event_log: &EventLog) {
        let work_log = self.work_log();
        let retried: usize = work_log.retried.values().map(Vec::len).sum();
        println!(
            "{} pieces of work, {} cancelled, {retried} retries; {} events; at most {} breakers open; {} recoveries seen",
            work_log.pieces.0, work_log.cancelled, event_log.last, event_log.most_open, work_log.recoveries
        );
        drop(work_log);
        self.expect_that(event_log.most_open >= MOST_OPEN - 2, || {
            format!("at most {} breakers were open", event_log.most_open)
        });
        self.expect_that(retried > 100, || format!("{retried} retries"));
        for kind in [
            EventKind::Suspect,
            EventKind::Failed,
            EventKind::AcquireTimedOut,
            EventKind::RetryBudgetSpent,
            EventKind::PoolReaped,
            EventKind::ConfigurationApplied,
            EventKind::ConfigurationRefused,
        ] {
            self.expect_that(event_log.count(kind) > 0, || format!("there was no event {}", kind.as_str()));
        }
    }
}

/// Whether a connection is up, so that it notices when its link is cut.
fn is_up(connection: &HostConnection<Scripts>) -> bool {
    connection.state() == ConnectionState::Connected
}
