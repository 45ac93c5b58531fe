//! `cargo xtask python`: the Python package `atp_libvirt` as a wheel, and its tests in an environment that has nothing but the wheel
//! and what the tests use.
//!
//! Without arguments the wheel is not optimised and is tested on a simulated fleet: types, docstrings, the guide, and all else.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::{Result, cargo, setup};

/// What environments are made with.
const PACKAGES: &[&str] = &["python3-venv"];

/// The own options: the wheel is optimised; it is not tested; it is tested on real guests too. `--glibc VERSION` is one as well.
const OPTIONS: [&str; 3] = ["--release", "--no-test", "--testbed"];

/// What types are checked of.
const SOURCES: [&str; 3] = ["python/atp_libvirt", "tests", "examples"];

/// Builds the wheel and tests it. Arguments other than the own options go to pytest.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut rest = arguments.to_vec();
    let mut glibc = None;
    if let Some(at) = rest.iter().position(|word| word == "--glibc") {
        let given =
            rest.drain(at..rest.len().min(at + 2)).nth(1).and_then(|version| version.into_string().ok());
        glibc = Some(given.ok_or("--glibc needs a version, such as 2.17")?);
    }
    let (options, for_pytest): (Vec<&OsString>, Vec<&OsString>) =
        rest.iter().partition(|word| OPTIONS.iter().any(|option| *word == option));
    let has = |option: &str| options.iter().any(|word| *word == option);
    let wheel = wheel(has("--release"), glibc.as_deref())?;
    println!("{}", wheel.display());
    if has("--no-test") {
        return Ok(ExitCode::SUCCESS);
    }

    let (package, folder) = (package(), folder());
    let tools = folder.join("tools");
    // With the features that all other tests have: with others it would be built once more, and replace theirs.
    cargo::build(&["atp-fleet", "atp-cli"])?;
    let tests = folder.join("tests");
    empty(&tests)?;
    environment(&tests)?;
    pip(&tests, &package.join("tests/requirements.txt"), Some(&wheel))?;
    check(&package, &tools, &tests, has("--testbed"), &for_pytest)
}

/// Builds the wheel, for the glibc of this machine or an older one. Returns its path.
pub(crate) fn wheel(is_released: bool, glibc: Option<&str>) -> Result<PathBuf> {
    setup::run_with(PACKAGES)?;
    let package = package();
    let tools = folder().join("tools");
    if !tools.join("bin/python").exists() {
        environment(&tools)?;
    }
    // Quick if everything is there.
    pip(&tools, &package.join("requirements.txt"), None)?;

    // What a new verb or wire type changes.
    succeed(Command::new(tools.join("bin/python")).arg(package.join("tools/generate.py")))?;
    let wheels = folder().join("wheels");
    empty(&wheels)?;
    let mut maturin = Command::new(tools.join("bin/maturin"));
    maturin.current_dir(cargo::root()).args(["build", "--quiet", "--profile"]);
    maturin.arg(if is_released { "release" } else { "dev" });
    maturin.arg("--manifest-path").arg(package.join("Cargo.toml")).arg("--out").arg(&wheels);
    if let Some(version) = glibc {
        // zig links against the symbols of any glibc. It is a package of Python, which maturin finds by the interpreter.
        pip(&tools, &package.join("requirements-glibc.txt"), None)?;
        let path = env::var_os("PATH").unwrap_or_default();
        let paths = [tools.join("bin")].into_iter().chain(env::split_paths(&path));
        maturin.env("PATH", env::join_paths(paths).map_err(|error| error.to_string())?);
        maturin.arg("--zig").arg("--target").arg(format!("{}-unknown-linux-gnu", env::consts::ARCH));
        maturin.arg("--compatibility").arg(format!("manylinux_{}", version.replace('.', "_")));
    }
    succeed(&mut maturin)?;
    only_file(&wheels)
}

/// Measures the optimised package beside libvirt-python, on simulated hosts and on real daemons.
pub(crate) fn bench() -> Result<ExitCode> {
    let wheel = wheel(true, None)?;
    cargo::build_released(&["atp-fleet"])?;
    cargo::build(&["atp-testbed"])?;
    let own = folder().join("bench");
    environment(&own)?;
    let package = package();
    let python = own.join("bin/python");
    // The version is that of the wheel before.
    succeed(Command::new(&python).args(["-m", "pip", "uninstall", "--quiet", "--yes", "atp_libvirt"]))?;
    pip(&own, &package.join("tests/requirements.txt"), Some(&wheel))?;
    let mut peers = Command::new(&python);
    peers.arg(package.join("benches/peers.py")).arg(cargo::released("fleet")?).arg(cargo::binary("testbed")?);
    succeed(&mut peers)?;
    Ok(ExitCode::SUCCESS)
}

fn package() -> PathBuf {
    cargo::root().join("atp-core/python")
}

fn folder() -> PathBuf {
    cargo::root().join("target/python")
}

/// Runs every check of the installed package.
fn check(
    package: &Path,
    tools: &Path,
    tests: &Path,
    is_on_testbed: bool,
    for_pytest: &[&OsString],
) -> Result<ExitCode> {
    let python = tests.join("bin/python");
    let mut mypy = Command::new(tools.join("bin/mypy"));
    mypy.current_dir(package).arg("--python-executable").arg(&python).args(SOURCES);
    succeed(&mut mypy)?;
    let mut pyright = Command::new(tools.join("bin/pyright"));
    pyright.current_dir(package).arg("--pythonpath").arg(&python).args(SOURCES);
    succeed(&mut pyright)?;
    // The stub of the extension module is what the module is.
    let mut stubtest = Command::new(tools.join("bin/stubtest"));
    stubtest.env("PYTHONPATH", only_file(&tests.join("lib"))?.join("site-packages"));
    succeed(stubtest.args(["--concise", "atp_libvirt._native"]))?;
    let mut pytest = if is_on_testbed {
        cargo::build(&["atp-testbed"])?;
        let testbed = cargo::binary("testbed")?;
        let mut command = Command::new(&testbed);
        command.args(["run", "--hosts", "1", "--guests", "4", "--qcow2", "--"]).arg(&python);
        command.env("ATP_TEST_TESTBED", testbed);
        command
    } else {
        Command::new(&python)
    };
    pytest.current_dir(package).args(["-m", "pytest", "-q", "tests", "--doctest-modules"]);
    pytest.args(["--pyargs", "atp_libvirt"]).args(for_pytest);
    pytest.env("ATP_TEST_FLEET", cargo::binary("fleet")?).env("ATP_TEST_ATP", cargo::binary("atp")?);
    succeed(&mut pytest)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes an environment with Debian's interpreter: one of another origin may lack what its modules are linked to.
fn environment(folder: &Path) -> Result<()> {
    succeed(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(folder))
}

/// Installs what a file of requirements lists, and a wheel.
fn pip(environment: &Path, requirements: &Path, wheel: Option<&Path>) -> Result<()> {
    // Its program `pip` names the folder that the environment was made in.
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    succeed(command.arg(requirements).args(wheel))
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = fs::read_dir(folder).map_err(unreadable)?;
    let file = files.next().ok_or_else(|| format!("{}: there is nothing", folder.display()))?;
    file.map(|file| file.path()).map_err(unreadable)
}

/// Runs a program that has to succeed; its output is shown. Settings of the surroundings' Python do not apply.
fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    for (variable, _) in env::vars_os() {
        let is_given = command.get_envs().any(|(given, _)| given == variable);
        let is_of_python = variable.as_encoded_bytes().starts_with(b"PYTHON") || variable == "VIRTUAL_ENV";
        if is_of_python && !is_given {
            command.env_remove(variable);
        }
    }
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot run {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed ({status})")) }
}
