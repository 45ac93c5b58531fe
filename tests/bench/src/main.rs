//! What the transport costs on real daemons, beside the bare library.
//!
//! ```sh
//! cargo run --release -p atp-bench                # all parts
//! cargo run --release -p atp-bench -- event-loop  # one of: rate, event-loop, hosts
//! ```
//!
//! Starts a testbed without guests and removes it. What is compared runs in turns, and what is printed is the
//! median: on a small machine only ratios from one run mean anything. Memory, threads and CPU are measured in
//! child processes of this program, so that nothing else is counted with them.

mod bare;
mod child;
mod event_loop;
mod hosts;
mod rate;
mod usage;

use std::env;

use anyhow::{Result, bail};
use atp_testbed::Testbed;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Daemons that share the load where there are to be many hosts.
const DAEMONS: u8 = 4;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [child::EVENT_LOOP, work] => child::answer(event_loop::measure, work),
        [child::HOSTS, work] => child::answer(hosts::measure, work),
        [] => parts(&["rate", "event-loop", "hosts"]),
        [part] => parts(&[part]),
        _ => bail!("there is one argument at most: rate, event-loop or hosts"),
    }
}

fn parts(parts: &[&str]) -> Result<()> {
    allow_many_files()?;
    let bed = Testbed::builder().hosts(DAEMONS).guests(0).start()?;
    let uris: Vec<String> = bed.hosts().iter().map(|host| host.uri()).collect();
    for part in parts {
        match *part {
            "rate" => rate::report(&uris)?,
            "event-loop" => event_loop::report(&uris)?,
            "hosts" => hosts::report(&uris)?,
            other => bail!("there is no part `{other}`: it is rate, event-loop or hosts"),
        }
    }
    Ok(bed.down()?)
}

/// Raises the limit on open files, for this process, its children and the daemons.
fn allow_many_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// The middle one of some figures, or the upper one of the two in the middle.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
