//! cargo, and the programs it built.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::Result;

/// The folder of the workspace: as cargo says when it runs this, since a program that was built elsewhere may be run here.
pub(crate) fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = Path::new(&manifest);
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The members of the workspace, as its manifest lists them.
pub(crate) fn members() -> Result<Vec<String>> {
    let manifest = root().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
    let list = text.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.ok_or_else(|| format!("{}: no list of members", manifest.display()))?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// The cargo that runs this program, in the folder of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The folder of [`cargo_apart`].
pub(crate) fn folder_apart() -> PathBuf {
    root().join("target/apart")
}

/// As [`cargo`], with a target folder of its own: for builds with other features than everybody's, which would replace the
/// binaries that tests run. It can be removed at any time.
pub(crate) fn cargo_apart() -> Command {
    let mut command = cargo();
    command.env("CARGO_TARGET_DIR", folder_apart());
    command
}

/// Builds the binaries of these packages in the dev profile, as this one: an optimised build takes longer than it
/// saves.
pub(crate) fn build(packages: &[&str]) -> Result<()> {
    build_with(&[], packages)
}

/// Builds the binaries of these packages in the release profile.
pub(crate) fn build_released(packages: &[&str]) -> Result<()> {
    build_with(&["--release"], packages)
}

fn build_with(arguments: &[&str], packages: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--bins"]).args(arguments);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo build` of {} failed", packages.join(", "))) }
}

/// A binary of the same profile, which is in the folder of this one.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().map_err(|error| format!("cannot find the path of xtask: {error}"))?;
    Ok(own.with_file_name(name))
}

/// A binary of the release profile, whose folder is beside that of this one.
pub(crate) fn released(name: &str) -> Result<PathBuf> {
    let own = binary(name)?;
    let profiles = own.parent().and_then(Path::parent);
    Ok(profiles.map_or_else(|| own.clone(), |profiles| profiles.join("release").join(name)))
}

/// Replaces this process with another program, which then gets all signals and the terminal.
pub(crate) fn exec(program: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let error = Command::new(program).args(arguments).exec();
    Err(format!("cannot run {}: {error}", program.display()))
}
