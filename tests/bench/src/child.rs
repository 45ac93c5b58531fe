//! Measurements in a process of their own: this program again, given its work as JSON, answering in JSON.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first argument of a child that measures event loops.
pub(crate) const EVENT_LOOP: &str = "child-event-loop";
/// The first argument of a child that measures what hosts cost.
pub(crate) const HOSTS: &str = "child-hosts";

/// Has a child do some work, and waits for its answer.
pub(crate) fn ask<W: Serialize, A: DeserializeOwned>(name: &str, work: &W) -> Result<A> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(name).arg(serde_json::to_string(work)?).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "{name} ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does the work a child was given, and answers.
pub(crate) fn answer<W: DeserializeOwned, A: Serialize>(
    measure: impl FnOnce(W) -> Result<A>,
    work: &str,
) -> Result<()> {
    let answer = measure(serde_json::from_str(work)?)?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
