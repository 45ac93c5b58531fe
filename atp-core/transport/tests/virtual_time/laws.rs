//! What holds of a pool whatever happens: thousands of random schedules, the laws looked at after every step.
//!
//! The cases are the same in every run. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` make it look further.

mod line;
mod schedule;
mod world;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use atp_transport::{ConnectionState, PoolStats};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use tokio::runtime::{Builder, Handle};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use line::Asking;
use schedule::{Schedule, Step, schedules};
use world::{TICK, Thread, World};

/// Random schedules looked at, unless the environment says otherwise.
const CASES: u32 = 2_000;
/// How often the laws are looked at while callers wait.
const LOOK: Duration = Duration::from_secs(1);
/// Looks that are printed when a law is broken.
const LAST_LOOKS: usize = 30;

#[test]
fn the_laws_hold_whatever_happens() {
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
    let mut judge = runtime.block_on(Judge::new(schedule));
    let verdict = runtime.block_on(judge.try_schedule(&schedule.steps));
    // What is left is dropped outside the runtime, which must not panic either.
    drop(runtime);
    verdict.map_err(|violation| format!("{violation}\n\n{}", judge.account(&schedule.steps)))
}

/// Holds a pool to the laws.
struct Judge {
    world: World,
    /// The looks so far, for the account of a failure.
    looks: Vec<(Duration, Stage, PoolStats)>,
    /// Connections that could carry another lease: by id, over which of its links, and since when.
    room: HashMap<u64, (u64, Instant)>,
    closed_links: usize,
}

/// Where in a schedule we are.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Start,
    Step(usize),
    Recovery,
    Idle,
    End,
}

/// What is there to be seen at one moment, by the pool's account and by that of its users.
struct Look {
    now: Instant,
    stats: PoolStats,
    in_service: usize,
    connections: Vec<Seen>,
    threads: Vec<Thread>,
    line: Vec<Asking>,
}

/// A connection at that moment.
struct Seen {
    id: u64,
    up: bool,
    uses: usize,
    reconnects: u64,
}

type CallDecision = Result<(), String>;

macro_rules! hold {
    ($law:expr, $($otherwise:tt)+) => {
        if !$law {
            return Err(format!($($otherwise)+));
        }
    };
}

impl Judge {
    async fn new(schedule: &Schedule) -> Self {
        let world = World::new(schedule.config.clone()).await;
        Judge { world, looks: Vec::new(), room: HashMap::new(), closed_links: 0 }
    }

    async fn try_schedule(&mut self, steps: &[Step]) -> CallDecision {
        self.look(Stage::Start).await?;
        for (n, step) in steps.iter().enumerate() {
            self.world.perform(step).await;
            self.look(Stage::Step(n)).await?;
            if let Step::Pass(time) = step {
                self.pass(Duration::from_millis(*time), Stage::Step(n)).await?;
            }
        }
        if self.world.closing.is_none() {
            self.recovers().await?;
        }
        self.ends().await
    }

    /// Lets time pass, with a look at the laws now and then.
    async fn pass(&mut self, time: Duration, stage: Stage) -> CallDecision {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let somebody_waits = !self.world.books.line.waiting().is_empty();
            let look = if somebody_waits { LOOK } else { time };
            sleep(look.min(end - Instant::now())).await;
            self.look(stage).await?;
        }
        Ok(())
    }

    /// Lets all tasks run until they wait for time to pass, then looks whether the laws hold.
    async fn look(&mut self, stage: Stage) -> CallDecision {
        for _ in 0..8 {
            yield_now().await;
        }
        let look = Look::at(&self.world);
        self.looks.push((self.world.start.elapsed(), stage, look.stats.clone()));
        if let Some(violation) = self.world.books.violations.lock().unwrap().first() {
            return Err(violation.clone());
        }
        look.numbers_add_up(&self.world)?;
        look.nothing_leaks(&self.world)?;
        look.calls_are_limited(&self.world)?;
        if self.world.closing.is_some() {
            return look.pool_closes(&self.world);
        }
        look.size_is_right(&self.world)?;
        look.line_moves(&self.world)?;
        self.first_come_first_served(&look)?;
        self.room_is_used(&look)
    }

    /// Nobody is served before somebody who asked earlier.
    fn first_come_first_served(&mut self, look: &Look) -> CallDecision {
        let granted = self.world.books.line.take_granted();
        let closed = self.world.script.closed_links();
        let all_well = std::mem::replace(&mut self.closed_links, closed) == closed;
        if let (true, Some(first)) = (all_well, look.line.first()) {
            let overtaken = granted.iter().any(|asked| *asked > first.asked);
            hold!(!overtaken, "somebody was served before the first in line");
        }
        // Else somebody may have been first, and was lent a connection that was lost in that moment.
        Ok(())
    }

    /// Nobody waits for longer than `grow_patience` when a connection could carry another lease.
    fn room_is_used(&mut self, look: &Look) -> CallDecision {
        let pool = &self.world.books.config.pool;
        let before = std::mem::take(&mut self.room);
        for seen in look.connections.iter().filter(|c| c.up && c.uses < pool.max_uses_per_connection) {
            let since = before.get(&seen.id).filter(|(reconnects, _)| *reconnects == seen.reconnects);
            self.room.insert(seen.id, since.copied().unwrap_or((seen.reconnects, look.now)));
        }
        let since = self.room.values().map(|(_, since)| *since).min();
        if let (Some(since), Some(first)) = (since, look.line.first()) {
            let waited = look.now - since.max(first.asked);
            hold!(waited <= pool.grow_patience + TICK, "somebody waits for {waited:?} beside room");
        }
        Ok(())
    }

    /// Once the host is up, everybody has gone home and some time has passed, the pool is as good as new.
    async fn recovers(&mut self) -> CallDecision {
        self.world.make_peace();
        self.look(Stage::Recovery).await?;
        let config = self.world.books.config.clone();
        let noticed = config.heartbeat_interval.mul_f64(1.1) + config.heartbeat_timeout;
        let reopened = config.connect_timeout + config.reconnect.max_delay.mul_f64(2.2);
        self.pass(noticed + reopened + Duration::from_secs(1), Stage::Recovery).await?;
        let look = Look::at(&self.world);
        hold!(look.line.is_empty(), "somebody waits, and the host is up");
        let stats = look.stats;
        hold!(
            stats.idle_connections == stats.total_connections,
            "a connection is not idle, and nobody is there"
        );
        hold!(stats.calls_in_flight == 0, "calls or attempts are under way, and nobody is there");

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
    async fn ends(&mut self) -> CallDecision {
        self.pass(Duration::from_secs(10), Stage::End).await?;
        self.world.make_peace();
        self.look(Stage::End).await?;
        let closed = self.world.closing.as_ref().is_some_and(|closing| closing.task.is_finished());
        hold!(closed, "the pool never closed");
        let links = self.world.script.open_links();
        hold!(links == 0, "{links} links are open after the end");
        let tasks = Handle::current().metrics().num_alive_tasks();
        hold!(tasks == 0, "{tasks} tasks are alive after the end");
        let refused = self.world.pool.acquire(Instant::now()).await;
        hold!(refused.is_err(), "a closed pool lends connections");
        Ok(())
    }

    /// What happened until a law was broken.
    fn account(&self, steps: &[Step]) -> String {
        let mut account = String::new();
        for (at, stage, stats) in &self.looks[self.looks.len().saturating_sub(LAST_LOOKS)..] {
            let what = match stage {
                Stage::Step(n) => format!("{n}. {:?}", steps[*n]),
                stage => format!("{stage:?}"),
            };
            let (at, calls) = (at.as_secs_f64(), stats.calls_in_flight);
            writeln!(account, "{at:>9.3} s  {what}: {stats}, {calls} calls in flight").unwrap();
        }
        account
    }
}

impl Look {
    fn at(world: &World) -> Self {
        let stats = world.pool.stats();
        let seen = world.pool.connections().into_iter().map(|connection| {
            let metrics = connection.metrics();
            Seen {
                id: connection.connection_id(),
                up: connection.state() == ConnectionState::Connected,
                uses: metrics.active_uses,
                reconnects: metrics.reconnects,
            }
        });
        Look {
            now: Instant::now(),
            in_service: stats.total_connections - stats.suspect - stats.draining,
            connections: seen.collect(),
            stats,
            threads: world.books.threads(),
            line: world.books.line.waiting(),
        }
    }

    /// The pool's numbers add up, and are those of its users.
    fn numbers_add_up(&self, world: &World) -> CallDecision {
        let (stats, books) = (&self.stats, &world.books);
        let in_service = stats.idle_connections
            + stats.active_connections
            + stats.connecting
            + stats.reconnecting
            + stats.failed;
        hold!(in_service == self.in_service, "{in_service} connections in service by their states");
        let (out, (asking, validating)) = (books.out(), books.line.asking());
        let (leases, waiting, held) = (stats.total_active_uses, stats.waiting, out.len());
        hold!(
            leases + waiting == held + asking,
            "{leases} leases and {waiting} waiters are counted; {held} hold leases and {asking} ask for one"
        );
        hold!(
            (held..=held + validating).contains(&leases),
            "{leases} leases are counted, {held} held and {validating} asked for a sign of life"
        );
        let limit = books.config.pool.report_leases_after;
        let is_long = |since: Instant| !limit.is_zero() && self.now - since > limit;
        let [most, fewest] = [0, 1].map(|n| out.iter().filter(|held| is_long(held.since[n])).count());
        let (long, most) = (stats.long_held_leases, most + validating);
        hold!((fewest..=most).contains(&long), "{long} leases are held for long, not {fewest} to {most}");
        let ended = books.ended();
        hold!((stats.total_requests, stats.total_errors) == ended, "{ended:?} calls ended, and ended badly");
        let most = books.config.pool.max_uses_per_connection;
        hold!(
            self.connections.iter().all(|seen| seen.uses <= most),
            "more than {most} leases on a connection"
        );
        Ok(())
    }

    /// Links and tasks are those of the connections; none is lost that nothing had happened to.
    fn nothing_leaks(&self, world: &World) -> CallDecision {
        let (stats, books) = (&self.stats, &world.books);
        let users = self.threads.len() + books.line.asking().1;
        let most = stats.idle_connections + stats.active_connections + stats.suspect + stats.draining + users;
        let links = world.script.open_links();
        hold!(links <= most, "{links} links are open, {most} connections, calls and probes use them");
        let keeper = usize::from(world.closing.as_ref().is_none_or(|closing| !closing.task.is_finished()));
        let tasks = Handle::current().metrics().num_alive_tasks() - books.tasks.len();
        hold!(tasks == keeper + stats.total_connections, "the pool has {tasks} tasks");
        let excused = world.links_break || world.closing.is_some();
        hold!(excused || !books.a_link_was_lost(), "a link was lost that nothing had happened to");
        hold!(world.script.most_attempts_at_once() <= 1, "two attempts to connect were made at once");
        Ok(())
    }

    /// Calls under way are those of the callers, and within their limits; one that hangs makes its connection
    /// suspect.
    fn calls_are_limited(&self, world: &World) -> CallDecision {
        let config = &world.books.config;
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
        let answered = world.books.answered.lock().unwrap();
        let unproven = by_vm.keys().filter(|vm| !answered.contains(vm)).count();
        hold!(unproven <= config.calls.max_unproven_per_host, "{unproven} calls to VMs that never answered");

        for Seen { id, reconnects, .. } in self.connections.iter().filter(|seen| seen.up) {
            let hangs = self.threads.iter().any(|thread| {
                (thread.connection, thread.reconnects) == (*id, *reconnects)
                    && thread.deadline + TICK < self.now
            });
            hold!(!hangs, "a call hangs on connection {id}, and it is no suspect");
        }
        Ok(())
    }

    fn size_is_right(&self, world: &World) -> CallDecision {
        let ((min, max), size) = (world.limits, self.in_service);
        hold!((min..=max).contains(&size), "{size} connections in service, not {min} to {max}");
        Ok(())
    }

    /// Nobody waits for nothing, or past the deadline.
    fn line_moves(&self, world: &World) -> CallDecision {
        let (stats, config) = (&self.stats, &world.books.config);
        let late = world.books.line.overdue(self.now - TICK);
        hold!(late == 0, "{late} callers wait past their deadlines");
        if self.line.is_empty() {
            return Ok(());
        }
        let most = config.pool.max_uses_per_connection.min(config.calls.max_per_connection);
        let room = self.connections.iter().any(|seen| seen.up && seen.uses < most);
        hold!(!room, "somebody waits beside a connection with room for calls");
        let settled = stats.idle_connections + stats.active_connections == self.in_service;
        hold!(!settled || self.in_service == world.limits.1, "somebody waits, and the pool does not grow");
        let hopeless = self.in_service > 0 && stats.failed == self.in_service;
        hold!(!hopeless, "somebody waits for a host that has failed");
        Ok(())
    }

    /// A pool that closes takes no callers, and ends with its last lease or else at its deadline.
    fn pool_closes(&self, world: &World) -> CallDecision {
        let Some(closing) = &world.closing else { return Ok(()) };
        hold!(self.line.is_empty(), "somebody waits for a closed pool");
        let due = self.stats.total_active_uses == 0 || closing.deadline + TICK < self.now;
        let closed = closing.task.is_finished();
        hold!(closed || !due, "the pool should be closed, and is not");
        hold!(!closed || self.stats.total_connections == 0, "connections survive their pool");
        Ok(())
    }
}
