//! The daemon's limits, compared with ours. libvirt has them on its administration socket and in its configuration
//! file, both on the host itself only: limits of other hosts cannot be read.

use std::path::Path;

use atp_api::Finding;

const CHECK: &str = "limits";

/// The files that may hold them: of the modular daemon, and of the monolithic one.
const FILES: [&str; 2] = ["/etc/libvirt/virtqemud.conf", "/etc/libvirt/libvirtd.conf"];

/// libvirt's default of `max_workers`.
const WORKERS: usize = 20;

/// Compares the limits of a URI's daemon with `ours`, if it is this machine's own system daemon.
pub(super) async fn findings(uri: &str, ours: usize) -> Finding {
    if !(uri.contains(":///") && uri.contains("/system")) {
        let message = format!(
            "cannot be read from this machine; with libvirt's defaults there are {WORKERS} workers, of which ATP uses at most {ours}"
        );
        return Finding::note(CHECK, message);
    }
    let read =
        tokio::task::spawn_blocking(|| FILES.iter().find_map(|file| Some((*file, read(Path::new(file))?))));
    match read.await {
        Ok(Some((file, text))) => judge(file, &text, ours),
        Ok(None) | Err(_) => Finding::note(CHECK, format!("none of {} can be read", FILES.join(", "))),
    }
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn judge(file: &str, text: &str, ours: usize) -> Finding {
    let workers = value(text, "max_workers").unwrap_or(WORKERS);
    if workers > ours {
        return Finding::ok(CHECK, format!("{workers} workers, of which ATP uses at most {ours} ({file})"));
    }
    Finding::warning(
        CHECK,
        format!("{workers} workers ({file}), and ATP may use {ours}: hung VMs can block the whole daemon"),
        "set max_workers higher on the host, or transport.calls.max_per_host lower in the settings",
    )
}

/// The number of a setting that is not commented out.
fn value(text: &str, name: &str) -> Option<usize> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix('=')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_api::Verdict;

    #[test]
    fn commented_out_settings_are_ignored() {
        let text = "#max_workers = 20\nmax_clients = 5000\nmax_workers=10 \n";
        assert_eq!((value(text, "max_workers"), value(text, "max_client")), (Some(10), None));
        assert_eq!(judge("f", text, 15).verdict, Verdict::Warning);
        assert_eq!(judge("f", "#max_workers = 10", 15).verdict, Verdict::Ok);
    }

    #[tokio::test]
    async fn limits_of_another_host_cannot_be_read() {
        assert_eq!(findings("qemu+tcp://h/system", 15).await.verdict, Verdict::Note);
    }
}
