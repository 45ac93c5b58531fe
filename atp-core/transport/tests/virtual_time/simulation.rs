//! A day of a fleet whose hosts flap, hang and fail, with work of all kinds on them: what was promised holds throughout.
//!
//! The seed settles what befalls the hosts and what work there is, to the millisecond; the order of what happens at the
//! same moment may differ between runs. `ATP_SIMULATION_SEED` makes it another day.

mod patient;
mod story;
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

use patient::{Illness, Patient, forecast};
use story::Story;
use work::{Piece, Place};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Timers go by whole milliseconds.
const TICK: Duration = Duration::from_millis(2);

const HOSTS: usize = 200;
/// Hosts in a group.
const PER_GROUP: usize = 20;
/// Longest pause between one piece of work and the next.
const PAUSE: Duration = Duration::from_secs(14);
/// Most breakers open at once.
const MOST_OPEN: usize = HOSTS / 4;
/// A host that has been well for longer than any cool-down and any wait for an attempt to connect gets work again.
const CONVALESCENCE: Duration = Duration::from_secs(5 * 60);
/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_secs(15 * 60);
/// A host that has been well for so long counts as healthy.
const WELL_AND_TRULY: Duration = Duration::from_secs(55 * 60);

#[test]
fn a_day_of_two_hundred_hosts_that_flap_hang_and_fail() {
    let given = std::env::var("ATP_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(vec![1, 2, 3], |seed: u64| vec![seed]);
    std::thread::scope(|scope| {
        let days: Vec<_> = seeds.iter().map(|&seed| scope.spawn(move || (seed, day(seed)))).collect();
        for day in days {
            let (seed, violations) = day.join().unwrap();
            let first: Vec<_> = violations.iter().take(10).collect();
            assert!(violations.is_empty(), "seed {seed}: {} violations: {first:#?}", violations.len());
        }
    });
}

/// Lives through a day; returns what was not as promised.
fn day(seed: u64) -> Vec<String> {
    // What is drawn at random is drawn on this thread.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live_through(seed))
}

/// The fleet and the world it is in.
struct Simulation {
    start: Instant,
    manager: TransportManager<Scripts>,
    patients: BTreeMap<String, Arc<Patient>>,
    story: Mutex<Story>,
    books: Mutex<Books>,
}

/// What was done, as those know who did it.
#[derive(Default)]
struct Books {
    /// When work was asked for that a host may have been the first to try.
    asked: BTreeMap<String, Vec<Instant>>,
    /// When a host ran work that another run of had failed.
    retried: BTreeMap<String, Vec<Instant>>,
    /// When a host last got very much work at once.
    flooded: BTreeMap<String, Instant>,
    /// Pieces of work asked for, and those that ended, one way or another.
    pieces: (u64, u64),
    cancelled: u64,
    /// Hosts that were well again and were seen to do work.
    vouched: u64,
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

async fn live_through(seed: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let scripts = Scripts::default();
    let manager = TransportManager::with_connector(config(), scripts.clone());
    let (events, mut slow) = (manager.events(), manager.events());
    let patients = (0..HOSTS).map(|number| {
        let (id, spells) = (id(number), forecast(&mut random, number));
        (id.clone(), Arc::new(Patient::new(id.clone(), scripts.of(&id), spells)))
    });
    let sim = Arc::new(Simulation {
        start: Instant::now(),
        manager: manager.clone(),
        patients: patients.collect(),
        story: Mutex::default(),
        books: Mutex::default(),
    });
    let listens = tokio::spawn(sim.clone().listen(events));
    manager.apply(sim.fleet(config(), &[])).unwrap();

    let mut lives = JoinSet::new();
    for patient in sim.patients.values() {
        lives.spawn(sim.clone().suffer(patient.clone(), random.fork()));
    }
    lives.spawn(sim.clone().give_work(random.fork()));
    lives.spawn(sim.clone().operate(random.fork()));
    let looks = tokio::spawn(sim.clone().look_now_and_then());
    while let Some(ended) = lives.join_next().await {
        ended.unwrap();
    }
    // An hour of peace.
    sleep(60 * MINUTE).await;
    looks.abort();
    let _aborted = looks.await;
    sim.clone().look_at_the_end().await;

    let links = |count: fn(&crate::scripted::Script) -> usize| {
        sim.patients.values().map(|patient| count(&patient.script)).sum::<usize>()
    };
    sim.expects(manager.close(MINUTE).await, || "closed with work under way".to_owned());
    sleep(MINUTE).await;
    let opened = links(|script| script.closed_links()) as u64;
    sim.expects(links(|script| script.open_links()) == 0, || "links are left open".to_owned());
    listens.abort();
    let _aborted = listens.await;
    let (mut heard, mut missed) = (0, 0);
    while let Some(event) = slow.try_recv() {
        match event.what {
            TransportEvent::Missed { count } => missed += count,
            _ => heard += 1,
        }
    }
    let (story, counts) = (sim.story(), manager.event_counts());
    let told = story.count(EventKind::Connected) + story.count(EventKind::Recovered);
    sim.expects(opened == told, || format!("{opened} links were opened, and {told} told of"));
    for (kind, count) in counts {
        sim.expects(story.count(kind) == count, || {
            format!("{} events {} of {count} were heard", story.count(kind), kind.as_str())
        });
    }
    sim.expects(heard + missed == story.last && missed > 0, || {
        format!("the slow listener heard {heard} and missed {missed} of {}", story.last)
    });
    let mut violations = story.violations.clone();
    violations.append(&mut sim.books().violations);
    violations
}

impl Simulation {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap()
    }

    fn expects(&self, law: bool, otherwise: impl FnOnce() -> String) {
        if !law {
            let violation = format!("{:?}: {}", self.start.elapsed(), otherwise());
            self.books().violations.push(violation);
        }
    }

    /// All hosts, but for some.
    fn fleet(&self, config: TransportConfig, without: &[String]) -> Fleet {
        let ids = self.patients.keys().filter(|id| !without.contains(id));
        Fleet { config, hosts: ids.map(|id| host(id)).collect() }
    }

    async fn listen(self: Arc<Self>, mut events: EventStream) {
        while let Some(event) = events.recv().await {
            self.story().hear(&event);
        }
    }

    /// A host's day.
    async fn suffer(self: Arc<Self>, patient: Arc<Patient>, mut random: fastrand::Rng) {
        let script = &patient.script;
        for spell in &patient.spells {
            sleep_until(self.start + spell.after).await;
            let until = Instant::now() + spell.lasts;
            patient.falls_ill(spell.illness);
            match spell.illness {
                Illness::Flaps => {
                    while Instant::now() < until {
                        script.set_attempts(Step::Fails(SECOND / 2));
                        self.cut(&patient).await;
                        sleep(Duration::from_secs(random.u64(1..30))).await;
                        script.set_attempts(Step::Opens(SECOND / 5));
                        sleep(Duration::from_secs(random.u64(1..90))).await;
                    }
                }
                Illness::Down => {
                    script.set_attempts(Step::Fails(SECOND.mul_f64(2.0 * random.f64())));
                    self.cut(&patient).await;
                }
                Illness::Hangs => {
                    script.set_attempts(Step::Hangs);
                    script.set_silent(true);
                }
                Illness::Slow => script.set_probe_time(2 * SECOND),
                Illness::Flaky | Illness::VmsHang => {}
            }
            sleep_until(until).await;
            patient.recovers();
        }
    }

    /// Cuts a host's links; each that was up is told of as lost.
    async fn cut(&self, patient: &Patient) {
        let lost = || self.story().hosts.get(&patient.id).map_or(0, |told| told.lost);
        let before = lost();
        let pool = self.manager.pool(&patient.id);
        let up = pool.map_or(0, |pool| {
            let connections = pool.connections();
            connections.iter().filter(|connection| is_up(connection)).count() as u64
        });
        patient.script.cut();
        sleep(TICK).await;
        let noticed = lost() - before;
        self.expects(noticed == up, || format!("{}: {up} links were cut, {noticed} lost", patient.id));
    }

    async fn give_work(self: Arc<Self>, mut random: fastrand::Rng) {
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
                && self.patients[host].illness().is_some_and(|illness| illness != Illness::VmsHang)
            {
                pieces = 40;
                self.books().flooded.insert(host.clone(), Instant::now());
            }
            for _ in 0..pieces {
                let piece = Arc::new(Piece::random(&mut random, place.clone()));
                let leaves = (random.u8(0..10) == 0).then(|| Duration::from_millis(random.u64(0..5000)));
                self.books().pieces.0 += 1;
                under_way.spawn(self.clone().see_to(piece, leaves));
            }
            while under_way.try_join_next().is_some() {}
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        let (asked, ended) = self.books().pieces;
        self.expects(asked == ended, || format!("{asked} pieces of work were asked for, {ended} ended"));
    }

    /// Waits for a piece of work to end, or leaves it before.
    async fn see_to(self: Arc<Self>, piece: Arc<Piece>, leaves: Option<Duration>) {
        let mut task = tokio::spawn(self.clone().perform(piece));
        if let Some(after) = leaves
            && tokio::time::timeout(after, &mut task).await.is_err()
        {
            task.abort();
            let _aborted = task.await;
            self.books().cancelled += 1;
        } else if !task.is_finished() {
            let ended = task.await;
            self.expects(ended.is_ok(), || format!("a piece of work ended {ended:?}"));
        }
        self.books().pieces.1 += 1;
    }

    /// Hosts are taken out and come back, limits and strategies change, and some changes are refused.
    async fn operate(self: Arc<Self>, mut random: fastrand::Rng) {
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
                    self.expects(changes.added.len() == back.len() && changes.removed.len() == 8, || {
                        format!("{back:?} came back: {changes:?}")
                    });
                }
            }
        }
        absent.iter().for_each(|id| self.forget_retries(id));
        self.manager.apply(self.fleet(config(), &[])).unwrap();
    }

    /// A host that is added anew starts with a new budget.
    fn forget_retries(&self, id: &str) {
        self.books().retried.remove(id);
    }

    async fn look_now_and_then(self: Arc<Self>) {
        let mut vouched = BTreeMap::new();
        loop {
            sleep(LOOK).await;
            self.look().await;
            let healths = self.manager.health().hosts;
            for patient in self.patients.values() {
                let Some(well) = self.well_for(patient) else { continue };
                if well >= WELL_AND_TRULY {
                    let health =
                        healths.iter().find(|(id, _)| id.as_str() == patient.id).map(|(_, health)| health);
                    self.expects(health.is_some_and(|health| health.state == HealthState::Healthy), || {
                        format!("{} has been well for {well:?} and is {health:?}", patient.id)
                    });
                }
                let since = patient.well_since();
                if well >= CONVALESCENCE && vouched.get(&patient.id) != Some(&since) {
                    vouched.insert(patient.id.clone(), since);
                    tokio::spawn(self.clone().vouch(patient.clone()));
                }
            }
        }
    }

    /// For how long a host has been well, in the fleet, and not flooded with work.
    fn well_for(&self, patient: &Patient) -> Option<Duration> {
        let flooded = self.books().flooded.get(&patient.id).copied().unwrap_or(self.start);
        let since = patient.well_since()?.max(flooded);
        let story = self.story();
        let told = story.hosts.get(&patient.id).filter(|told| told.present)?;
        Some(since.max(told.added).elapsed())
    }

    /// A host that has been well for long does work, and its breaker is closed.
    async fn vouch(self: Arc<Self>, patient: Arc<Patient>) {
        let Some(since) = patient.well_since() else { return };
        let result = self.clone().perform(Arc::new(Piece::sound(&patient.id))).await;
        // It may just have been taken out, or fallen ill again.
        if let Ok(pool) = self.manager.pool(&patient.id)
            && patient.well_since() == Some(since)
        {
            let breaker = pool.breaker();
            self.expects(result.is_ok() && breaker.state == BreakerState::Closed, || {
                format!("{} is well again, and work on it {result:?}, {breaker:?}", patient.id)
            });
            self.books().vouched += 1;
        }
    }

    /// The numbers add up, and not too many hosts are left alone.
    async fn look(&self) {
        let mut open = 0;
        for (id, stats) in self.manager.stats().await {
            let by_state = stats.idle_connections
                + stats.active_connections
                + stats.connecting
                + stats.reconnecting
                + stats.failed
                + stats.suspect
                + stats.draining;
            self.expects(by_state == stats.total_connections, || format!("{id}: {stats:?}"));
            self.expects(stats.total_active_uses >= stats.active_connections, || format!("{id}: {stats:?}"));
        }
        for pool in self.manager.pools() {
            open += usize::from(pool.breaker().state != BreakerState::Closed);
        }
        self.expects(open <= MOST_OPEN, || format!("{open} breakers are open"));
    }

    /// All has ended, all is well, and the numbers say what was told and what was seen.
    async fn look_at_the_end(self: Arc<Self>) {
        self.look().await;
        let mut last = JoinSet::new();
        for patient in self.patients.values() {
            last.spawn(self.clone().vouch(patient.clone()));
        }
        while let Some(ended) = last.join_next().await {
            ended.unwrap();
        }
        sleep(SECOND).await;
        let health = self.manager.health();
        let story = self.story();
        self.expects(health.state == HealthState::Healthy && story.fleet() == health.state, || {
            format!("the fleet is {}: {}; told was {}", health.state, health.reason, story.fleet())
        });
        for pool in self.manager.pools() {
            let (id, stats, told) = (pool.host_id(), pool.stats(), &story.hosts[pool.host_id().as_str()]);
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
            self.expects(left == [0; 8], || format!("{id} holds on: {stats:?}"));
            self.expects(told.health == pool.health().state, || format!("{id} is not {}", told.health));
            self.expects(told.breaker == pool.breaker().state, || {
                format!("{id}: its breaker is not {}", told.breaker)
            });
            let lines = told.connections.iter().filter_map(|connection| story.connections.get(connection));
            let (calls, errors) =
                lines.fold((0, 0), |(calls, errors), line| (calls + line.calls, errors + line.errors));
            let seen = (calls, errors, told.recovered, told.acquire_timeouts);
            let counted =
                (stats.total_requests, stats.total_errors, stats.reconnects, stats.acquire_timeouts);
            self.expects(counted == seen, || {
                format!("{id}: calls, errors, reconnects, timeouts {counted:?}, not {seen:?}")
            });
        }
        self.look_at_retries();
        self.something_happened(&story);
    }

    /// Retries keep to the budget, on each host, at any time.
    fn look_at_retries(&self) {
        let retry = config().retry;
        // A retry that was granted runs when its wait is over and a connection is there.
        let lag = 2 * MINUTE + 10 * SECOND;
        let span = retry.budget_window.mul_f64(0.9) - lag;
        let books = self.books();
        let mut violations = Vec::new();
        for (host, retried) in &books.retried {
            for &last in retried {
                let within = |times: &[Instant], span: Duration| {
                    times.iter().filter(|&&at| at <= last && last - at < span).count()
                };
                let retries = within(retried, span);
                let work = within(&books.asked[host], retry.budget_window + lag);
                let most = retry.budget_floor + (work as f64 * retry.budget_share) as usize;
                if retries > most {
                    violations.push(format!("{host}: {retries} retries of {work} pieces of work"));
                }
            }
        }
        drop(books);
        self.books().violations.append(&mut violations);
    }

    /// The day was one on which something happened.
    fn something_happened(&self, story: &Story) {
        let books = self.books();
        let retried: usize = books.retried.values().map(Vec::len).sum();
        println!(
            "{} pieces of work, {} cancelled, {retried} retries; {} events; at most {} breakers open; {} recoveries seen",
            books.pieces.0, books.cancelled, story.last, story.most_open, books.vouched
        );
        drop(books);
        self.expects(story.most_open >= MOST_OPEN - 2, || {
            format!("at most {} breakers were open", story.most_open)
        });
        self.expects(retried > 100, || format!("{retried} retries"));
        for kind in [
            EventKind::Suspect,
            EventKind::Failed,
            EventKind::AcquireTimedOut,
            EventKind::RetryBudgetSpent,
            EventKind::PoolReaped,
            EventKind::ConfigurationApplied,
            EventKind::ConfigurationRefused,
        ] {
            self.expects(story.count(kind) > 0, || format!("nothing was {}", kind.as_str()));
        }
    }
}

/// Whether a connection is up, which then notices when its link is cut.
fn is_up(connection: &HostConnection<Scripts>) -> bool {
    connection.state() == ConnectionState::Connected
}
