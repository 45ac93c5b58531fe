//! `virsh`, in the two ways it is used for many operations: a process for each call, started by `xargs -P`, and a
//! process for each host, fed by a pipe.

use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::contest::Round;
use super::processes::cpu_of_the_running;
use crate::parallel::in_parallel;

/// The prompt of virsh.
const PROMPT: &[u8] = b"virsh # ";

/// One call: a host's URI, and the words of the command.
pub(super) type Call = (String, Vec<String>);

/// Lets `xargs` start a virsh for each call, so many in parallel.
///
/// The latency of each is not visible from outside, so a few are started in the same way from here and measured.
pub(super) fn by_xargs(at_once: usize, calls: &[Call], timed: usize) -> Result<Round> {
    let mut round = Round::of_processes(|| {
        let lines = calls.iter().map(|(uri, words)| {
            let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            format!("--connect {uri} {}\n", words.join(" "))
        });
        xargs(at_once, &lines.collect::<String>(), &["virsh", "--quiet"])
    })?;
    round.operations = calls.len();
    if timed > 0 {
        round.latencies = each_timed(at_once, &calls[..timed.min(calls.len())])?;
    }
    Ok(round)
}

/// Lets `xargs` run a command for each line, so many in parallel.
pub(crate) fn xargs(at_once: usize, lines: &str, command: &[&str]) -> Result<()> {
    let mut child = Command::new("xargs")
        .args(["-P", &at_once.to_string(), "-L", "1"])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run xargs")?;
    // Dropping it when all is written closes the pipe.
    child.stdin.take().context("xargs has no stdin")?.write_all(lines.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "xargs ended with {status}");
    Ok(())
}

fn each_timed(at_once: usize, calls: &[Call]) -> Result<Vec<Duration>> {
    let run = |(uri, words): &Call| {
        let start = Instant::now();
        let mut command = Command::new("virsh");
        command.args(["--quiet", "--connect", uri]).args(words).stdout(Stdio::null());
        let status = command.status().context("cannot run virsh")?;
        ensure!(status.success(), "virsh ended with {status}");
        Ok(start.elapsed())
    };
    let shares = in_parallel(at_once, |caller| {
        calls.iter().skip(caller).step_by(at_once).map(run).collect::<Result<Vec<_>>>()
    })?;
    Ok(shares.concat())
}

/// Feeds the same lines to one virsh for each host. Starting them is not counted.
pub(super) fn by_pipe(uris: &[String], lines: &[String]) -> Result<Round> {
    let mut shells = uris.iter().map(|uri| Shell::open(uri)).collect::<Result<Vec<_>>>()?;
    let cpu = |shells: &[Shell]| -> Result<Duration> {
        shells.iter().map(|shell| cpu_of_the_running(shell.process.id())).sum()
    };
    let (before, start) = (cpu(&shells)?, Instant::now());
    let latencies = each(&mut shells, |shell| shell.feed(lines))?;
    let wall = start.elapsed();
    let cpu = cpu(&shells)? - before;
    shells.into_iter().try_for_each(Shell::close)?;
    Ok(Round { operations: uris.len() * lines.len(), wall, cpu, latencies: latencies.concat() })
}

/// Starts one virsh for each host, and exchanges commands and answers with all in parallel.
pub(super) fn converse(uris: &[String], talk: impl Fn(&mut Shell) -> Result<()> + Sync) -> Result<()> {
    let mut shells = uris.iter().map(|uri| Shell::open(uri)).collect::<Result<Vec<_>>>()?;
    each(&mut shells, talk)?;
    shells.into_iter().try_for_each(Shell::close)
}

/// A virsh that reads commands from a pipe.
pub(super) struct Shell {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open(uri: &str) -> Result<Self> {
        let mut process = Command::new("virsh")
            .args(["--quiet", "--connect", uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run virsh")?;
        let input = process.stdin.take().context("virsh has no stdin")?;
        let output = BufReader::new(process.stdout.take().context("virsh has no stdout")?);
        let mut shell = Shell { process, input, output };
        shell.answer()?;
        Ok(shell)
    }

    /// Sends a command and waits for the answer.
    pub(super) fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        let answer = self.answer()?;
        let (_echo, answer) = answer.split_once('\n').unwrap_or_default();
        Ok(answer.trim().to_owned())
    }

    /// Sends all commands at once, and returns for each the time between the previous answer and its own.
    fn feed(&mut self, lines: &[String]) -> Result<Vec<Duration>> {
        let Shell { input, output, .. } = self;
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        thread::scope(|scope| {
            let writer = scope.spawn(move || input.write_all(text.as_bytes()));
            let mut latencies = Vec::with_capacity(lines.len());
            let mut before = Instant::now();
            for _ in lines {
                read_answer(output)?;
                let now = Instant::now();
                latencies.push(now - before);
                before = now;
            }
            writer.join().map_err(|_| anyhow!("the writer panicked"))??;
            Ok(latencies)
        })
    }

    fn answer(&mut self) -> Result<String> {
        Ok(String::from_utf8(read_answer(&mut self.output)?)?)
    }

    fn close(mut self) -> Result<()> {
        drop(self.input);
        let status = self.process.wait()?;
        ensure!(status.success(), "virsh ended with {status}");
        Ok(())
    }
}

/// Its output until the next prompt: the echo of the command and the answer.
fn read_answer(output: &mut BufReader<ChildStdout>) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    while !answer.ends_with(PROMPT) {
        let mut byte = [0];
        if output.read(&mut byte)? == 0 {
            bail!("virsh ended after {:?}", String::from_utf8_lossy(&answer));
        }
        answer.extend(byte);
    }
    answer.truncate(answer.len() - PROMPT.len());
    Ok(answer)
}

/// Runs a function with each shell, in a thread each.
fn each<T: Send>(shells: &mut [Shell], job: impl Fn(&mut Shell) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let job = &job;
        let threads: Vec<_> = shells.iter_mut().map(|shell| scope.spawn(move || job(shell))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    })
}
