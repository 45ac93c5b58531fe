//! Processes as the kernel shows them.

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
    /// Open sockets.
    pub sockets: usize,
    /// Threads for calls of the C library.
    pub call_threads: usize,
}

impl Resources {
    /// What is held when there is no manager.
    pub const NONE: Resources = Resources { sockets: 0, call_threads: 0 };

    /// What is held now.
    pub fn now() -> Self {
        let sockets = entries("/proc/self/fd")
            .filter(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")));
        let call_threads = entries("/proc/self/task")
            .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "atp-call"));
        Resources { sockets: sockets.count(), call_threads: call_threads.count() }
    }
}

fn entries(folder: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = match fs::read_dir(Path::new(folder)) {
        Ok(entries) => entries,
        Err(error) => panic!("cannot read {folder}: {error}"),
    };
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}
