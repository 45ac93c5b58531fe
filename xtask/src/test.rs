//! `cargo xtask test`: runs every test with the native engine, those that depend on the engine with libvirt's library
//! too, and prints the number that passed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

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
    let engine = if arguments.is_empty() { None } else { env::var_os(ENGINE) };
    let engine = engine.unwrap_or_else(|| NATIVE.into());
    let mut first = cargo_test();
    first.args(arguments);
    let mut counts = vec![run_tests(&engine, first)];
    if arguments.is_empty() {
        counts.push(end_to_end().and_then(|tests| run_tests(OsStr::new(LIBRARY), tests)));
    }
    let engines = [engine, LIBRARY.into()];
    engines.into_iter().zip(counts).map(|(engine, tests)| Ok((engine, tests?))).collect()
}

fn cargo_test() -> Command {
    let mut command = cargo::cargo();
    // The tests of all crates run, even if those of the first fail.
    command.args(["test", "--workspace", "--no-fail-fast", "--features", FEATURES]);
    command
}

/// The end-to-end tests of both engines, by the program that `cargo test` has built. To select it by an argument of cargo
/// would change how dependencies are built, and build them again.
fn end_to_end() -> Result<Command> {
    let mut build = cargo_test();
    build.args(["--no-run", "--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let built = build.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    let messages = String::from_utf8_lossy(&built.stdout);
    let program = executable(&messages, "e2e").ok_or("cargo does not say where the end-to-end tests are")?;
    let mut command = Command::new(program);
    command.current_dir(cargo::root().join("tests/e2e"));
    command.args(OF_BOTH_ENGINES.map(|module| format!("{module}::")));
    Ok(command)
}

/// The path of a test in cargo's messages, each a JSON object without line feeds.
fn executable<'a>(messages: &'a str, target: &str) -> Option<&'a str> {
    let (kind, name) = ("\"kind\":[\"test\"]", format!("\"name\":\"{target}\""));
    let message = messages.lines().find(|line| line.contains(kind) && line.contains(&name))?;
    let (_, rest) = message.split_once("\"executable\":\"")?;
    rest.split('"').next()
}

/// Runs tests with an engine, shows what they print, and counts the results.
fn run_tests(engine: &OsStr, mut command: Command) -> Result<Tests> {
    command.env(ENGINE, engine).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run the tests: {error}"))?;
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
    let status = child.wait().map_err(|error| format!("waiting for the tests: {error}"))?;
    tests.ok = status.success();
    if !status.success() && tests.failed == 0 {
        eprintln!("error: failed ({status}) outside of the tests: see above");
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
    fn the_program_of_a_test_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"e2e"},"executable":"/lib"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"other"},"executable":"/other"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"e2e"},"executable":"/target/e2e-1","fresh":true}"#;
        assert_eq!(executable(messages, "e2e"), Some("/target/e2e-1"));
        assert_eq!(executable(messages, "none"), None);
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
