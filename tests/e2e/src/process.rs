//! Processes as the kernel shows them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Whether a process is stopped, as by SIGSTOP.
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
}

/// What the library holds in this process, and lets go of when its work has ended. Nobody but the test that has the
/// testbed has any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Open TCP sockets. Others may be the runtime's own.
    pub sockets: usize,
    /// Threads for calls of the C library.
    pub call_threads: usize,
}

impl Resources {
    /// What is held when there is no manager.
    pub const NONE: Resources = Resources { sockets: 0, call_threads: 0 };

    /// What is held now.
    pub fn now() -> Self {
        let tcp = tcp_inodes();
        let sockets = entries("/proc/self/fd")
            .filter(|path| fs::read_link(path).is_ok_and(|to| tcp.contains(to.to_string_lossy().as_ref())));
        let call_threads = entries("/proc/self/task")
            .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "atp-call"));
        Resources { sockets: sockets.count(), call_threads: call_threads.count() }
    }
}

/// What the links of TCP sockets in `/proc/self/fd` lead to: `socket:[INODE]`.
fn tcp_inodes() -> HashSet<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let lines = tables.iter().flat_map(|table| {
        let text = fs::read_to_string(table).unwrap_or_default();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(9)?))).collect()
}

fn entries(folder: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = match fs::read_dir(Path::new(folder)) {
        Ok(entries) => entries,
        Err(error) => panic!("cannot read {folder}: {error}"),
    };
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}
