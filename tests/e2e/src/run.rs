//! One process of `atp`: while it runs, and when it has ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::outcome::Outcome;

/// How often a process is looked at that has not ended yet.
const POLL: Duration = Duration::from_millis(5);

/// What no user should ever see: a panic, a backtrace, or a line the C library printed by itself.
const NEVER: [&str; 5] = ["panicked at", "internal error", "stack backtrace", "RUST_BACKTRACE", "libvirt: "];

/// An `atp` that was started. It is killed at its deadline, and when this is dropped.
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
            // A thread of its own, as it may be more than a pipe holds. What `atp` does not read is no error.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        running
    }

    /// Starts a command whose stdout may lead elsewhere, or is closed after so many lines.
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

    /// Presses Ctrl-C.
    #[track_caller]
    pub fn interrupt(&self) {
        if let Err(error) = kill_process(Pid::from_child(&self.child), Signal::INT) {
            panic!("cannot send SIGINT: {error}");
        }
    }

    /// Kills it as `kill -9` does. Returns what it had said until then; it has no exit code.
    #[track_caller]
    pub fn kill(mut self) -> Run {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            panic!("cannot kill atp: {error}");
        }
        let took = self.started.elapsed();
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        Run { code: None, took, lines: stdout, stderr: text_of(&stderr) }
    }

    /// Waits until there are so many lines on stdout.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let came = self.stdout.lines.wait_for(left, |lines| lines.len() >= count);
        assert!(came, "{count} lines did not come\nstderr: {:?}", self.stderr.lines.get());
    }

    /// Waits until a line with this text is on stderr.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait_for(&self.stderr, text);
    }

    /// Waits until a line with this text is on stdout.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        self.wait_for(&self.stdout, text);
    }

    #[track_caller]
    fn wait_for(&self, stream: &Stream, text: &str) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let is_there = |lines: &[Line]| lines.iter().any(|line| line.text.contains(text));
        let came = stream.lines.wait_for(left, is_there);
        assert!(
            came,
            "{text:?} did not come\nstdout: {:?}\nstderr: {:?}",
            self.stdout.lines.get(),
            self.stderr.lines.get()
        );
    }

    /// Waits for its end.
    ///
    /// Fails the test if that does not come by the deadline, if it was ended by a signal, and if stderr shows what
    /// no user should ever see.
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < self.deadline => thread::sleep(POLL),
                Ok(None) => panic!(
                    "atp hangs: killed after {:?}\nstdout: {:?}\nstderr: {:?}",
                    self.started.elapsed(),
                    self.stdout.lines.get(),
                    self.stderr.lines.get()
                ),
                Err(error) => panic!("cannot wait for atp: {error}"),
            }
        };
        let took = self.started.elapsed();
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        let run = Run { code: status.code(), took, lines: stdout, stderr: text_of(&stderr) };
        assert!(run.code.is_some(), "atp was ended by a signal: {status}\n{run:#?}");
        for never in NEVER {
            assert!(!run.stderr.contains(never), "{never:?} is on stderr:\n{}", run.stderr);
        }
        run
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An `atp` that has ended by itself.
#[derive(Debug)]
pub struct Run {
    code: Option<i32>,
    /// From its start to its end.
    pub took: Duration,
    lines: Vec<Line>,
    /// Everything it wrote to stderr.
    pub stderr: String,
}

/// A line of output and when it came, counted from the start of the process.
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

    /// Asserts that it took at least and at most so many seconds. The most is to leave room for a busy machine.
    #[track_caller]
    pub fn took_between(&self, least: u64, most: u64) -> &Self {
        let range = Duration::from_secs(least)..Duration::from_secs(most);
        assert!(range.contains(&self.took), "took {:?}, not {range:?}\n{self:#?}", self.took);
        self
    }

    /// Everything it wrote to stdout.
    pub fn stdout(&self) -> String {
        text_of(&self.lines)
    }

    /// When each line of stdout came, counted from the start.
    pub fn line_times(&self) -> Vec<Duration> {
        self.lines.iter().map(|line| line.at).collect()
    }

    /// How long it went on after the last line it wrote to stdout.
    #[track_caller]
    pub fn took_after_last_line(&self) -> Duration {
        match self.lines.last() {
            Some(line) => self.took.saturating_sub(line.at),
            None => panic!("nothing on stdout\nstderr:\n{}", self.stderr),
        }
    }

    /// The outcomes on stdout, as `-o json` or `-o jsonl` wrote them, in their order.
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

    /// The [`brief`](Outcome::brief) of each outcome, by name.
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

    /// The outcome of that name.
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

/// An output of the process, read by a thread as it comes.
#[derive(Debug)]
struct Stream {
    lines: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    /// Reads so many lines, and closes the pipe after them.
    fn read(pipe: Option<impl Read + Send + 'static>, started: Instant, lines: usize) -> Self {
        let most = lines;
        let lines = Arc::new(Lines::default());
        let reader = pipe.map(|pipe| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                // An error is the end as well: what was read before it is worth showing.
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

    /// Everything, once the process has ended.
    fn finish(&mut self) -> Vec<Line> {
        if let Some(reader) = self.reader.take() {
            // It has nothing in it that panics.
            let _ = reader.join();
        }
        self.lines.get().clone()
    }
}

#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<Vec<Line>>,
    came: Condvar,
}

impl Lines {
    fn push(&self, line: Line) {
        self.get().push(line);
        self.came.notify_all();
    }

    fn get(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the lines are as wanted; false if they are not in time.
    fn wait_for(&self, limit: Duration, wanted: impl Fn(&[Line]) -> bool) -> bool {
        let waited = self.came.wait_timeout_while(self.get(), limit, |lines| !wanted(lines));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
