//! `cargo xtask test`: runs every test with the native engine, those that depend on the engine with libvirt's library
//! too, and prints the number that passed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use crate::{Result, cargo, setup};

/// Features that are off by default, and have tests.
const FEATURES: &str = "atp-rpc/gssapi";

/// The variable that names the engine of the end-to-end tests.
const ENGINE: &str = "ATP_ENGINE";
const NATIVE: &str = "native";
const LIBRARY: &str = "library";

/// The modules of the end-to-end tests that run with both engines: those of connecting, of calls that hang or are lost,
/// of events and of streams. In the others an engine only carries requests, which `engines` compares one by one.
const OF_BOTH_ENGINES: [&str; 12] = [
    "channels",
    "doctor",
    "events",
    "faults",
    "library",
    "load",
    "looks",
    "resilience",
    "sasl",
    "screenshot",
    "transport",
    "watching",
];

/// Sets up, runs the tests and ends with the line `N passed, N failed`.
///
/// With arguments, which go to `cargo test --workspace`, there is one pass only, with the engine of the environment.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let (counts, ok) = match run_passes(arguments) {
        Ok(counts) => {
            let ok = counts.iter().all(|(_, tests)| tests.ok);
            (counts, ok)
        }
        Err(message) => {
            eprintln!("error: {message}");
            (Vec::new(), false)
        }
    };
    for (engine, tests) in &counts {
        println!("engine {}: {} passed, {} failed", engine.display(), tests.passed, tests.failed);
    }
    let passed: u64 = counts.iter().map(|(_, tests)| tests.passed).sum();
    let failed: u64 = counts.iter().map(|(_, tests)| tests.failed).sum();
    println!("{passed} passed, {failed} failed");
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
    ok: bool,
}

/// The results by engine.
fn run_passes(arguments: &[OsString]) -> Result<Vec<(OsString, Tests)>> {
    setup::run_with(setup::OF_TESTS)?;
    let mut counts = Vec::new();
    for (engine, arguments) in passes(arguments, env::var_os(ENGINE)) {
        let tests = run_tests(&engine, &arguments)?;
        counts.push((engine, tests));
    }
    Ok(counts)
}

/// The engine of each run of cargo, and what is added to `cargo test --workspace`.
fn passes(arguments: &[OsString], engine: Option<OsString>) -> Vec<(OsString, Vec<OsString>)> {
    if !arguments.is_empty() {
        return vec![(engine.unwrap_or_else(|| NATIVE.into()), arguments.to_vec())];
    }
    // All packages are selected by both, so that they are compiled with the same features, and once.
    let modules = OF_BOTH_ENGINES.iter().map(|module| format!("{module}::").into());
    let again = ["--test", "e2e", "--"].into_iter().map(OsString::from).chain(modules);
    vec![(NATIVE.into(), Vec::new()), (LIBRARY.into(), again.collect())]
}

fn run_tests(engine: &OsStr, arguments: &[OsString]) -> Result<Tests> {
    let mut command = cargo::cargo();
    // The tests of all crates run, even if those of the first fail.
    command.args(["test", "--workspace", "--no-fail-fast", "--features", FEATURES]);
    command.args(arguments).env(ENGINE, engine).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut tests = Tests::default();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        // Tests may print any bytes, not only UTF-8.
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            // If stdout is closed, the result still counts.
            let _ = std::io::stdout().write_all(&line);
            tests.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    let status = child.wait().map_err(|error| format!("waiting for cargo: {error}"))?;
    tests.ok = status.success();
    if !status.success() && tests.failed == 0 {
        eprintln!("error: `cargo test` failed ({status}) outside of the tests: see above");
    }
    Ok(tests)
}

impl Tests {
    /// Counts a line like `test result: ok. 3 passed; 0 failed; 0 ignored; …`. Other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up_and_other_lines_do_not_count() {
        let mut tests = Tests::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test counts ... 7 passed; 1 failed",
            "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 1.20s\n",
        ] {
            tests.add(line);
        }
        assert_eq!(tests, Tests { passed: 15, failed: 2, ok: false });
    }

    #[test]
    fn without_arguments_both_engines_run_and_with_them_the_chosen_one() {
        let all = passes(&[], Some("native".into()));
        assert_eq!(all.iter().map(|(engine, _)| engine.as_os_str()).collect::<Vec<_>>(), [NATIVE, LIBRARY]);
        assert!(all[0].1.is_empty(), "{all:?}");
        assert_eq!(all[1].1[..4], ["--test", "e2e", "--", "channels::"].map(OsString::from));

        let arguments = ["-p", "atp-testbed"].map(OsString::from);
        assert_eq!(passes(&arguments, None), [(NATIVE.into(), arguments.to_vec())]);
        assert_eq!(passes(&arguments, Some("library".into())), [(LIBRARY.into(), arguments.to_vec())]);
    }

    #[test]
    fn the_modules_that_run_with_both_engines_exist() {
        // A filter that matches no test would run none, and report no failure.
        let tests = cargo::root().join("tests/e2e/tests");
        for module in OF_BOTH_ENGINES {
            assert!(tests.join(module).with_extension("rs").is_file(), "{module}");
        }
    }
}
