//! Processes as the kernel shows them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Whether a process is stopped, as by SIGSTOP.
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may contain any characters.
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
}

/// Resources of the library in this process, which it releases when its work has ended. Only the test that has the
/// testbed uses any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Open TCP sockets. Other sockets may be the runtime's.
    pub sockets: usize,
    /// Threads for calls of the C library.
    pub call_threads: usize,
}

impl Resources {
    /// The resources in use without any manager.
    pub const NONE: Resources = Resources { sockets: 0, call_threads: 0 };

    /// The resources in use now.
    pub fn now() -> Self {
        let tcp = tcp_inodes();
        let sockets = entries("/proc/self/fd")
            .filter(|path| fs::read_link(path).is_ok_and(|to| tcp.contains(to.to_string_lossy().as_ref())));
        let call_threads = entries("/proc/self/task")
            .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "atp-call"));
        Resources { sockets: sockets.count(), call_threads: call_threads.count() }
    }
}

/// The targets of the links of TCP sockets in `/proc/self/fd`: `socket:[INODE]`.
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
