//! `cargo xtask test`: runs every test and prints the number that passed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use crate::{Result, cargo, setup};

/// Features that are off by default, and have tests.
const FEATURES: &str = "atp-rpc/gssapi";

/// Sets up, runs `cargo test --workspace` and ends with the line `N passed, N failed`.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let counts = run_tests(arguments);
    let (passed, failed) = counts.as_ref().map_or((0, 0), |tests| (tests.passed, tests.failed));
    let ok = match &counts {
        Ok(tests) => tests.ok,
        Err(message) => {
            eprintln!("error: {message}");
            false
        }
    };
    println!("{passed} passed, {failed} failed");
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
    ok: bool,
}

fn run_tests(arguments: &[OsString]) -> Result<Tests> {
    setup::run_with(setup::OF_TESTS)?;
    let mut command = cargo::cargo();
    // The tests of all crates run, even if those of the first fail.
    command.args(["test", "--workspace", "--no-fail-fast", "--features", FEATURES]);
    command.args(arguments).stdout(Stdio::piped());
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
}
