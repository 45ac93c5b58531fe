//! Shared by several test files: the testbed's binary, and a search for what a bed left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The binary of this package.
pub(crate) fn testbed() -> Command {
    Command::new(env!("CARGO_BIN_EXE_testbed"))
}

/// Everything on this machine that belongs to a bed: its folder, processes that work in it or have it mounted, its
/// network namespaces and its links.
pub(crate) fn traces(number: u8, folder: &Path) -> Vec<String> {
    let mut traces = Vec::new();
    if folder.exists() {
        traces.push(folder.display().to_string());
    }
    let inside = format!("{}/", folder.display());
    for process in names("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        for file in ["cmdline", "mountinfo"] {
            let text = fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(&inside) {
                traces.push(format!("process {process}, by its {file}"));
            }
        }
    }
    let prefix = format!("atp{number}");
    for place in ["/run/netns", "/sys/class/net"] {
        for name in names(place) {
            let rest = name.strip_prefix(&prefix);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
                traces.push(format!("{place}/{name}"));
            }
        }
    }
    traces
}

fn names(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
