//! Measurements in a child process: this program again, which gets its work and returns its answer as JSON.

use std::env;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first argument of a child that measures event loops.
pub(crate) const EVENT_LOOP: &str = "child-event-loop";
/// The first argument of a child that measures the cost of hosts.
pub(crate) const HOSTS: &str = "child-hosts";
/// The first argument of a child that does the library's part of a comparison.
pub(crate) const PEERS: &str = "child-peers";

/// A time limit that no work reaches, even on a busy machine.
const HANGS: Duration = Duration::from_secs(180);

/// Runs some work in a child and waits for its answer.
pub(crate) fn ask<W: Serialize, A: DeserializeOwned>(name: &str, work: &W) -> Result<A> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(name).arg(serde_json::to_string(work)?).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let start = Instant::now();
    let mut stdout = child.stdout.take().context("the child has no stdout")?;
    // The answer is read while it is written, as a long one does not fit into the pipe.
    let reader = thread::spawn(move || {
        let mut answer = Vec::new();
        stdout.read_to_end(&mut answer).map(|_| answer)
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > HANGS {
            child.kill()?;
            child.wait()?;
            bail!("{name} still ran after {HANGS:?}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    ensure!(status.success(), "{name} ended with {status}");
    let answer = reader.join().map_err(|_| anyhow!("the reader of the child's answer panicked"))??;
    Ok(serde_json::from_slice(&answer)?)
}

/// Does the work of a child and prints the answer.
pub(crate) fn answer<W: DeserializeOwned, A: Serialize>(
    measure: impl FnOnce(W) -> Result<A>,
    work: &str,
) -> Result<()> {
    let answer = measure(serde_json::from_str(work)?)?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
