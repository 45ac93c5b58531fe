//! Child processes with a deadline: `virsh` hangs when a daemon hangs, and a test must not hang with it.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, LogTail, Result};

/// The longest pause between two checks whether a child has ended.
const WAIT_STEP: Duration = Duration::from_millis(5);

/// Runs a command and returns its stdout. A status other than 0 is an error.
///
/// A child that has not ended by the deadline is killed and reported as [`Error::Deadline`].
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<String> {
    run_with_input(command, "", deadline)
}

/// As [`run`], with text for stdin.
pub(crate) fn run_with_input(command: &mut Command, input: &str, deadline: Duration) -> Result<String> {
    let line = display(command);
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Program {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    // Inputs are a few lines, less than the capacity of a pipe, so this cannot block. A child that ended without
    // reading reports the reason by its status.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let Some(status) = wait(&mut child, deadline).map_err(Error::io(format!("waiting for `{line}`")))? else {
        // Killing it closes its pipes, so the reader threads end.
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::Deadline { what: format!("`{line}`"), after: deadline, log: LogTail::none() });
    };
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    if status.success() {
        Ok(stdout)
    } else {
        Err(Error::Command { command: line, status: status.to_string(), stderr })
    }
}

/// Waits for a child until the deadline. `None` if it still runs then.
pub(crate) fn wait(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut step = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= deadline {
            return Ok(None);
        }
        thread::sleep(step);
        step = (step * 2).min(WAIT_STEP);
    }
}

fn drain(stream: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    stream.map(|mut stream| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // The output before a read error is still useful in the message.
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn collect(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The command line as a person would type it, except for quotes.
fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
