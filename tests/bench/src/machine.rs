//! The machine on which the figures are measured.

use std::{fs, thread};

use rustix::process::{getpriority_process, setpriority_process};

/// The priority of the measurement, where it is permitted: other processes then disturb it less.
const NICE: i32 = -10;
/// Where the kernel groups processes by session, the group's priority decides between sessions.
const GROUP: &str = "/proc/self/autogroup";

/// A raised priority of this process and its children, both daemons and measurements. The group of the session
/// outlives them, so it gets its old priority back in the end.
pub(crate) struct Priority {
    group: Option<String>,
}

impl Priority {
    /// Only root may raise it. Other users measure without, and [`report`] prints the priority.
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
            // Raising it was permitted, so restoring it is too.
            let _forbidden = fs::write(GROUP, before);
        }
    }
}

/// Prints what the figures depend on: processors, kernel, libvirt, the priority, and the load of the machine.
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

/// Converts libvirt's single number.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}
