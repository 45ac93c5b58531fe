//! What ssh says when it fails, and the programs that it runs on the far side: the kind of each failure, and what to do.
//!
//! OpenSSH speaks English in every locale. The words of the far side's shell may be in another language, and are then
//! reported as they are.

use atp_api::Hint;

use crate::error::ErrorKind;

/// A failure by its words.
struct Fault {
    /// All of these are in what was said.
    words: &'static [&'static str],
    kind: ErrorKind,
    hint: &'static str,
}

const fn fault(words: &'static [&'static str], kind: ErrorKind, hint: &'static str) -> Fault {
    Fault { words, kind, hint }
}

const JUMP: &str = "the jump host was reached, and does not reach the host behind it: check that host, its port, and AllowTcpForwarding on the jump host";
const UNREACHABLE: &str =
    "check that the host is up, the route to it, the firewalls, and the port of its sshd";
const NO_DAEMON: &str = "ssh works; check on that host that the daemon runs (systemctl status libvirtd, or virtqemud), and the path of its socket (`socket=` in the URI)";
const NO_PROGRAM: &str = "install libvirt's helper on that host (virt-ssh-helper, on Debian in package libvirt-daemon), or netcat with -U (package netcat-openbsd)";
const NOT_EXECUTABLE: &str = "that program on that host may not be executed by this user: correct its permissions, or use `proxy=netcat`";
const NO_FOLDER: &str =
    "the user on that host has no folder that can be written: correct its HOME, or XDG_RUNTIME_DIR";

/// The first that fits counts: ssh's own failures come before those of the far side.
const FAULTS: &[Fault] = &[
    fault(
        &["REMOTE HOST IDENTIFICATION HAS CHANGED"],
        ErrorKind::AuthFailed,
        "the host's key is not the one in known_hosts: if the host was installed anew, remove the old key (ssh-keygen -R HOST) and connect once by hand with ssh; otherwise another machine may answer for it",
    ),
    fault(
        &["Host key verification failed"],
        ErrorKind::AuthFailed,
        "the host's key is not in ~/.ssh/known_hosts: connect once by hand with ssh and compare the key",
    ),
    fault(
        &["UNPROTECTED PRIVATE KEY FILE"],
        ErrorKind::AuthFailed,
        "others may read the private key: chmod 600 it",
    ),
    fault(
        &["Too many authentication failures"],
        ErrorKind::AuthFailed,
        "ssh offered too many keys: name one by `keyfile=` in the URI, with `IdentitiesOnly yes` in ~/.ssh/config",
    ),
    fault(
        &["Permission denied ("],
        ErrorKind::AuthFailed,
        "sshd accepts no key of ours: try the same with ssh by hand, and check the user and `keyfile=` in the URI, ssh-agent, and authorized_keys on that host",
    ),
    fault(
        &["Could not resolve hostname"],
        ErrorKind::NameNotResolved,
        "check the spelling, DNS, /etc/hosts and ~/.ssh/config, or use an IP address",
    ),
    fault(&["open failed: "], ErrorKind::HostUnreachable, JUMP),
    fault(&["stdio forwarding failed"], ErrorKind::HostUnreachable, JUMP),
    fault(
        &["connect to host ", "Connection refused"],
        ErrorKind::ConnectionRefused,
        "check that sshd runs there and listens on that port",
    ),
    fault(&["connect to host "], ErrorKind::HostUnreachable, UNREACHABLE),
    fault(&["kex_exchange_identification: "], ErrorKind::ConnectFailed, NOT_ADMITTED),
    fault(
        &["during banner exchange"],
        ErrorKind::ConnectTimeout,
        "the port accepts connections and sshd does not answer: check whether it is hung or stopped",
    ),
    fault(&["Timeout, server "], ErrorKind::ConnectTimeout, UNREACHABLE),
    fault(
        &["Bad configuration option"],
        ErrorKind::ConnectFailed,
        "correct the file that ssh names (~/.ssh/config)",
    ),
    fault(
        &["Bad owner or permissions on"],
        ErrorKind::ConnectFailed,
        "correct the owner and the permissions of the file that ssh names",
    ),
    // The far side.
    fault(&["no libvirt socket"], ErrorKind::ConnectFailed, NO_DAEMON),
    fault(&["ailed to connect", "Permission denied"], ErrorKind::AccessDenied, FAR_GROUP),
    fault(&["cannot connect", "Permission denied"], ErrorKind::AccessDenied, FAR_GROUP),
    fault(&["connect failed", "Permission denied"], ErrorKind::AccessDenied, FAR_GROUP),
    fault(&["connect", "No such file or directory"], ErrorKind::ConnectFailed, NO_DAEMON),
    fault(&["connect", "Connection refused"], ErrorKind::ConnectFailed, NO_DAEMON),
    fault(&["not found"], ErrorKind::ConnectFailed, NO_PROGRAM),
    fault(&["virt-ssh-helper", "No such file"], ErrorKind::ConnectFailed, NO_PROGRAM),
    fault(&["directory", "Permission denied"], ErrorKind::ConnectFailed, NO_FOLDER),
    fault(&["virt-ssh-helper", "Permission denied"], ErrorKind::ConnectFailed, NOT_EXECUTABLE),
];

pub(super) const NOT_ADMITTED: &str = "sshd closed the connection before the login: too many may be connecting to it, or to the jump host, at once (MaxStartups in its sshd_config; try again, or raise it), or it refuses this machine (its log says so)";
const FAR_GROUP: &str = "ssh works, and that user may not open the daemon's socket there: add the user to the socket's group on that host (usermod -aG libvirt USER), or connect as root";
const OTHER: &str = "run the same ssh by hand: ssh USER@HOST true, and then virsh -c URI list";

/// The kind of what was said, and what can be done.
pub(super) fn explain(said: &str) -> (ErrorKind, Hint) {
    let fits = |fault: &&Fault| fault.words.iter().all(|words| said.contains(words));
    match FAULTS.iter().find(fits) {
        Some(fault) => (fault.kind, Hint::plain(fault.hint)),
        None => (ErrorKind::ConnectFailed, Hint::plain(OTHER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_ssh_has_its_kind_and_hint() {
        for (said, kind, word) in [
            ("Host key verification failed.", ErrorKind::AuthFailed, "known_hosts"),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                ErrorKind::AuthFailed,
                "ssh-keygen -R",
            ),
            ("root@h: Permission denied (publickey).", ErrorKind::AuthFailed, "keyfile="),
            (
                "ssh: Could not resolve hostname h: Name or service not known",
                ErrorKind::NameNotResolved,
                "~/.ssh/config",
            ),
            ("ssh: connect to host h port 22: Connection refused", ErrorKind::ConnectionRefused, "sshd"),
            ("ssh: connect to host h port 22: No route to host", ErrorKind::HostUnreachable, "route"),
            ("ssh: connect to host h port 22: Connection timed out", ErrorKind::HostUnreachable, "firewalls"),
            (
                "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n\
                 kex_exchange_identification: Connection closed by remote host",
                ErrorKind::HostUnreachable,
                "jump host",
            ),
            (
                "kex_exchange_identification: Connection closed by remote host",
                ErrorKind::ConnectFailed,
                "MaxStartups",
            ),
            ("Connection timed out during banner exchange", ErrorKind::ConnectTimeout, "sshd"),
            // The far side.
            ("no libvirt socket /var/run/libvirt/libvirt-sock", ErrorKind::ConnectFailed, "systemctl"),
            (
                "virt-ssh-helper: cannot connect to '/var/run/libvirt/libvirt-sock': Failed to connect socket to \
                 '/var/run/libvirt/libvirt-sock': Connection refused",
                ErrorKind::ConnectFailed,
                "systemctl",
            ),
            (
                "nc: unix connect failed: Permission denied\nnc: /var/run/libvirt/libvirt-sock: Permission denied",
                ErrorKind::AccessDenied,
                "usermod -aG libvirt",
            ),
            ("sh: 1: nc: not found", ErrorKind::ConnectFailed, "netcat-openbsd"),
            ("sh: 1: virt-ssh-helper: Permission denied", ErrorKind::ConnectFailed, "executed"),
            (
                "virt-ssh-helper: Cannot create user runtime directory '/x/.cache/libvirt': Permission denied",
                ErrorKind::ConnectFailed,
                "XDG_RUNTIME_DIR",
            ),
            ("something else", ErrorKind::ConnectFailed, "by hand"),
        ] {
            let (found, hint) = explain(said);
            assert_eq!(found, kind, "{said}");
            assert!(hint.contains(word), "{said}: {hint}");
        }
    }
}
