//! Measures `hostname` calls: `cargo run --release -p atp-rpc --example rate -- URI [LINKS [TASKS [CALLS [THREADS]]]]`.

use std::error::Error;
use std::time::{Duration, Instant};

use atp_rpc::{CallError, ConnectOptions, Connection};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let uri = arguments.first().map_or("", String::as_str);
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (links, tasks, calls) = (number(1, 1)?, number(2, 1)?, number(3, 20_000)?);
    let runtime = match number(4, 1)? {
        1 => Builder::new_current_thread().enable_all().build()?,
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    runtime.block_on(measure(uri, links, tasks, calls))
}

async fn measure(uri: &str, links: usize, tasks: usize, calls: usize) -> Result<(), Box<dyn Error>> {
    let mut connections = Vec::new();
    for _ in 0..links {
        connections.push(Connection::open(uri, &ConnectOptions::default()).await?);
    }
    let (cpu, start) = (cpu_time(), Instant::now());
    let callers: Vec<_> = (0..tasks)
        .map(|n| {
            let connection = connections[n % links].clone();
            tokio::spawn(async move {
                for _ in 0..calls / tasks {
                    connection.hostname().await?;
                }
                Ok::<_, CallError>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let (cpu, wall) = (cpu_time() - cpu, start.elapsed());
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (calls / tasks * tasks) as f64;
    println!("{:.1} us a call, {:.1} us of CPU, {:.0} calls/s", each(wall), each(cpu), 1e6 / each(wall));
    Ok(())
}

/// The CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
