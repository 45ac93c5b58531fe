//! cargo, and what it built.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::Result;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The cargo that runs this, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the binaries of these packages as this one was built, in the dev profile: that is quicker than what an
/// optimised build would save.
pub(crate) fn build(packages: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--bins"]);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo build` of {} failed", packages.join(", "))) }
}

/// A binary that was built: it lies beside this one.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().map_err(|error| format!("cannot tell where xtask is: {error}"))?;
    Ok(own.with_file_name(name))
}

/// A binary that was built optimised: its folder lies beside that of this one.
pub(crate) fn released(name: &str) -> Result<PathBuf> {
    let own = binary(name)?;
    let profiles = own.parent().and_then(Path::parent);
    Ok(profiles.map_or_else(|| own.clone(), |profiles| profiles.join("release").join(name)))
}

/// Becomes another program, so that signals and the terminal are its own.
pub(crate) fn exec(program: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let error = Command::new(program).args(arguments).exec();
    Err(format!("cannot run {}: {error}", program.display()))
}
