//! What the event loop costs the client: the transport's own on epoll, libvirt's default one, and none.
//!
//! All else is equal: the calls are made on the bare library, by as many threads, over as many connections.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use virt::connect::Connect;
use virt::event::{event_register_default_impl, event_run_default_impl};

use crate::usage::cpu_time;
use crate::{bare, child, median};

const CONNECTIONS: usize = 1_000;
const CALLS: usize = 80_000;
const THREADS: usize = 4;
const ROUNDS: usize = 3;

/// Which loop a child uses.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Loop {
    Ours,
    Default,
    /// And so no keepalive, which needs one.
    None,
}

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    event_loop: Loop,
    uris: Vec<String>,
}

/// What the calls took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    cpu: Duration,
    wall: Duration,
}

/// Measures, and prints a table.
pub(crate) fn report(uris: &[String]) -> Result<()> {
    let (mut ours, mut default, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (event_loop, costs) in
            [(Loop::Ours, &mut ours), (Loop::Default, &mut default), (Loop::None, &mut none)]
        {
            let work = Work { event_loop, uris: uris.to_vec() };
            costs.push(child::ask::<_, Cost>(child::EVENT_LOOP, &work)?);
        }
    }
    println!(
        "\nEvent loop: {CALLS} calls by {THREADS} threads over {CONNECTIONS} connections; median of {ROUNDS} rounds"
    );
    println!("{:<26}{:>10}{:>10}{:>16}", "", "CPU s", "calls/s", "of the default");
    let cpu = |costs: &[Cost]| median(costs.iter().map(|cost| cost.cpu.as_secs_f64()));
    for (name, costs) in
        [("epoll, keepalive", &ours), ("libvirt's own, keepalive", &default), ("none, no keepalive", &none)]
    {
        let rate = median(costs.iter().map(|cost| CALLS as f64 / cost.wall.as_secs_f64()));
        let share =
            median(costs.iter().zip(&default).map(|(it, default)| it.cpu.div_duration_f64(default.cpu)));
        println!("{name:<26}{:>10.2}{rate:>10.0}{:>14.0} %", cpu(costs), 100.0 * share);
    }
    println!("goal: epoll at most 25 % of the default");
    Ok(())
}

/// Opens the connections, then makes the calls; what opening costs is not counted.
pub(crate) fn measure(Work { event_loop, uris }: Work) -> Result<Cost> {
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
    let shares = in_parallel(|caller| {
        let mine = (caller..CONNECTIONS).step_by(THREADS);
        mine.zip(uris.iter().cycle()).map(|(_, uri)| open(uri)).collect::<Result<Vec<Connect>>>()
    })?;
    let (cpu, wall) = (cpu_time(), Instant::now());
    in_parallel(|caller| {
        let mine = shares.get(caller).into_iter().flatten().cycle();
        mine.take(CALLS / THREADS).try_for_each(|connect| Ok(connect.hostname().map(drop)?))
    })?;
    Ok(Cost { cpu: cpu_time() - cpu, wall: wall.elapsed() })
}

/// Does a job in each thread, given the thread's number.
fn in_parallel<T: Send>(job: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let job = &job;
        let threads: Vec<_> = (0..THREADS).map(|caller| scope.spawn(move || job(caller))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    })
}
