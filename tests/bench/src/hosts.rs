//! The client's cost of hosts: CPU, memory and threads, when all are idle and when all are busy.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atp_testbed::Testbed;
use atp_transport::{HostInfo, TransportConfig, TransportError, TransportManager};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::child;
use crate::table::Table;
use crate::usage::{Usage, cpu_time};

const HOSTS: [usize; 5] = [0, 1, 10, 100, 1_000];
/// The daemons that share the hosts.
const DAEMONS: u8 = 4;
/// Long enough for two keepalive intervals.
const IDLE: Duration = Duration::from_secs(12);
const BUSY: Duration = Duration::from_secs(5);
/// How many hosts are connected at the same time while more follow: each daemon accepts at most 20 clients that are
/// still connecting.
const CONNECTING: usize = 16;

/// The work of a child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    hosts: usize,
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

/// Measures, and prints a table.
pub(crate) fn report() -> Result<()> {
    let bed = Testbed::builder().hosts(DAEMONS).guests(0).start()?;
    let uris: Vec<String> = bed.hosts().iter().map(|host| host.uri()).collect();
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
        let cost: Cost = child::ask(child::HOSTS, &Work { hosts, uris: uris.clone() })?;
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
        "A process with one connection to each host. It is idle for {} s, then calls `hostname` on all hosts at once, \
         repeatedly, for {} s. The hosts are {DAEMONS} daemons:",
        IDLE.as_secs(),
        BUSY.as_secs()
    ));
    bed.down().context("the testbed was not removed")
}

/// Connects to the hosts, is idle for a while, then keeps all of them busy.
pub(crate) fn measure(Work { hosts, uris }: Work) -> Result<Cost> {
    let runtime = Runtime::new()?;
    let manager = TransportManager::new(TransportConfig::default());
    runtime.block_on(connect(&manager, hosts, &uris))?;

    let cpu = cpu_time();
    sleep(IDLE);
    let (idle, idle_cpu) = (Usage::now()?, (cpu_time() - cpu).div_f64(IDLE.as_secs_f64()));

    let (cpu, start, mut calls) = (cpu_time(), Instant::now(), 0);
    while hosts > 0 && start.elapsed() < BUSY {
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
async fn connect(manager: &TransportManager, hosts: usize, uris: &[String]) -> Result<(), TransportError> {
    for (n, uri) in (0..hosts).zip(uris.iter().cycle()) {
        manager.add_host(HostInfo::from_uri(format!("h{n}"), uri)).await?;
        if n % CONNECTING == CONNECTING - 1 || n == hosts - 1 {
            while manager.stats().await.iter().any(|(_, stats)| stats.idle_connections == 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Ok(())
}
