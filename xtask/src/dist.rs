//! `cargo xtask dist`: `atp` as a Debian package and as a tarball, and the Python package as a wheel, for machines without libvirt and
//! without Rust. With `--check` they are not optimised, and are installed and used in a Debian without libvirt.
//!
//! All have the native engine alone; the package and the tarball also the manual pages, the completions and the example settings. The
//! contents of the package are in `atp-cli/Cargo.toml`, as `cargo-deb` reads them; the tarball is unpacked from the package, so that
//! both are the same.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::{Result, cargo, python, setup};

/// The version of `cargo-deb` that makes the package. It is installed below `target`, once.
const CARGO_DEB: &str = "3.8.0";

/// What it needs: `dpkg-shlibdeps` finds the libraries that a program depends on.
const PACKAGES: &[&str] = &["dpkg-dev"];
/// What the check needs in addition.
const OF_CHECK: &[&str] = &["debootstrap", "dpkg-dev"];

/// Installs a package in a Debian of its own, uses it and removes it.
const CHECK: &str = include_str!("dist/check.sh");

/// The shells with completions, and the names of the files that they look for.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "atp"), ("zsh", "_atp"), ("fish", "atp.fish")];

/// Builds the files, and prints where they are. With `--check` as argument, checks the package and the wheel.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let is_check = match arguments {
        [] => false,
        [word] if word == "--check" => true,
        _ => return Err("`cargo xtask dist` knows one argument, --check".to_owned()),
    };
    setup::run_with(if is_check { OF_CHECK } else { PACKAGES })?;
    let profile = if is_check { "dev" } else { "release" };
    let mut command = if is_check { cargo::cargo_apart() } else { cargo::cargo() };
    command.args(["build", "--quiet", "--profile", profile, "--package", "atp-cli", "--no-default-features"]);
    output(command.args(["--features", "native,serve"]))?;
    let atp = if is_check { cargo::folder_apart().join("debug/atp") } else { cargo::released("atp")? };
    let folder = atp.with_file_name("dist");
    // Pages of commands that no longer exist would be packed too.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    generate(&atp, &folder)?;
    let package = package(&folder, profile)?;
    if is_check {
        // As it is tested otherwise, so that nothing is built twice.
        return check(&package, &python::wheel(false, None)?);
    }
    let tarball = tarball(&package)?;
    for file in [atp, package, tarball, python::wheel(true, None)?] {
        let size = fs::metadata(&file).map_err(|error| format!("{}: {error}", file.display()))?.len();
        println!("{} ({} KiB)", file.display(), size / 1024);
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what the program can generate: its manual pages and its completions.
fn generate(atp: &Path, folder: &Path) -> Result<()> {
    output(Command::new(atp).arg("man").arg(folder.join("man")))?;
    let completions = folder.join("completions");
    fs::create_dir_all(&completions).map_err(|error| format!("{}: {error}", completions.display()))?;
    for (shell, name) in COMPLETIONS {
        let file = completions.join(name);
        let script = output(Command::new(atp).args(["completions", shell]))?;
        fs::write(&file, script).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Makes the Debian package, and returns its path.
fn package(folder: &Path, profile: &str) -> Result<PathBuf> {
    let tools = cargo::root().join("target/tools");
    let cargo_deb = tools.join("bin/cargo-deb");
    let installed = Command::new(&cargo_deb).arg("--version").output();
    if !installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(CARGO_DEB)) {
        eprintln!("installing cargo-deb {CARGO_DEB} …");
        let mut command = cargo::cargo();
        command.args(["install", "--quiet", "--locked", "--version", CARGO_DEB, "cargo-deb", "--root"]);
        output(command.arg(&tools))?;
    }
    let mut command = Command::new(cargo_deb);
    command.current_dir(cargo::root()).args(["--package", "atp-cli", "--no-build", "--profile", profile]);
    if profile != "release" {
        // It warns of a package that is not optimised.
        command.arg("--quiet").env("CARGO_TARGET_DIR", cargo::folder_apart());
    }
    let path = output(command.arg("--output").arg(folder))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&path).trim()))
}

/// Packs what is in the package, without its `usr`, so that it can be unpacked in any folder.
fn tarball(package: &Path) -> Result<PathBuf> {
    let name = package.with_extension("");
    let contents = name.join("usr");
    let tarball = package.with_extension("tar.gz");
    output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&name))?;
    let mut command = Command::new("tar");
    command.args(["--create", "--gzip", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    command.arg("--file").arg(&tarball).arg("--directory").arg(contents).arg(".");
    output(&mut command)?;
    fs::remove_dir_all(&name).map_err(|error| format!("{}: {error}", name.display()))?;
    Ok(tarball)
}

/// Tries a package and a wheel on a simulated host.
fn check(package: &Path, wheel: &Path) -> Result<ExitCode> {
    cargo::build(&["atp-fleet"])?;
    let hosts = package.with_file_name("fleet.toml");
    let mut fleet = Command::new(cargo::binary("fleet")?);
    fleet.args(["up", "--hosts", "1", "--vms", "2", "--write"]).arg(&hosts).stderr(Stdio::piped());
    let mut fleet = fleet.spawn().map_err(|error| format!("cannot run the simulated fleet: {error}"))?;
    // It reports that it is up, after the file is written.
    let is_up = fleet.stderr.as_mut().is_some_and(|stderr| {
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line).is_ok_and(|length| length > 0)
    });
    let checked = if is_up {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", CHECK, "check.sh"]);
        command.arg(package).arg(wheel).arg(&hosts).arg(cargo::root().join("target/tools"));
        output(&mut command)
    } else {
        Err("the simulated fleet did not start".to_owned())
    };
    // It has ended by itself if this fails.
    let _ = fleet.kill();
    let _ = fleet.wait();
    print!("{}", String::from_utf8_lossy(&checked?));
    Ok(ExitCode::SUCCESS)
}

/// Runs a program that has to succeed, and returns its stdout. Its stderr is shown.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().display().to_string();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{name} failed ({})", output.status))
    }
}
