//! `cargo xtask simulate`: runs by seed, in virtual time.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{Result, cargo};

const USAGE: &str = "usage: cargo xtask simulate [--seed S] [--seeds N]";

/// Simulates one seed and shows it, or so many seeds from it on.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut command = cargo::cargo();
    command.args([
        "test",
        "--quiet",
        "-p",
        "atp-simulation",
        "--test",
        "seeds",
        "promises",
        "--",
        "--nocapture",
    ]);
    for pair in arguments.chunks(2) {
        let [option, number] = pair else { return Err(USAGE.to_owned()) };
        let variable = match option.to_str() {
            Some("--seed") => "ATP_SIM_SEED",
            Some("--seeds") => "ATP_SIM_SEEDS",
            _ => return Err(USAGE.to_owned()),
        };
        command.env(variable, number);
    }
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
