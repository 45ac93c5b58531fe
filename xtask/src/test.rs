//! `cargo xtask test`: runs every test with the native engine, those that depend on the engine with libvirt's library
//! too, and prints the number that passed and the time of each program.

use std::cmp::Reverse;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::jobs::{self, Done, Job};
use crate::{Result, cargo, setup};

/// Features that are off by default, and have tests.
const FEATURES: &str = "atp-rpc/gssapi";

/// The variable that names the engine of the end-to-end tests.
const ENGINE: &str = "ATP_ENGINE";
const NATIVE: &str = "native";
const LIBRARY: &str = "library";

/// The modules of the end-to-end tests that run with both engines: those of connecting, of calls that hang or are lost,
/// of events and of streams, and the errors of daemons in other languages. In the others an engine only carries requests, which `engines` compares one by one.
const OF_BOTH_ENGINES: [&str; 13] = [
    "channels",
    "doctor",
    "events",
    "faults",
    "languages",
    "library",
    "load",
    "looks",
    "resilience",
    "sasl",
    "screenshot",
    "transport",
    "watching",
];

/// The program of the end-to-end tests.
const END_TO_END: &str = "e2e";

/// The program of the tests in a browser. Chromium gives up all that it loads when the machine has a new network interface, as the
/// end-to-end tests beside it make them: this one has a network of its own.
const IN_A_BROWSER: &str = "page";

/// Those of its modules that take longest, the longest first.
const LONGEST: [&str; 16] = [
    "migration",
    "lifecycle",
    "transport",
    "states",
    "languages",
    "engines",
    "files",
    "rpc",
    "faults",
    "channels",
    "events",
    "load",
    "serve",
    "exec_full",
    "scenarios",
    "exec",
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
    if arguments.is_empty() {
        return run_all();
    }
    let engine = env::var_os(ENGINE).unwrap_or_else(|| NATIVE.into());
    let mut command = cargo_test();
    command.args(arguments);
    let tests = run_tests(&engine, command)?;
    Ok(vec![(engine, tests)])
}

/// Builds all tests, and runs their programs side by side: the end-to-end tests by module.
fn run_all() -> Result<Vec<(OsString, Tests)>> {
    let mut build = cargo_test();
    build.args(["--no-run", "--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let built = build.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !built.status.success() {
        return Err("the tests do not compile".to_owned());
    }
    // Both are run by end-to-end tests.
    cargo::build(&["atp-cli"])?;
    cargo::build(&["atp-testbed"])?;
    let (mut jobs, mut end_to_end) = (Vec::new(), None);
    for program in programs(&String::from_utf8_lossy(&built.stdout)) {
        if program.target == END_TO_END {
            end_to_end = Some(program);
            continue;
        }
        let name = format!("{} of {}", program.target, program.folder.display());
        let command = program.command(NATIVE, &[]);
        let command = if program.target == IN_A_BROWSER { in_own_network(&command) } else { command };
        jobs.push(Job { name, command, needs_bed: false });
    }
    let end_to_end = end_to_end.ok_or("cargo does not say where the end-to-end tests are")?;
    let atp = cargo::binary("atp")?;
    for module in modules()? {
        let both = OF_BOTH_ENGINES.contains(&module.as_str());
        for engine in [NATIVE].into_iter().chain(both.then_some(LIBRARY)) {
            let mut command = end_to_end.command(engine, &[&format!("{module}::")]);
            command.env("ATP_BINARY", &atp);
            jobs.push(Job { name: format!("{END_TO_END} {module}, {engine}"), command, needs_bed: true });
        }
    }
    let mut examples = cargo_test();
    examples.arg("--doc");
    jobs.push(Job { name: "examples".to_owned(), command: examples, needs_bed: false });
    let mut ended = jobs::run(jobs);
    ended.sort_by_key(|job| Reverse(job.took));
    let mut counts =
        [NATIVE, LIBRARY].map(|engine| (OsString::from(engine), Tests { ok: true, ..Tests::default() }));
    println!("\nseconds, the longest first:");
    for job in &ended {
        println!("{:5}  {}", job.took.as_secs(), job.name);
        let [(_, native), (_, library)] = &mut counts;
        let tests = if job.name.ends_with(LIBRARY) { library } else { native };
        let failed = tests.failed;
        job.output.lines().for_each(|line| tests.add(line));
        tests.ok &= job.succeeded;
        if !job.succeeded && tests.failed == failed {
            eprintln!("error: {} failed outside of the tests: see above", job.name);
        }
    }
    let [(_, native), _] = &mut counts;
    let run = of_end_to_end(&ended);
    let there = end_to_end.count()?;
    if run != there {
        eprintln!(
            "error: {run} of {there} end-to-end tests were run: each has to be in a module of its own file"
        );
        native.ok = false;
    }
    Ok(counts.into())
}

/// How many end-to-end tests were run with the native engine.
fn of_end_to_end(ended: &[Done]) -> u64 {
    let mut tests = Tests::default();
    let is_native = |job: &&Done| job.name.starts_with(END_TO_END) && job.name.ends_with(NATIVE);
    for job in ended.iter().filter(is_native) {
        job.output.lines().for_each(|line| tests.add(line));
    }
    tests.passed + tests.failed
}

fn cargo_test() -> Command {
    let mut command = cargo::cargo();
    // The tests of all crates run, even if those of the first fail.
    command.args(["test", "--workspace", "--no-fail-fast", "--features", FEATURES]);
    command
}

/// The modules of the end-to-end tests, the longest first: a long one that begins last would be waited for alone.
fn modules() -> Result<Vec<String>> {
    let path = cargo::root().join("tests/e2e/tests/main.rs");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let names = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let mut modules: Vec<_> = names.filter(|name| *name != "support").map(str::to_owned).collect();
    modules.sort_by_key(|module| LONGEST.iter().position(|long| long == module).unwrap_or(LONGEST.len()));
    Ok(modules)
}

/// A program of tests.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    target: String,
    /// The folder of its crate, below that of the workspace.
    folder: PathBuf,
    executable: PathBuf,
}

impl Program {
    /// As cargo runs it.
    fn command(&self, engine: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        let folder = cargo::root().join(&self.folder);
        command.args(arguments).current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder).env(ENGINE, engine);
        command
    }

    /// How many tests it has.
    fn count(&self) -> Result<u64> {
        let listed = self.command(NATIVE, &["--list", "--format", "terse"]).output();
        let listed = listed.map_err(|error| format!("cannot run {}: {error}", self.executable.display()))?;
        let count =
            String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.ends_with(": test")).count();
        u64::try_from(count).map_err(|error| error.to_string())
    }
}

/// The same command, in a network that has the loopback device alone.
fn in_own_network(command: &Command) -> Command {
    let mut own = Command::new("unshare");
    own.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    own.arg(command.get_program()).args(command.get_args());
    own.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        own.current_dir(folder);
    }
    own
}

/// The programs of tests in cargo's messages, each a JSON object without line feeds.
fn programs(messages: &str) -> Vec<Program> {
    let root = cargo::root();
    let text = |message: &str, key: &str| {
        let (_, rest) = message.split_once(&format!("\"{key}\":\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    let program = |message: &str| {
        let (_, target) = message.split_once("\"target\":")?;
        let manifest = PathBuf::from(text(message, "manifest_path")?);
        let folder = manifest.parent()?;
        Some(Program {
            target: text(target, "name")?,
            folder: folder.strip_prefix(&root).unwrap_or(folder).to_owned(),
            executable: text(message, "executable")?.into(),
        })
    };
    // The target of a binary says that it has tests, as well: what the program is stands in its profile.
    let is_of_tests = |line: &&str| {
        let profile = line.split_once("\"profile\":{").and_then(|(_, rest)| rest.split_once('}'));
        profile.is_some_and(|(profile, _)| profile.contains("\"test\":true"))
    };
    messages.lines().filter(is_of_tests).filter_map(program).collect()
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
    fn the_programs_of_tests_are_found_in_cargos_messages() {
        let root = cargo::root();
        let message = |kind: &str, name: &str, is_test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"{}/a/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}","test":true}},"profile":{{"debuginfo":1,"test":{is_test}}},"executable":{executable}}}"#,
                root.display()
            )
        };
        let messages = [
            message("lib", "a", false, "null"),
            message("test", "e2e", true, "\"/target/e2e-1\""),
            message("bin", "atp", false, "\"/target/atp\""),
            message("lib", "a", true, "\"/target/a-2\""),
        ];
        let program = |target: &str, executable: &str| Program {
            target: target.to_owned(),
            folder: "a".into(),
            executable: executable.into(),
        };
        assert_eq!(
            programs(&messages.join("\n")),
            [program("e2e", "/target/e2e-1"), program("a", "/target/a-2")]
        );
    }

    #[test]
    fn each_module_is_chosen_by_its_name_alone() {
        let modules = modules().unwrap();
        for module in &modules {
            let chosen = modules.iter().filter(|other| other.ends_with(module.as_str())).count();
            assert_eq!(chosen, 1, "{module}");
        }
        assert!(LONGEST.iter().all(|long| modules.iter().any(|module| module == long)));
        assert_eq!(modules[0], LONGEST[0]);
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
