//! How many calls a second: `execute_on_host` beside the bare library.
//!
//! Both have the same event loop and keepalive, as many connections, and as many callers: threads that make the
//! calls themselves on the bare side, tasks on the other.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use atp_transport::{HostInfo, TransportConfig, TransportError, TransportManager};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use virt::connect::Connect;

use crate::{bare, median};

/// Each side runs for so long, then it is the other's turn.
const TURN: Duration = Duration::from_millis(100);
const ROUNDS: usize = 101;
const HOST: &str = "host";

/// Calls in flight, connections, and the least share of the bare rate that is wanted, percent.
const CASES: [(usize, usize, u32); 3] = [(1, 1, 85), (4, 1, 95), (4, 4, 95)];

/// Measures, and prints a table.
pub(crate) fn report(uris: &[String]) -> Result<()> {
    let uri = uris.first().ok_or_else(|| anyhow!("there is no daemon"))?;
    bare::use_our_event_loop()?;
    let runtimes = [
        ("multi_thread", Runtime::new()?),
        ("current_thread", Builder::new_current_thread().enable_all().build()?),
    ];
    println!("\n`hostname` through execute_on_host, beside the bare library; median of {ROUNDS} rounds");
    println!(
        "{:>9}{:>13}{:>14}  {:<16}{:>12}{:>9}{:>9}",
        "in flight", "connections", "bare calls/s", "tokio runtime", "ours", "ratio", "goal"
    );
    for (in_flight, connections, goal) in CASES {
        let mut managers = Vec::new();
        for (_, runtime) in &runtimes {
            managers.push((runtime, runtime.block_on(connected(uri, connections))?, Vec::new()));
        }
        let connects = (0..connections).map(|_| bare::open(uri)).collect::<Result<Vec<_>>>()?;
        let mut bare = Vec::new();
        for _ in 0..ROUNDS {
            bare.push(rate_of_bare(&connects, in_flight)?);
            for (runtime, manager, ours) in &mut managers {
                ours.push(runtime.block_on(rate_of_ours(manager, in_flight))?);
            }
        }
        for ((name, runtime), (_, manager, ours)) in runtimes.iter().zip(&managers) {
            runtime.block_on(manager.close(TURN));
            let ratio = median(ours.iter().zip(&bare).map(|(ours, bare)| 100.0 * ours / bare));
            println!(
                "{in_flight:>9}{connections:>13}{:>14.0}  {name:<16}{:>12.0}{ratio:>7.0} %{goal:>7} %",
                median(bare.iter().copied()),
                median(ours.iter().copied())
            );
        }
    }
    Ok(())
}

/// A manager of one host, with all connections open.
async fn connected(uri: &str, connections: usize) -> Result<TransportManager, TransportError> {
    let mut config = TransportConfig::default();
    config.pool.min_connections_per_host = connections;
    config.pool.max_connections_per_host = connections;
    let manager = TransportManager::new(config);
    manager.add_host(HostInfo::from_uri(HOST, uri)).await?;
    let pool = manager.pool(HOST)?;
    while pool.stats().idle_connections < connections {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(manager)
}

async fn rate_of_ours(manager: &TransportManager, in_flight: usize) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let manager = manager.clone();
        tasks.spawn(async move {
            let mut calls = 0_u32;
            while start.elapsed() < TURN {
                manager
                    .execute_on_host(HOST, |connection| async move { connection.hostname().await })
                    .await?;
                calls += 1;
            }
            Ok::<_, TransportError>(calls)
        });
    }
    let mut calls = 0;
    while let Some(of_one) = tasks.join_next().await {
        calls += of_one??;
    }
    Ok(f64::from(calls) / start.elapsed().as_secs_f64())
}

fn rate_of_bare(connections: &[Connect], in_flight: usize) -> Result<f64> {
    let start = Instant::now();
    let calls = thread::scope(|scope| {
        let callers: Vec<_> = connections
            .iter()
            .cycle()
            .take(in_flight)
            .map(|connect| {
                scope.spawn(move || {
                    let mut calls = 0_u32;
                    while start.elapsed() < TURN {
                        connect.hostname()?;
                        calls += 1;
                    }
                    Ok::<_, virt::error::Error>(calls)
                })
            })
            .collect();
        let mut calls = 0;
        for caller in callers {
            calls += caller.join().map_err(|_| anyhow!("a caller panicked"))??;
        }
        Ok::<_, anyhow::Error>(calls)
    })?;
    Ok(f64::from(calls) / start.elapsed().as_secs_f64())
}
