//! `cargo xtask`: all tasks of the project, on a machine that has only Rust.
//!
//! Uses the standard library and a lexer only, so that it is built in seconds.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

mod bench;
mod cargo;
mod cluster;
mod demo;
mod dist;
mod features;
mod jobs;
mod matrix;
mod python;
mod schemathesis;
mod setup;
mod simulate;
mod structure;
mod test;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo              run commands in the guests of two hosts, also while one hangs
  test [ARGS…]      run every test; ARGS go to `cargo test --workspace`
  matrix [ARGS…]    try every verb on each daemon, and each way to a daemon, and write docs/compatibility.md;
                    `--smoke` tries the most important verbs on the daemons of other Debian releases
  bench [PART…]     measure the cost of ATP: pool, scrape, rate, event-loop, hosts,
                    scale, serve, cluster, protocol, peers, python, or all
  testbed ARGS…     manage hosts and guests for tests: up, status, down, … (see `testbed --help`)
  fleet ARGS…       simulate thousands of hosts for tests: up, report, fault, heal (see `fleet --help`);
                    `fleet --release` optimises it, for measurements
  cluster up [--controllers N] [--hosts M] | down
                    several controllers over one PostgreSQL, on a simulated fleet (see docs/cluster.md)
  simulate [--seed S] [--seeds N]
                    simulated hosts and the real client in one process and in virtual time: a seed, or many
  schemathesis      try the HTTP API of `atp serve` with generated requests, on a simulated fleet
  structure         find files that import each other in a circle, list where the words of a message decide, and compare
                    docs/architecture.md with the crates and files
  features          compile each crate without its features and with each alone
  dist [--check]    make a Debian package and a tarball of `atp` with the native engine alone, and a wheel of atp_libvirt;
                    or check that such a package and a wheel can be installed and used
  python [ARGS…]    build the wheel of the Python package atp_libvirt, and test it on a simulated fleet; `--testbed`
                    tests it on real guests too, `--release` optimises it, `--no-test` only builds it, `--glibc 2.17`
                    makes it for older systems, other arguments go to pytest
  ci                run all checks that must pass before a change is merged
  setup             install the packages for building and testing; other commands do this too

Examples:
  cargo xtask testbed up --hosts 3 --guests 2
  cargo xtask test -p atp-testbed
  cargo xtask fleet up --hosts 1000 --vms 2 --faults hung=5% --write fleet.toml
  cargo xtask bench event-loop
";

/// The result of a step; the error is a message for people.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let result = match command.to_str() {
        Some("demo") => demo::run(),
        Some(demo::STEPS) => demo::steps(),
        Some("test") => test::run(&rest),
        Some("bench") => bench::run(&rest),
        Some("matrix") => matrix::run(&rest),
        Some("testbed") => testbed(&rest),
        Some("fleet") => fleet(&rest),
        Some("cluster") => cluster::run(&rest),
        Some("schemathesis") => schemathesis::run(),
        Some("simulate") => simulate::run(&rest),
        Some("structure") => structure::run(),
        Some("features") => features::run(),
        Some("dist") => dist::run(&rest),
        Some("python") => python::run(&rest),
        Some("ci") => cargo::exec(&cargo::root().join(".ci/run"), &rest),
        Some("setup") => setup::run_with(setup::OF_TESTS).map(|()| ExitCode::SUCCESS),
        Some("help" | "-h" | "--help") => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

fn testbed(arguments: &[OsString]) -> Result<ExitCode> {
    // `status`, `down` and the like need no packages that `up` has not already installed.
    if arguments.first().is_some_and(|command| command == "up" || command == "run") {
        let daemons = arguments.iter().any(|word| word.as_encoded_bytes().starts_with(b"--daemon"));
        setup::run_with(if daemons { setup::OF_TESTS } else { &[] })?;
    }
    cargo::build(&["atp-testbed"])?;
    cargo::exec(&cargo::binary("testbed")?, arguments)
}

/// Runs a simulated fleet. `--release` before its own arguments optimises it, for measurements.
fn fleet(arguments: &[OsString]) -> Result<ExitCode> {
    match arguments.split_first() {
        Some((first, rest)) if first == "--release" => {
            cargo::build_released(&["atp-fleet"])?;
            cargo::exec(&cargo::released("fleet")?, rest)
        }
        _ => {
            cargo::build(&["atp-fleet"])?;
            cargo::exec(&cargo::binary("fleet")?, arguments)
        }
    }
}
