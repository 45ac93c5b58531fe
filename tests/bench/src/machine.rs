//! The machine the figures are from.

use std::{fs, thread};

use rustix::process::{getpriority_process, setpriority_process};

/// The priority measured at, where that is allowed: what else runs on the machine then disturbs less.
const NICE: i32 = -10;
/// Where the kernel groups processes by session, it is the group's priority that counts between sessions.
const GROUP: &str = "/proc/self/autogroup";

/// A raised priority of this process and its children, daemons and measurements alike. The session's group, which
/// outlives them, gets its own back in the end.
pub(crate) struct Priority {
    group: Option<String>,
}

impl Priority {
    /// Only root may raise it; others measure as they are, and [`report`] says so.
    pub(crate) fn raise() -> Self {
        let _forbidden = setpriority_process(None, NICE);
        let before = fs::read_to_string(GROUP).ok();
        let group = before.and_then(|text| Some(text.trim().rsplit_once("nice ")?.1.to_owned()));
        let raised = group.is_some() && fs::write(GROUP, NICE.to_string()).is_ok();
        Priority { group: group.filter(|_| raised) }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.group {
            // It was allowed before.
            let _forbidden = fs::write(GROUP, before);
        }
    }
}

/// Prints what the figures depend on: processors, kernel, libvirt, the priority, and what else the machine has to do.
pub(crate) fn report() {
    let processors = thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    let libvirt = virt::connect::Connect::version().map_or_else(|_| "?".to_owned(), version);
    let nice = getpriority_process(None).map_or_else(|_| "?".to_owned(), |nice| nice.to_string());
    println!(
        "{processors} processors, Linux {kernel}, libvirt {libvirt}; measured at nice {nice}, with a load of {load} at the start"
    );
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

/// From libvirt's single number.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}
