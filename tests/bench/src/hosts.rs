//! The client's cost of hosts: CPU, memory and threads, when all are idle and when all are busy.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use atp_fleet::{Fleet, FleetOptions};
use atp_transport::{Engine, HostInfo, TransportConfig, TransportError, TransportManager};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::child;
use crate::table::Table;
use crate::usage::{Usage, cpu_time};

const HOSTS: [usize; 6] = [0, 1, 10, 100, 1_000, 10_000];
/// The most hosts of the library engine, which needs a thread for each call.
const LIBRARY: usize = 1_000;
/// Long enough for two keepalive intervals.
const IDLE: Duration = Duration::from_secs(12);
/// The number of calls while busy.
const CALLS: usize = 80_000;
/// How many hosts are connected to at the same time.
const CONNECTING: usize = 64;

/// The work of a child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    engine: Engine,
    uris: Vec<String>,
}

/// The cost of this number of hosts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    idle: Usage,
    /// CPU time per second while idle.
    idle_cpu: Duration,
    busy: Usage,
    busy_cpu: Duration,
    busy_for: Duration,
    calls: usize,
}

/// Measures, and prints a table for each engine.
pub(crate) fn report() -> Result<()> {
    let runtime = Runtime::new()?;
    let most = HOSTS.iter().copied().max().unwrap_or_default();
    let options = FleetOptions { hosts: u32::try_from(most)?, ..FleetOptions::default() };
    let fleet = runtime.block_on(Fleet::start(options))?;
    let uris: Vec<String> = fleet.hosts().map(|host| host.uri()).collect();
    for engine in [Engine::Native, Engine::Library] {
        of_engine(engine, &uris)?;
    }
    Ok(())
}

fn of_engine(engine: Engine, uris: &[String]) -> Result<()> {
    let mut table = Table::new([
        "hosts",
        "idle: MiB",
        "threads",
        "CPU, ms/s",
        "busy: MiB",
        "threads",
        "calls/s",
        "CPU, µs/call",
    ]);
    for hosts in HOSTS {
        if engine == Engine::Library && hosts > LIBRARY {
            continue;
        }
        let uris = uris.iter().take(hosts).cloned().collect();
        let cost: Cost = child::ask(child::HOSTS, &Work { engine, uris })?;
        let mib = |usage: Usage| format!("{:.1}", usage.memory_kib as f64 / 1024.0);
        let calls = cost.calls as f64;
        let when_busy = |figure: String| if cost.calls == 0 { String::new() } else { figure };
        table.row([
            hosts.to_string(),
            mib(cost.idle),
            cost.idle.threads.to_string(),
            format!("{:.2}", cost.idle_cpu.as_secs_f64() * 1e3),
            when_busy(mib(cost.busy)),
            when_busy(cost.busy.threads.to_string()),
            when_busy(format!("{:.0}", calls / cost.busy_for.as_secs_f64())),
            when_busy(format!("{:.1}", cost.busy_cpu.as_secs_f64() * 1e6 / calls)),
        ]);
    }
    table.print(&format!(
        "A process with one connection to each host, by the {engine} engine. It is idle for {} s, then calls `hostname` on all \
         hosts at once, repeatedly, {CALLS} times in all. The hosts are simulated, in another process:",
        IDLE.as_secs()
    ));
    Ok(())
}

/// Connects to the hosts, is idle for a while, then keeps all of them busy.
pub(crate) fn measure(Work { engine, uris }: Work) -> Result<Cost> {
    let runtime = Runtime::new()?;
    let manager = TransportManager::new(TransportConfig { engine, ..TransportConfig::default() });
    runtime.block_on(connect(&manager, &uris))?;

    let cpu = cpu_time();
    sleep(IDLE);
    let (idle, idle_cpu) = (Usage::now()?, (cpu_time() - cpu).div_f64(IDLE.as_secs_f64()));

    let (cpu, start, mut calls) = (cpu_time(), Instant::now(), 0);
    while !uris.is_empty() && calls < CALLS {
        let work = manager.execute_on_all_hosts(|connection| async move { connection.hostname().await });
        for (_, result) in runtime.block_on(work) {
            result?;
            calls += 1;
        }
    }
    let (busy_cpu, busy_for, busy) = (cpu_time() - cpu, start.elapsed(), Usage::now()?);
    Ok(Cost { idle, idle_cpu, busy, busy_cpu, busy_for, calls })
}

/// Adds the hosts, and waits until all of them are connected.
async fn connect(manager: &TransportManager, uris: &[String]) -> Result<(), TransportError> {
    let hosts: Vec<_> = uris.iter().enumerate().map(|(n, uri)| (format!("h{n}"), uri)).collect();
    for some in hosts.chunks(CONNECTING) {
        for (id, uri) in some {
            manager.add_host(HostInfo::from_uri(id, *uri)).await?;
        }
        for (id, _) in some {
            while manager.pool(id)?.stats().idle_connections == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Ok(())
}
