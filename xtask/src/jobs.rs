//! Programs of tests that run side by side. Most tests wait, for time limits and for guests that boot, so several programs
//! together take little longer than one.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Result, cargo};

/// How many of those that need a testbed run at once, each with a testbed of its own, which takes about 1 GiB. One more of the
/// others runs beside them.
const BEDS: usize = 3;

/// A program to run.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) command: Command,
    /// Whether its tests share a testbed of 3 hosts with 2 guests each, as those of `tests/e2e` do.
    pub(crate) needs_bed: bool,
}

/// A program that ended.
pub(crate) struct Done {
    pub(crate) name: String,
    pub(crate) output: String,
    pub(crate) succeeded: bool,
    pub(crate) took: Duration,
}

/// Runs all jobs, and prints what each has printed when it ends.
pub(crate) fn run(jobs: Vec<Job>) -> Vec<Done> {
    let (on_beds, others): (VecDeque<_>, VecDeque<_>) = jobs.into_iter().partition(|job| job.needs_bed);
    let (on_beds, others, done) = (Mutex::new(on_beds), Mutex::new(others), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for waiting in [&others].into_iter().chain([&on_beds; BEDS]) {
            scope.spawn(|| {
                let mut bed = None;
                while let Some(job) = next(waiting) {
                    let ended = perform(job, &mut bed);
                    let Ok(mut done) = done.lock() else { return };
                    println!("== {} ({:.0?})", ended.name, ended.took);
                    // If stdout is closed, the result still counts.
                    let _ = std::io::stdout().write_all(ended.output.as_bytes());
                    done.push(ended);
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

fn next(waiting: &Mutex<VecDeque<Job>>) -> Option<Job> {
    waiting.lock().ok()?.pop_front()
}

fn perform(job: Job, bed: &mut Option<Bed>) -> Done {
    let Job { name, mut command, needs_bed } = job;
    let failed = |name, output| Done { name, output, succeeded: false, took: Duration::ZERO };
    if needs_bed {
        let number = match bed {
            Some(bed) => bed.number.clone(),
            None => match Bed::start() {
                Ok(started) => bed.insert(started).number.clone(),
                Err(message) => return failed(name, format!("error: {message}\n")),
            },
        };
        command.env("ATP_TESTBED", number);
    }
    let started = Instant::now();
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            // Tests may print any bytes, not only UTF-8.
            let [stdout, stderr] =
                [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let succeeded = output.status.success();
            if needs_bed && !succeeded {
                // A failed test may have left anything in its guests.
                *bed = None;
            }
            Done { name, output: stdout + &stderr, succeeded, took: started.elapsed() }
        }
        Err(error) => failed(name, format!("error: cannot run {command:?}: {error}\n")),
    }
}

/// A testbed. It ends with this process too, however that ends.
struct Bed {
    number: String,
    /// `testbed run`, which removes the bed when its command ends: that is when its stdin, a pipe of ours, is closed.
    keeper: Child,
}

impl Bed {
    fn start() -> Result<Self> {
        let mut command = Command::new(cargo::binary("testbed")?);
        command.args(["run", "--hosts", "3", "--guests", "2", "--", "sh", "-c"]);
        command.arg(r#"echo "$ATP_TESTBED"; exec cat"#).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().map_err(|error| format!("cannot run the testbed: {error}"))?;
        let mut number = String::new();
        let read = keeper.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut number));
        match read {
            Some(Ok(1..)) => Ok(Bed { number: number.trim().to_owned(), keeper }),
            _ => {
                let _ended = keeper.wait();
                Err("the testbed does not start: see above".to_owned())
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _removed = self.keeper.wait();
    }
}
