//! Properties of a pool: thousands of random schedules, with a check of all properties after every step.
//!
//! The cases are the same in every run. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` select more or other ones.

mod schedule;
mod wait_queue;
mod world;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use atp_transport::{ConnectionState, PoolStats};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use tokio::runtime::{Builder, Handle};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use schedule::{Schedule, Step, schedules};
use wait_queue::Pending;
use world::{TICK, Thread, World};

/// The number of random schedules, unless the environment sets another.
const CASES: u32 = 2_000;
/// The interval of checks while callers wait.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The number of checks in the report of a failure.
const LAST_CHECKS: usize = 30;

#[test]
fn all_laws_hold_for_random_schedules() {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let failed =
        TestRunner::new(config).run(&schedules(), |schedule| run(&schedule).map_err(TestCaseError::fail));
    match failed {
        Ok(()) => {}
        Err(TestError::Fail(violation, schedule)) => panic!("{violation}\n{schedule:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Runs a schedule from the first step to the closing of the pool.
fn run(schedule: &Schedule) -> Result<(), String> {
    fastrand::seed(schedule.seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut checker = runtime.block_on(LawChecker::new(schedule));
    let verdict = runtime.block_on(checker.try_schedule(&schedule.steps));
    // The rest is dropped outside the runtime, which must not panic either.
    drop(runtime);
    verdict.map_err(|violation| format!("{violation}\n\n{}", checker.report(&schedule.steps)))
}

/// Checks the properties of a pool.
struct LawChecker {
    world: World,
    /// The earlier checks, for the report of a failure.
    history: Vec<(Duration, Stage, PoolStats)>,
    /// Connections with room for another lease: by id, with the number of the link and the time since when.
    room: HashMap<u64, (u64, Instant)>,
    closed_links: usize,
}

/// The position in a schedule.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Start,
    Step(usize),
    Recovery,
    Idle,
    End,
}

/// The state at one moment, from the pool's statistics and from the records of its users.
struct Snapshot {
    now: Instant,
    stats: PoolStats,
    in_service: usize,
    connections: Vec<ConnectionSnapshot>,
    threads: Vec<Thread>,
    wait_queue: Vec<Pending>,
}

/// A connection at that moment.
struct ConnectionSnapshot {
    id: u64,
    up: bool,
    uses: usize,
    reconnects: u64,
}

type LawCheck = Result<(), String>;

macro_rules! hold {
    ($law:expr, $($otherwise:tt)+) => {
        if !$law {
            return Err(format!($($otherwise)+));
        }
    };
}

impl LawChecker {
    async fn new(schedule: &Schedule) -> Self {
        let world = World::new(schedule.config.clone()).await;
        LawChecker { world, history: Vec::new(), room: HashMap::new(), closed_links: 0 }
    }

    async fn try_schedule(&mut self, steps: &[Step]) -> LawCheck {
        self.check(Stage::Start).await?;
        for (n, step) in steps.iter().enumerate() {
            self.world.perform(step).await;
            self.check(Stage::Step(n)).await?;
            if let Step::Pass(time) = step {
                self.pass(Duration::from_millis(*time), Stage::Step(n)).await?;
            }
        }
        if self.world.closing.is_none() {
            self.check_recovery().await?;
        }
        self.check_end().await
    }

    /// Lets time pass, with checks at intervals.
    async fn pass(&mut self, time: Duration, stage: Stage) -> LawCheck {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let has_waiters = !self.world.records.wait_queue.waiting().is_empty();
            let snapshot = if has_waiters { CHECK_INTERVAL } else { time };
            sleep(snapshot.min(end - Instant::now())).await;
            self.check(stage).await?;
        }
        Ok(())
    }

    /// Lets all tasks run until they wait for a timer, then checks the properties.
    async fn check(&mut self, stage: Stage) -> LawCheck {
        for _ in 0..8 {
            yield_now().await;
        }
        let snapshot = Snapshot::at(&self.world);
        self.history.push((self.world.start.elapsed(), stage, snapshot.stats.clone()));
        if let Some(violation) = self.world.records.violations.lock().unwrap().first() {
            return Err(violation.clone());
        }
        snapshot.numbers_add_up(&self.world)?;
        snapshot.nothing_leaks(&self.world)?;
        snapshot.calls_are_limited(&self.world)?;
        if self.world.closing.is_some() {
            return snapshot.pool_closes(&self.world);
        }
        snapshot.size_is_right(&self.world)?;
        snapshot.wait_queue_moves(&self.world)?;
        self.first_come_first_served(&snapshot)?;
        self.room_is_used(&snapshot)
    }

    /// No caller is served before one that asked earlier.
    fn first_come_first_served(&mut self, snapshot: &Snapshot) -> LawCheck {
        let granted = self.world.records.wait_queue.take_granted();
        let closed = self.world.script.closed_links();
        let all_well = std::mem::replace(&mut self.closed_links, closed) == closed;
        if let (true, Some(first)) = (all_well, snapshot.wait_queue.first()) {
            let overtaken = granted.iter().any(|asked| *asked > first.asked);
            hold!(!overtaken, "a caller was served before the first in the queue");
        }
        // Otherwise the first caller may have been lent a connection that was lost at that moment.
        Ok(())
    }

    /// No caller waits for longer than `grow_patience` while a connection has room for another lease.
    fn room_is_used(&mut self, snapshot: &Snapshot) -> LawCheck {
        let pool = &self.world.records.config.pool;
        let before = std::mem::take(&mut self.room);
        for seen in snapshot.connections.iter().filter(|c| c.up && c.uses < pool.max_uses_per_connection) {
            let since = before.get(&seen.id).filter(|(reconnects, _)| *reconnects == seen.reconnects);
            self.room.insert(seen.id, since.copied().unwrap_or((seen.reconnects, snapshot.now)));
        }
        let since = self.room.values().map(|(_, since)| *since).min();
        if let (Some(since), Some(first)) = (since, snapshot.wait_queue.first()) {
            let waited = snapshot.now - since.max(first.asked);
            hold!(waited <= pool.grow_patience + TICK, "a caller waits for {waited:?} while there is room");
        }
        Ok(())
    }

    /// When the host is up, all callers have left and some time has passed, the pool is as after its start.
    async fn check_recovery(&mut self) -> LawCheck {
        self.world.end_faults_and_work();
        self.check(Stage::Recovery).await?;
        let config = self.world.records.config.clone();
        let noticed = config.heartbeat_interval.mul_f64(1.1) + config.heartbeat_timeout;
        let reopened = config.connect_timeout + config.reconnect.max_delay.mul_f64(2.2);
        self.pass(noticed + reopened + Duration::from_secs(1), Stage::Recovery).await?;
        let snapshot = Snapshot::at(&self.world);
        hold!(snapshot.wait_queue.is_empty(), "a caller waits although the host is up");
        let stats = snapshot.stats;
        hold!(
            stats.idle_connections == stats.total_connections,
            "a connection is not idle although there are no callers"
        );
        hold!(stats.calls_in_flight == 0, "calls or attempts are under way although there are no callers");

        let asked = Instant::now();
        let lease = self.world.pool.acquire(asked + Duration::from_secs(60)).await;
        let took = asked.elapsed();
        hold!(lease.is_ok() && took <= Duration::from_secs(1), "after {took:?} a new lease is {lease:?}");
        drop(lease);
        self.pass(config.pool.idle_timeout + 2 * config.pool.maintenance_interval, Stage::Idle).await?;
        let (total, min) = (self.world.pool.stats().total_connections, self.world.limits.0);
        hold!(total == min, "{total} connections are kept idle, not {min}");
        self.world.close(Duration::ZERO);
        Ok(())
    }

    /// A closed pool leaves nothing behind.
    async fn check_end(&mut self) -> LawCheck {
        self.pass(Duration::from_secs(10), Stage::End).await?;
        self.world.end_faults_and_work();
        self.check(Stage::End).await?;
        let closed = self.world.closing.as_ref().is_some_and(|closing| closing.task.is_finished());
        hold!(closed, "the pool did not close");
        let links = self.world.script.open_links();
        hold!(links == 0, "{links} links are open after the end");
        let tasks = Handle::current().metrics().num_alive_tasks();
        hold!(tasks == 0, "{tasks} tasks are alive after the end");
        let refused = self.world.pool.acquire(Instant::now()).await;
        hold!(refused.is_err(), "a closed pool granted a lease");
        Ok(())
    }

    /// The checks before the failure.
    fn report(&self, steps: &[Step]) -> String {
        let mut report = String::new();
        for (at, stage, stats) in &self.history[self.history.len().saturating_sub(LAST_CHECKS)..] {
            let what = match stage {
                Stage::Step(n) => format!("{n}. {:?}", steps[*n]),
                stage => format!("{stage:?}"),
            };
            let (at, calls) = (at.as_secs_f64(), stats.calls_in_flight);
            writeln!(report, "{at:>9.3} s  {what}: {stats}, {calls} calls in flight").unwrap();
        }
        report
    }
}

impl Snapshot {
    fn at(world: &World) -> Self {
        let stats = world.pool.stats();
        let seen = world.pool.connections().into_iter().map(|connection| {
            let metrics = connection.metrics();
            ConnectionSnapshot {
                id: connection.connection_id(),
                up: connection.state() == ConnectionState::Connected,
                uses: metrics.active_uses,
                reconnects: metrics.reconnects,
            }
        });
        Snapshot {
            now: Instant::now(),
            in_service: stats.total_connections - stats.suspect - stats.draining,
            connections: seen.collect(),
            stats,
            threads: world.records.threads(),
            wait_queue: world.records.wait_queue.waiting(),
        }
    }

    /// The pool's numbers add up, and agree with those of its users.
    fn numbers_add_up(&self, world: &World) -> LawCheck {
        let (stats, records) = (&self.stats, &world.records);
        let in_service = stats.idle_connections
            + stats.active_connections
            + stats.connecting
            + stats.reconnecting
            + stats.failed;
        hold!(in_service == self.in_service, "{in_service} connections in service by their states");
        let (out, (pending, validating)) = (records.out(), records.wait_queue.pending());
        let (leases, waiting) = (stats.total_active_uses, stats.waiting);
        // A call that was sent elsewhere has a lease there; one that waits may have one that is being validated.
        let [placing, elsewhere] =
            [&records.placing, &records.elsewhere].map(|calls| Arc::strong_count(calls) - 1);
        let held = out.len() + elsewhere;
        hold!(
            (held + pending..=held + pending + placing).contains(&(leases + waiting)),
            "{leases} leases and {waiting} waiters are counted; {held} hold leases, {pending} ask for one, {placing} for a place"
        );
        let validating = validating + placing;
        hold!(
            (held..=held + validating).contains(&leases),
            "{leases} leases are counted, {held} held and {validating} being validated"
        );
        let limit = records.config.pool.report_leases_after;
        let is_long = |since: Instant| !limit.is_zero() && self.now - since > limit;
        let [most, fewest] = [0, 1].map(|n| out.iter().filter(|held| is_long(held.since[n])).count());
        let (long, most) = (stats.long_held_leases, most + elsewhere + validating);
        hold!((fewest..=most).contains(&long), "{long} leases are held for long, not {fewest} to {most}");
        let ended = records.ended();
        hold!((stats.total_requests, stats.total_errors) == ended, "{ended:?} calls ended, and failed");
        let most = records.config.pool.max_uses_per_connection;
        hold!(
            self.connections.iter().all(|seen| seen.uses <= most),
            "more than {most} leases on a connection"
        );
        Ok(())
    }

    /// Links and tasks are those of the connections. No link is lost without a fault.
    fn nothing_leaks(&self, world: &World) -> LawCheck {
        let (stats, records) = (&self.stats, &world.records);
        let placing = Arc::strong_count(&records.placing) - 1;
        let users = self.threads.len() + records.wait_queue.pending().1 + placing;
        let most = stats.idle_connections + stats.active_connections + stats.suspect + stats.draining + users;
        let links = world.script.open_links();
        hold!(links <= most, "{links} links are open, {most} connections, calls and probes use them");
        let keeper = usize::from(world.closing.as_ref().is_none_or(|closing| !closing.task.is_finished()));
        let tasks = Handle::current().metrics().num_alive_tasks() - records.tasks.len();
        hold!(tasks == keeper + stats.total_connections, "the pool has {tasks} tasks");
        let excused = world.links_break || world.closing.is_some();
        hold!(excused || !records.has_lost_link(), "a link was lost without a fault");
        let (at_once, most) = (world.script.most_attempts_at_once(), records.config.pool.max_opening);
        hold!(at_once <= most, "{at_once} attempts to connect were made at once");
        let beside = world.script.attempts_beside_while_not_well();
        hold!(beside == 0, "{beside} attempts were made beside others after one had failed");
        Ok(())
    }

    /// The calls under way are those of the callers, and within their limits. A hung call makes its connection
    /// suspect.
    fn calls_are_limited(&self, world: &World) -> LawCheck {
        let config = &world.records.config;
        let (attempts, overdue) = world.script.attempts_under_way();
        let in_flight = self.threads.len() + attempts;
        hold!(self.stats.calls_in_flight == in_flight, "{in_flight} calls and attempts are under way");
        let stuck = self.threads.iter().filter(|thread| thread.deadline <= self.now).count();
        let counted = (self.stats.stuck_calls, self.stats.stuck_attempts);
        hold!(counted == (stuck, overdue), "{counted:?} are counted as stuck, not {stuck} and {overdue}");

        hold!(self.threads.len() <= config.calls.max_per_host, "too many calls to the host: {in_flight}");
        hold!(attempts <= config.reconnect.max_hung_attempts, "too many attempts: {attempts}");
        let (mut by_connection, mut by_vm) = (HashMap::new(), HashMap::new());
        for thread in &self.threads {
            *by_connection.entry(thread.connection).or_insert(0) += 1;
            if let Some(vm) = thread.vm {
                *by_vm.entry(vm).or_insert(0) += 1;
            }
        }
        let most = config.calls.max_per_connection;
        hold!(by_connection.values().all(|calls| *calls <= most), "calls by connection: {by_connection:?}");
        hold!(by_vm.values().all(|calls| *calls == 1), "calls by VM: {by_vm:?}");
        let answered = world.records.answered.lock().unwrap();
        let unproven = by_vm.keys().filter(|vm| !answered.contains(vm)).count();
        hold!(unproven <= config.calls.max_unproven_per_host, "{unproven} calls to VMs that never answered");

        for ConnectionSnapshot { id, reconnects, .. } in self.connections.iter().filter(|seen| seen.up) {
            let hangs = self.threads.iter().any(|thread| {
                (thread.connection, thread.reconnects) == (*id, *reconnects)
                    && thread.deadline + TICK < self.now
            });
            hold!(!hangs, "a call hangs on connection {id}, which is not suspect");
        }
        Ok(())
    }

    fn size_is_right(&self, world: &World) -> LawCheck {
        let ((min, max), size) = (world.limits, self.in_service);
        hold!((min..=max).contains(&size), "{size} connections in service, not {min} to {max}");
        Ok(())
    }

    /// No caller waits without a reason, or past its deadline.
    fn wait_queue_moves(&self, world: &World) -> LawCheck {
        let (stats, config) = (&self.stats, &world.records.config);
        let late = world.records.wait_queue.late(self.now - TICK);
        hold!(late == 0, "{late} callers wait past their deadlines");
        if self.wait_queue.is_empty() {
            return Ok(());
        }
        let most = config.pool.max_uses_per_connection.min(config.calls.max_per_connection);
        let room = self.connections.iter().any(|seen| seen.up && seen.uses < most);
        hold!(!room, "a caller waits while a connection has room for calls");
        let settled = stats.idle_connections + stats.active_connections == self.in_service;
        hold!(!settled || self.in_service == world.limits.1, "a caller waits, and the pool does not grow");
        let fail_fast = self.in_service > 0 && stats.failed == self.in_service;
        hold!(!fail_fast, "a caller waits for a host that has failed");
        Ok(())
    }

    /// A closing pool accepts no callers, and ends with its last lease or at its deadline.
    fn pool_closes(&self, world: &World) -> LawCheck {
        let Some(closing) = &world.closing else { return Ok(()) };
        hold!(self.wait_queue.is_empty(), "a caller waits for a closed pool");
        let due = self.stats.total_active_uses == 0 || closing.deadline + TICK < self.now;
        let closed = closing.task.is_finished();
        hold!(closed || !due, "the pool is not closed");
        hold!(!closed || self.stats.total_connections == 0, "a closed pool has connections");
        Ok(())
    }
}
