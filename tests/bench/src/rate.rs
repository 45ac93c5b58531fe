//! The number of calls per second: `execute_on_host` compared with the bare library.
//!
//! All sides have the same event loop and keepalive, and the same number of connections and callers: threads that
//! make the calls themselves on the bare side, tasks on the others. A task cannot make a blocking call itself; the
//! side with the bare library on tokio's threads for blocking calls shows the cost of this.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use atp_testbed::Testbed;
use atp_transport::{Engine, HostInfo, TransportConfig, TransportError, TransportManager};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, spawn_blocking};
use virt::connect::Connect;

use crate::table::{Table, verdict};
use crate::usage::cpu_time;
use crate::{bare, median};

/// The time of one turn of a side.
const TURN: Duration = Duration::from_millis(25);
const ROUNDS: usize = 241;
const HOST: &str = "host";

/// A number of parallel calls, and the goal for it.
struct Case {
    in_flight: usize,
    connections: usize,
    /// The goal: the minimum share of the bare rate, percent.
    goal: Option<f64>,
    /// The same for the native engine.
    native_goal: Option<f64>,
}

const CASES: [Case; 3] = [
    Case { in_flight: 1, connections: 1, goal: Some(85.0), native_goal: Some(100.0) },
    Case { in_flight: 4, connections: 4, goal: Some(95.0), native_goal: None },
    // Not the library engine's default: libvirt's client is not safe with several calls on a connection.
    Case { in_flight: 4, connections: 1, goal: None, native_goal: None },
];

/// The result of one turn of a side.
struct Turn {
    /// Calls per second.
    rate: f64,
    /// CPU time of this process per call, microseconds.
    cpu: f64,
}

/// Measures, and prints a table.
pub(crate) fn report() -> Result<()> {
    let bed = Testbed::builder().hosts(1).guests(0).start()?;
    let uri = bed.host("h1")?.uri();
    bare::use_our_event_loop()?;
    let many = Runtime::new()?;
    let one = Builder::new_current_thread().enable_all().build()?;
    let mut table = Table::new([
        "in flight",
        "connections",
        "calls made by",
        "calls/s",
        "client CPU, µs/call",
        "of the bare rate",
        "goal",
        "",
    ]);
    for case in CASES {
        let connects = (0..case.connections).map(|_| bare::open(&uri)).collect::<Result<Vec<_>>>()?;
        let connects: Vec<Arc<Connect>> = connects.into_iter().map(Arc::new).collect();
        let by = |runtime: &Runtime, engine| runtime.block_on(connected(&uri, &case, engine));
        let ours = [by(&many, Engine::Library)?, by(&one, Engine::Library)?];
        let natives = [by(&many, Engine::Native)?, by(&one, Engine::Native)?];
        let [mut bare, mut blocking, mut on_many, mut on_one, mut native_many, mut native_one] =
            [const { Vec::new() }; 6];
        for _ in 0..ROUNDS {
            bare.push(turn(|start| on_threads(&connects, case.in_flight, start))?);
            on_many.push(turn(|start| many.block_on(on_host(&ours[0], case.in_flight, start)))?);
            blocking.push(turn(|start| many.block_on(on_blocking(&connects, case.in_flight, start)))?);
            on_one.push(turn(|start| one.block_on(on_host(&ours[1], case.in_flight, start)))?);
            native_many.push(turn(|start| many.block_on(on_host(&natives[0], case.in_flight, start)))?);
            native_one.push(turn(|start| one.block_on(on_host(&natives[1], case.in_flight, start)))?);
        }
        for [on_many, on_one] in [&ours, &natives] {
            many.block_on(on_many.close(TURN));
            one.block_on(on_one.close(TURN));
        }
        for (name, turns, goal) in [
            ("bare `virt`, threads", &bare, None),
            ("bare `virt`, `spawn_blocking`", &blocking, None),
            ("`execute_on_host`, library, `multi_thread`", &on_many, case.goal),
            ("`execute_on_host`, library, `current_thread`", &on_one, case.goal),
            ("`execute_on_host`, native, `multi_thread`", &native_many, case.native_goal),
            ("`execute_on_host`, native, `current_thread`", &native_one, case.native_goal),
        ] {
            let share = median(turns.iter().zip(&bare).map(|(it, bare)| 100.0 * it.rate / bare.rate));
            table.row([
                case.in_flight.to_string(),
                case.connections.to_string(),
                name.to_owned(),
                format!("{:.0}", median(turns.iter().map(|turn| turn.rate))),
                format!("{:.1}", median(turns.iter().map(|turn| turn.cpu))),
                format!("{share:.1} %"),
                goal.map_or_else(String::new, |goal| format!("{goal} %")),
                goal.map_or("", |goal| verdict(share >= goal)).to_owned(),
            ]);
        }
    }
    table.print(&format!(
        "`hostname` of one daemon; median of {ROUNDS} rounds, each with a turn of {} ms for each side:",
        TURN.as_millis()
    ));
    bed.down().context("the testbed was not removed")
}

/// A manager of one host, with all connections open.
async fn connected(uri: &str, case: &Case, engine: Engine) -> Result<TransportManager, TransportError> {
    let mut config = TransportConfig { engine, ..TransportConfig::default() };
    config.pool.min_connections_per_host = case.connections;
    config.pool.max_connections_per_host = case.connections;
    config.calls.max_per_connection = case.in_flight / case.connections;
    let manager = TransportManager::new(config);
    manager.add_host(HostInfo::from_uri(HOST, uri)).await?;
    let pool = manager.pool(HOST)?;
    while pool.stats().idle_connections < case.connections {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(manager)
}

/// Measures the calls made for a while. `calls` gets the start time, and returns their number.
fn turn(calls: impl FnOnce(Instant) -> Result<u32>) -> Result<Turn> {
    let (cpu, start) = (cpu_time(), Instant::now());
    let calls = f64::from(calls(start)?);
    let (cpu, wall) = (cpu_time() - cpu, start.elapsed());
    Ok(Turn { rate: calls / wall.as_secs_f64(), cpu: cpu.as_secs_f64() * 1e6 / calls })
}

/// The transport.
async fn on_host(manager: &TransportManager, in_flight: usize, start: Instant) -> Result<u32> {
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let manager = manager.clone();
        callers.spawn(async move {
            let mut calls = 0;
            while start.elapsed() < TURN {
                manager
                    .execute_on_host(HOST, |connection| async move { connection.hostname().await })
                    .await?;
                calls += 1;
            }
            Ok::<u32, TransportError>(calls)
        });
    }
    let mut calls = 0;
    while let Some(of_one) = callers.join_next().await {
        calls += of_one??;
    }
    Ok(calls)
}

/// The bare library, called by tasks.
async fn on_blocking(connects: &[Arc<Connect>], in_flight: usize, start: Instant) -> Result<u32> {
    let mut callers = JoinSet::new();
    for connect in connects.iter().cycle().take(in_flight) {
        let connect = connect.clone();
        callers.spawn(async move {
            let mut calls = 0;
            while start.elapsed() < TURN {
                let connect = connect.clone();
                spawn_blocking(move || connect.hostname()).await??;
                calls += 1;
            }
            Ok::<u32, anyhow::Error>(calls)
        });
    }
    let mut calls = 0;
    while let Some(of_one) = callers.join_next().await {
        calls += of_one??;
    }
    Ok(calls)
}

/// The bare library, called by threads.
fn on_threads(connects: &[Arc<Connect>], in_flight: usize, start: Instant) -> Result<u32> {
    thread::scope(|scope| {
        let caller = |connect: &Arc<Connect>| {
            let connect = connect.clone();
            scope.spawn(move || {
                let mut calls = 0;
                while start.elapsed() < TURN {
                    connect.hostname()?;
                    calls += 1;
                }
                Ok::<u32, virt::error::Error>(calls)
            })
        };
        let callers: Vec<_> = connects.iter().cycle().take(in_flight).map(caller).collect();
        let mut calls = 0;
        for caller in callers {
            calls += caller.join().map_err(|_| anyhow!("a caller panicked"))??;
        }
        Ok(calls)
    })
}
