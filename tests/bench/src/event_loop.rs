//! The client's cost of the event loop: the transport's own on epoll, libvirt's default one, and none.
//!
//! All else is equal: the calls are made on the bare library, by the same number of threads, over the same number of
//! connections.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atp_testbed::Testbed;
use serde::{Deserialize, Serialize};
use virt::connect::Connect;
use virt::event::{event_register_default_impl, event_run_default_impl};

use crate::parallel::in_parallel;
use crate::table::{Table, verdict};
use crate::usage::cpu_time;
use crate::{bare, child, median};

const CONNECTIONS: usize = 1_000;
const CALLS: usize = 80_000;
/// The daemons that share the connections: each accepts at most 20 clients that are still connecting, and has only a
/// few threads for their calls.
const DAEMONS: u8 = 4;
/// The threads that make the calls, and rounds.
const CASES: [(usize, usize); 2] = [(4, 3), (1, 1)];
/// The goal: the maximum share of the default loop's CPU time, percent.
const GOAL: f64 = 25.0;

/// The event loop that a child uses.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Loop {
    Ours,
    Default,
    /// This excludes keepalive, which needs an event loop.
    None,
}

/// The work of a child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    event_loop: Loop,
    threads: usize,
    uris: Vec<String>,
}

/// The cost of the calls.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    cpu: Duration,
    wall: Duration,
}

/// Measures, and prints a table.
pub(crate) fn report() -> Result<()> {
    let bed = Testbed::builder().hosts(DAEMONS).guests(0).start()?;
    let uris: Vec<String> = bed.hosts().iter().map(|host| host.uri()).collect();
    let mut table = Table::new([
        "threads",
        "rounds",
        "event loop",
        "client CPU, s",
        "calls/s",
        "CPU of the default's",
        "goal",
        "",
    ]);
    for (threads, rounds) in CASES {
        let [mut ours, mut default, mut none] = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (event_loop, costs) in
                [(Loop::Ours, &mut ours), (Loop::Default, &mut default), (Loop::None, &mut none)]
            {
                let work = Work { event_loop, threads, uris: uris.clone() };
                costs.push(child::ask::<_, Cost>(child::EVENT_LOOP, &work)?);
            }
        }
        for (name, costs, goal) in [
            ("the transport's, on epoll", &ours, Some(GOAL)),
            ("libvirt's default, on poll", &default, None),
            ("none, and no keepalive", &none, None),
        ] {
            let share = median(
                costs.iter().zip(&default).map(|(it, default)| 100.0 * it.cpu.div_duration_f64(default.cpu)),
            );
            table.row([
                threads.to_string(),
                rounds.to_string(),
                name.to_owned(),
                format!("{:.2}", median(costs.iter().map(|cost| cost.cpu.as_secs_f64()))),
                format!("{:.0}", median(costs.iter().map(|cost| CALLS as f64 / cost.wall.as_secs_f64()))),
                format!("{share:.0} %"),
                goal.map_or_else(String::new, |goal| format!("{goal} %")),
                goal.map_or("", |goal| verdict(share <= goal)).to_owned(),
            ]);
        }
    }
    table.print(&format!(
        "{CALLS} calls of `hostname` on {CONNECTIONS} connections to {DAEMONS} daemons; median of the rounds, in turns:"
    ));
    bed.down().context("the testbed was not removed")
}

/// Opens the connections, then makes the calls. The cost of opening is not counted.
pub(crate) fn measure(Work { event_loop, threads, uris }: Work) -> Result<Cost> {
    let open: fn(&str) -> Result<Connect> = match event_loop {
        Loop::Ours => {
            bare::use_our_event_loop()?;
            bare::open
        }
        Loop::Default => {
            event_register_default_impl()?;
            thread::spawn(|| while event_run_default_impl().is_ok() {});
            bare::open
        }
        Loop::None => |uri| Ok(Connect::open(Some(uri))?),
    };
    let shares = in_parallel(threads, |caller| {
        let mine = (0..CONNECTIONS).zip(uris.iter().cycle()).skip(caller).step_by(threads);
        mine.map(|(_, uri)| open(uri)).collect::<Result<Vec<Connect>>>()
    })?;
    let (cpu, start) = (cpu_time(), Instant::now());
    in_parallel(threads, |caller| {
        let mine = shares.get(caller).into_iter().flatten().cycle();
        mine.take(CALLS / threads).try_for_each(|connect| Ok(connect.hostname().map(drop)?))
    })?;
    let cost = Cost { cpu: cpu_time() - cpu, wall: start.elapsed() };
    // Closing a thousand connections is not measured: the daemons notice the end of the process.
    shares.into_iter().flatten().for_each(std::mem::forget);
    Ok(cost)
}
