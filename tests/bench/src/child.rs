//! Measurements in a child process: this program again, which gets its work and returns its answer as JSON.

use std::env;
use std::io::{self, Read, Write as _};
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

/// Runs some work in a child and waits for its answer. The child reads its work from stdin: that of ten thousand hosts is too long for
/// an argument.
pub(crate) fn ask<W: Serialize, A: DeserializeOwned>(name: &str, work: &W) -> Result<A> {
    let mut command = Command::new(env::current_exe()?);
    let mut child = command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let start = Instant::now();
    // A child reads all of it before anything else. Its end is the end of the work.
    child.stdin.take().context("the child has no stdin")?.write_all(&serde_json::to_vec(work)?)?;
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
pub(crate) fn answer<W: DeserializeOwned, A: Serialize>(measure: impl FnOnce(W) -> Result<A>) -> Result<()> {
    let answer = measure(serde_json::from_reader(io::stdin().lock())?)?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
