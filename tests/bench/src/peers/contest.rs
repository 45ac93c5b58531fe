//! Contenders that do the same job in turns, and the cost of each compared with the first.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::processes;
use crate::median;
use crate::table::{Table, verdict};

/// One way to do a job.
pub(crate) struct Contender<'a> {
    name: &'static str,
    /// The goal of the first contender compared with this one.
    goal: Option<Goal>,
    job: Box<dyn Fn() -> Result<Round> + 'a>,
}

/// A goal of the first contender compared with another.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    /// The minimum multiple of the other's rate.
    pub(crate) rate: f64,
    /// The maximum share of the other's CPU time per operation.
    pub(crate) cpu: Option<f64>,
}

/// At least as good as the other.
pub(crate) const AHEAD: Goal = Goal { rate: 1.0, cpu: None };

/// The cost of doing the job once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) operations: usize,
    pub(crate) wall: Duration,
    /// The CPU time of all processes involved.
    pub(crate) cpu: Duration,
    /// The latencies of all operations, or of some.
    pub(crate) latencies: Vec<Duration>,
}

impl Round {
    /// A job that is one operation: processes that are started and waited for.
    pub(crate) fn of_processes(job: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (cpu, start) = (processes::cpu_of_the_ended()?, Instant::now());
        job()?;
        let wall = start.elapsed();
        let cpu = processes::cpu_of_the_ended()? - cpu;
        Ok(Round { operations: 1, wall, cpu, latencies: vec![wall] })
    }

    fn rate(&self) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }

    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() / self.operations as f64
    }
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: &'static str, goal: Option<Goal>, job: impl Fn() -> Result<Round> + 'a) -> Self {
        Contender { name, goal, job: Box::new(job) }
    }
}

/// The headings of the rows that [`compete`] adds; `each` names the operations.
pub(crate) fn table(each: &str) -> Table {
    Table::new([
        "by",
        &format!("{each}/s"),
        "p50, ms",
        "p99, ms",
        &format!("CPU, ms/{each}"),
        "MiB",
        "rate of the first",
        "its CPU",
        "goal",
        "",
    ])
}

/// Lets each contender do its job so many times, in turns, and adds a row for each to the table.
///
/// Memory is measured in one more execution before the others, which is not counted otherwise.
pub(crate) fn compete(table: &mut Table, rounds: usize, contenders: &[Contender<'_>]) -> Result<()> {
    let mut all: Vec<(u64, Vec<Round>)> = Vec::new();
    for contender in contenders {
        let (memory, done) = processes::peak_memory(|| (contender.job)());
        done.with_context(|| contender.name.to_owned())?;
        all.push((memory, Vec::new()));
    }
    for _ in 0..rounds {
        for (contender, (_, done)) in contenders.iter().zip(&mut all) {
            done.push((contender.job)().with_context(|| contender.name.to_owned())?);
        }
    }
    let Some((_, first)) = all.first() else { return Ok(()) };
    for (contender, (memory, rounds)) in contenders.iter().zip(&all) {
        let beside = |of: fn(&Round) -> f64| median(first.iter().zip(rounds).map(|(a, b)| of(a) / of(b)));
        let (rate, cpu) = (beside(Round::rate), beside(Round::cpu_each));
        let (goal, reached) = contender.goal.map_or_else(Default::default, |goal| goal.beside(rate, cpu));
        let mut latencies: Vec<Duration> =
            rounds.iter().flat_map(|round| round.latencies.iter().copied()).collect();
        latencies.sort();
        let is_first = std::ptr::eq(rounds, first);
        table.row([
            contender.name.to_owned(),
            figure(median(rounds.iter().map(Round::rate))),
            percentile(&latencies, 50),
            percentile(&latencies, 99),
            figure(median(rounds.iter().map(Round::cpu_each)) * 1e3),
            format!("{:.0}", *memory as f64 / 1024.0),
            if is_first { String::new() } else { format!("{} ×", figure(rate)) },
            if is_first { String::new() } else { format!("{:.0} %", cpu * 100.0) },
            goal,
            reached.to_owned(),
        ]);
    }
    Ok(())
}

impl Goal {
    /// The goal as text, and whether these multiples of the other's rate and CPU time reach it.
    fn beside(self, rate: f64, cpu: f64) -> (String, &'static str) {
        let mut words = format!("≥ {} ×", self.rate);
        let mut reached = rate >= self.rate;
        if let Some(most) = self.cpu {
            words += &format!(", CPU ≤ {:.0} %", most * 100.0);
            reached &= cpu <= most;
        }
        (words, verdict(reached))
    }
}

/// The latency percentile of the operations, milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> String {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or_else(String::new, |latency| figure(latency.as_secs_f64() * 1e3))
}

/// A number with three significant digits.
fn figure(number: f64) -> String {
    match number {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n if n >= 1.0 => format!("{n:.2}"),
        n => format!("{n:.3}"),
    }
}
