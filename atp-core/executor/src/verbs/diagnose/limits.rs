//! The daemon's limits, compared with ours. libvirt has them on its administration socket and in its configuration
//! file, both on the host itself only: limits of other hosts cannot be read.

use std::path::{Path, PathBuf};

use atp_api::Finding;

const CHECK: &str = "limits";

/// The socket of each daemon that may serve, and its file: the modular one, which clients prefer, and the monolithic one. Both files
/// may be there, whichever serves.
const DAEMONS: [(&str, &str); 2] = [
    ("run/libvirt/virtqemud-sock", "etc/libvirt/virtqemud.conf"),
    ("run/libvirt/libvirt-sock", "etc/libvirt/libvirtd.conf"),
];

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
    let uri = uri.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let file = settings_of_daemon(Path::new("/"), &uri)?;
        let text = std::fs::read_to_string(&file).ok()?;
        Some((file.display().to_string(), text))
    });
    match read.await {
        Ok(Some((file, text))) => judge(&file, &text, ours),
        Ok(None) | Err(_) => {
            let files = DAEMONS.map(|(_, file)| format!("/{file}")).join(", ");
            Finding::note(CHECK, format!("the settings of the daemon that serves cannot be read ({files})"))
        }
    }
}

/// The settings file of the daemon that a URI of this machine leads to, by the socket that its `socket` names or that clients
/// choose.
fn settings_of_daemon(root: &Path, uri: &str) -> Option<PathBuf> {
    let parameters = uri.split_once('?').map_or("", |(_, parameters)| parameters);
    let socket = parameters.split('&').find_map(|parameter| parameter.strip_prefix("socket="));
    let serves = |of: &str| match socket {
        Some(socket) => Path::new(socket).file_name() == Path::new(of).file_name(),
        None => root.join(of).exists(),
    };
    let (_, file) = DAEMONS.iter().find(|(of, _)| serves(of))?;
    Some(root.join(file))
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

    #[test]
    fn the_file_is_that_of_the_daemon_that_serves() {
        let root = tempfile::tempdir().unwrap();
        let file = |uri: &str| {
            let file = settings_of_daemon(root.path(), uri)?;
            Some(file.file_name()?.to_str()?.to_owned())
        };
        let system = "qemu:///system";
        assert_eq!(file(system), None);
        std::fs::create_dir_all(root.path().join("run/libvirt")).unwrap();
        // Files of both daemons are there as a rule: they say nothing.
        std::fs::write(root.path().join("run/libvirt/libvirt-sock"), "").unwrap();
        assert_eq!(file(system).as_deref(), Some("libvirtd.conf"));
        std::fs::write(root.path().join("run/libvirt/virtqemud-sock"), "").unwrap();
        assert_eq!(file(system).as_deref(), Some("virtqemud.conf"));
        let of = "qemu:///system?mode=direct&socket=/run/libvirt/libvirt-sock";
        assert_eq!(file(of).as_deref(), Some("libvirtd.conf"));
    }

    #[tokio::test]
    async fn limits_of_another_host_cannot_be_read() {
        assert_eq!(findings("qemu+tcp://h/system", 15).await.verdict, Verdict::Note);
    }
}
