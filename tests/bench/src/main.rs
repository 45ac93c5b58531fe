//! The cost of ATP on real daemons, compared with the bare library and with other tools.
//!
//! ```sh
//! cargo run --release -p atp-bench                # all parts
//! cargo run --release -p atp-bench -- event-loop  # one of them, or several
//! ```
//!
//! Each part is a file with a `report` function. It starts the testbed it needs, which is also removed if the part
//! fails, measures, and prints tables in Markdown for `docs/benchmarks.md`. The sides of a comparison run in turns,
//! and the printed value is the median: on a small machine only ratios from one run are meaningful. Memory, threads
//! and CPU time are measured in child processes of this program, so that nothing else is counted.

mod bare;
mod child;
mod cluster;
mod event_loop;
mod hosts;
mod machine;
mod parallel;
mod peers;
mod protocol;
mod rate;
mod scale;
mod serve;
mod table;
mod usage;

use std::env;
use std::process::ExitCode;

use anyhow::Result;
use machine::Priority;
use rustix::process::{Resource, getrlimit, setrlimit};

/// A part with its name on the command line.
struct Part {
    name: &'static str,
    report: fn() -> Result<()>,
}

/// All parts, in the order of the page.
const PARTS: [Part; 8] = [
    Part { name: "rate", report: rate::report },
    Part { name: "event-loop", report: event_loop::report },
    Part { name: "hosts", report: hosts::report },
    Part { name: "scale", report: scale::report },
    Part { name: "serve", report: serve::report },
    Part { name: "cluster", report: cluster::report },
    Part { name: "protocol", report: protocol::report },
    Part { name: "peers", report: peers::report },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [child::EVENT_LOOP] => child::answer(event_loop::measure),
        [child::HOSTS] => child::answer(hosts::measure),
        [child::PEERS] => child::answer(peers::library::measure),
        names => return run(names),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parts with these names, or all of them. A part that fails does not stop the later ones.
fn run(names: &[&str]) -> ExitCode {
    let known = PARTS.map(|part| part.name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        eprintln!("error: there is no part `{unknown}`\n\nhint: the parts are {}", known.join(", "));
        return ExitCode::from(2);
    }
    if let Err(error) = allow_many_files() {
        eprintln!("warning: the limit on open files cannot be raised: {error:#}");
    }
    let _raised = Priority::raise();
    machine::report();
    let mut result = ExitCode::SUCCESS;
    for Part { name, report } in PARTS {
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        if let Err(error) = report() {
            println!("\n**`{name}` failed**: {error:#}");
            result = ExitCode::FAILURE;
        }
    }
    result
}

/// Raises the limit on open files, for this process, its children and the daemons.
fn allow_many_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// The median of some figures, or the upper of the two middle ones.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
