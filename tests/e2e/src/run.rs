//! One process of `atp`: while it runs, and after it has ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use crate::outcome::Outcome;

/// The interval between checks whether a process has ended.
const POLL: Duration = Duration::from_millis(5);

/// Text that a user must never see: a panic, a backtrace, or a line that the C library printed itself.
const NEVER: [&str; 5] = ["panicked at", "internal error", "stack backtrace", "RUST_BACKTRACE", "libvirt: "];

/// A running `atp`. It is killed at its deadline and when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    started: Instant,
    deadline: Instant,
    stdout: Stream,
    stderr: Stream,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(mut command: Command, stdin: Option<Vec<u8>>, limit: Duration) -> Self {
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut running = Running::start_unread(command, limit, usize::MAX);
        if let (Some(mut pipe), Some(bytes)) = (running.child.stdin.take(), stdin) {
            // On a thread of its own, as the text may be more than a pipe holds. It is no error if `atp` does not
            // read all of it.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        running
    }

    /// Starts a command. Its stdout may be redirected, or closed after so many lines.
    #[track_caller]
    pub(crate) fn start_unread(mut command: Command, limit: Duration, lines: usize) -> Self {
        let started = Instant::now();
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        let stdout = Stream::read(child.stdout.take(), started, lines);
        let stderr = Stream::read(child.stderr.take(), started, usize::MAX);
        Running { child, started, deadline: started + limit, stdout, stderr }
    }

    /// Sends Ctrl-C.
    #[track_caller]
    pub fn interrupt(&self) {
        if let Err(error) = kill_process(Pid::from_child(&self.child), Signal::INT) {
            panic!("cannot send SIGINT: {error}");
        }
    }

    /// Kills it as `kill -9` does. Returns its output so far; there is no exit code.
    #[track_caller]
    pub fn kill(mut self) -> Run {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            panic!("cannot kill atp: {error}");
        }
        let took = self.started.elapsed();
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        Run { code: None, took, lines: stdout, stderr: text_of(&stderr) }
    }

    /// Waits until stdout has so many lines.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let came = self.stdout.lines.wait_for(left, |lines| lines.len() >= count);
        assert!(came, "there are not {count} lines on stdout\nstderr: {:?}", self.stderr.lines.lines.lock());
    }

    /// Waits for a line with this text on stderr.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait_for(&self.stderr, text);
    }

    /// Waits for a line with this text on stdout.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        self.wait_for(&self.stdout, text);
    }

    /// Waits for so many lines with this text on stdout.
    #[track_caller]
    pub fn wait_for_stdout_count(&self, text: &str, count: usize) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let are_there =
            |lines: &[Line]| lines.iter().filter(|line| line.text.contains(text)).count() >= count;
        let came = self.stdout.lines.wait_for(left, are_there);
        assert!(came, "{text:?} is not {count} times on stdout: {:?}", self.stdout.lines.lines.lock());
    }

    #[track_caller]
    fn wait_for(&self, stream: &Stream, text: &str) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let is_there = |lines: &[Line]| lines.iter().any(|line| line.text.contains(text));
        let came = stream.lines.wait_for(left, is_there);
        assert!(
            came,
            "{text:?} is missing\nstdout: {:?}\nstderr: {:?}",
            self.stdout.lines.lines.lock(),
            self.stderr.lines.lines.lock()
        );
    }

    /// Waits for its end.
    ///
    /// Fails the test if it does not end by the deadline, if a signal ended it, or if stderr contains text that a
    /// user must never see.
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < self.deadline => thread::sleep(POLL),
                Ok(None) => panic!(
                    "atp hangs: killed after {:?}\nstdout: {:?}\nstderr: {:?}",
                    self.started.elapsed(),
                    self.stdout.lines.lines.lock(),
                    self.stderr.lines.lines.lock()
                ),
                Err(error) => panic!("cannot wait for atp: {error}"),
            }
        };
        let took = self.started.elapsed();
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        let run = Run { code: status.code(), took, lines: stdout, stderr: text_of(&stderr) };
        assert!(run.code.is_some(), "atp was ended by a signal: {status}\n{run:#?}");
        // The log may have what the C library logged, after a time and a level.
        for line in run.stderr.lines().filter(|line| !line.contains(" libvirt: ")) {
            for never in NEVER {
                assert!(!line.contains(never), "{never:?} is on stderr:\n{}", run.stderr);
            }
        }
        run
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An `atp` that has exited.
#[derive(Debug)]
pub struct Run {
    code: Option<i32>,
    /// The time from its start to its end.
    pub took: Duration,
    lines: Vec<Line>,
    /// Its complete stderr.
    pub stderr: String,
}

/// A line of output with the time since the start of the process.
#[derive(Debug, Clone)]
struct Line {
    /// With its line feed.
    text: String,
    at: Duration,
}

impl Run {
    /// Asserts the exit code.
    #[track_caller]
    pub fn exits_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "exit code\nstdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr);
        self
    }

    /// Asserts that it took at least and at most so many seconds. The upper limit must leave room for a busy machine.
    #[track_caller]
    pub fn took_between(&self, least: u64, most: u64) -> &Self {
        let range = Duration::from_secs(least)..Duration::from_secs(most);
        assert!(range.contains(&self.took), "took {:?}, not {range:?}\n{self:#?}", self.took);
        self
    }

    /// The exit code; none if it was killed.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Its complete stdout.
    pub fn stdout(&self) -> String {
        text_of(&self.lines)
    }

    /// The time of each line of stdout, from the start.
    pub fn line_times(&self) -> Vec<Duration> {
        self.lines.iter().map(|line| line.at).collect()
    }

    /// The time from the last line on stdout to the end.
    #[track_caller]
    pub fn took_after_last_line(&self) -> Duration {
        match self.lines.last() {
            Some(line) => self.took.saturating_sub(line.at),
            None => panic!("nothing on stdout\nstderr:\n{}", self.stderr),
        }
    }

    /// The outcomes on stdout, written by `-o json` or `-o jsonl`, in their order.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let stdout = self.stdout();
        let parsed = if stdout.starts_with('[') {
            serde_json::from_str(&stdout)
        } else {
            self.lines.iter().map(|line| serde_json::from_str(&line.text)).collect()
        };
        parsed.unwrap_or_else(|error| panic!("{error} in:\n{stdout}\nstderr:\n{}", self.stderr))
    }

    /// The [`brief`](Outcome::brief) of each outcome, sorted by name.
    #[track_caller]
    pub fn brief(&self) -> Vec<String> {
        let mut brief: Vec<_> = self.outcomes().iter().map(Outcome::brief).collect();
        brief.sort();
        brief
    }

    /// The names of the outcomes, in their order.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        self.outcomes().iter().map(Outcome::name).collect()
    }

    /// The outcome with this name.
    #[track_caller]
    pub fn outcome(&self, name: &str) -> Outcome {
        let outcomes = self.outcomes();
        let mut named = outcomes.iter().filter(|outcome| outcome.name() == name);
        match (named.next(), named.next()) {
            (Some(only), None) => only.clone(),
            _ => panic!("not one outcome of {name}: {outcomes:#?}\nstderr:\n{}", self.stderr),
        }
    }
}

fn text_of(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// An output stream of the process. A thread reads it.
#[derive(Debug)]
struct Stream {
    lines: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    /// Reads so many lines and closes the pipe.
    fn read(pipe: Option<impl Read + Send + 'static>, started: Instant, lines: usize) -> Self {
        let most = lines;
        let lines = Arc::new(Lines::default());
        let reader = pipe.map(|pipe| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                // An error counts as the end: the text before it is still useful.
                for _ in 0..most {
                    let Ok(1..) = pipe.read_until(b'\n', &mut line) else { break };
                    lines.push(Line {
                        text: String::from_utf8_lossy(&line).into_owned(),
                        at: started.elapsed(),
                    });
                    line.clear();
                }
            })
        });
        Stream { lines, reader }
    }

    /// The complete output, once the process has ended.
    fn finish(&mut self) -> Vec<Line> {
        if let Some(reader) = self.reader.take() {
            // The thread has no code that panics.
            let _ = reader.join();
        }
        self.lines.lines.lock().clone()
    }
}

#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<Vec<Line>>,
    came: Condvar,
}

impl Lines {
    fn push(&self, line: Line) {
        self.lines.lock().push(line);
        self.came.notify_all();
    }

    /// Waits until the lines meet a condition. False if they do not in time.
    fn wait_for(&self, limit: Duration, wanted: impl Fn(&[Line]) -> bool) -> bool {
        !self.came.wait_while_for(&mut self.lines.lock(), |lines| !wanted(lines), limit).timed_out()
    }
}
