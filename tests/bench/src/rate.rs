//! How many calls a second: `execute_on_host` beside the bare library.
//!
//! Both have the same event loop and keepalive, as many connections, and as many callers: threads that make the
//! calls themselves on the bare side, tasks on the other.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use atp_transport::{HostInfo, TransportConfig, TransportError, TransportManager};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use virt::connect::Connect;

use crate::{bare, median};

/// Each side runs for so long, then it is the other's turn.
const TURN: Duration = Duration::from_millis(500);
const ROUNDS: usize = 21;
const HOST: &str = "host";

/// Calls in flight, connections, and the goal, where there is one.
const CASES: [(usize, usize, Option<f64>); 3] = [(1, 1, Some(85.0)), (4, 1, Some(95.0)), (4, 4, Some(95.0))];

/// Measures, and prints a table.
pub(crate) fn report(uris: &[String]) -> Result<()> {
    let uri = uris.first().ok_or_else(|| anyhow!("there is no daemon"))?;
    bare::use_our_event_loop()?;
    let runtime = Runtime::new()?;
    println!("\n`hostname` through execute_on_host, beside the bare library; median of {ROUNDS} rounds");
    println!("{:>9}{:>13}{:>14}{:>12}{:>9}{:>9}", "in flight", "connections", "bare calls/s", "ours", "ratio", "goal");
    for (in_flight, connections, goal) in CASES {
        let ours = runtime.block_on(connected(uri, connections))?;
        let bare = (0..connections).map(|_| bare::open(uri)).collect::<Result<Vec<_>>>()?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let bare = rate_of_bare(&bare, in_flight)?;
            rounds.push((bare, runtime.block_on(rate_of_ours(&ours, in_flight))?));
        }
        runtime.block_on(ours.close(TURN));
        let rate_of_bare = median(rounds.iter().map(|(bare, _)| *bare));
        let rate_of_ours = median(rounds.iter().map(|(_, ours)| *ours));
        let ratio = median(rounds.iter().map(|(bare, ours)| 100.0 * ours / bare));
        let goal = goal.map(|goal| format!("{goal:.0} %")).unwrap_or_default();
        println!(
            "{in_flight:>9}{connections:>13}{rate_of_bare:>14.0}{rate_of_ours:>12.0}{ratio:>7.0} %{goal:>9}"
        );
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
                manager.execute_on_host(HOST, |connection| async move { connection.hostname().await }).await?;
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
