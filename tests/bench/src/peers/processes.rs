//! The resource usage of processes: of ended children, and of running ones.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::param::clock_ticks_per_second;

/// The pause between two measurements of the memory of running processes.
const LOOK: Duration = Duration::from_millis(2);

/// The CPU time, in user mode and in the kernel, of all processes that this one has waited for, and that they have
/// waited for.
pub(crate) fn cpu_of_the_ended() -> Result<Duration> {
    let mut usage = MaybeUninit::uninit();
    // SAFETY: getrusage(2) writes a complete `rusage` to the given address if it succeeds.
    let usage = unsafe {
        let result = libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        ensure!(result == 0, "getrusage: {}", std::io::Error::last_os_error());
        usage.assume_init()
    };
    let time = |of: libc::timeval| -> Result<Duration> {
        Ok(Duration::new(of.tv_sec.try_into()?, u32::try_from(of.tv_usec)? * 1_000))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

/// The CPU time of the current threads of a process.
pub(crate) fn cpu_of_the_running(process: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_processor = times.split_whitespace().next().context("an empty schedstat")?;
        total += Duration::from_nanos(on_processor.parse()?);
    }
    Ok(total)
}

/// The CPU time of a process and of its children, those that have ended included.
pub(crate) fn cpu_of_the_family(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in brackets, may have blanks.
    let (_, rest) = stat.rsplit_once(')').context("a stat without a name")?;
    let ticks = rest.split_whitespace().skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let mut total = Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second())?;
    for child in children(process) {
        // One that has ended meanwhile is among those of its parent the next time.
        total += cpu_of_the_running(child).unwrap_or_default();
    }
    Ok(total + cpu_of_the_running(process)?)
}

/// The peak of the total memory of the processes that a job started, KiB, and the job's result. Memory that several
/// of them share is counted for each.
pub(crate) fn peak_memory<T>(job: impl FnOnce() -> T) -> (u64, T) {
    let others: BTreeSet<u32> = children(std::process::id()).into_iter().collect();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                let started =
                    children(std::process::id()).into_iter().filter(|child| !others.contains(child));
                peak = peak.max(started.map(tree_memory).sum());
                thread::sleep(LOOK);
            }
            peak
        });
        let done = job();
        ended.store(true, Ordering::Relaxed);
        (look.join().unwrap_or(0), done)
    })
}

/// The memory of a process and its descendants, KiB. Zero for those that have ended.
fn tree_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own = resident.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
    own.unwrap_or(0) + children(process).into_iter().map(tree_memory).sum::<u64>()
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let of_thread =
        |thread: std::io::Result<fs::DirEntry>| fs::read_to_string(thread.ok()?.path().join("children")).ok();
    let lists: Vec<String> = threads.filter_map(of_thread).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}
