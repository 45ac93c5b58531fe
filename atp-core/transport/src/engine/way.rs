//! Why the way to a daemon failed, as `atp-rpc` finds it: the kind of the failure, its stage, and what can be done.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use atp_api::Hint;
use atp_rpc::{CallError, CertificateFault, ConnectFailure, EndReason, Stage};

use super::choice::library_hint;
use super::error::{self, CREDENTIALS, NO_LAYER};
use super::native::failure::{chain, link_end, remote};
use super::ssh_faults;
use super::uri::{LibvirtUri, Transport};
use crate::error::{ConnectError, ConnectStage, ErrorKind};

const SSH_SILENT: &str = "check the way of ssh by hand (ssh USER@HOST true): the host, a jump host, its sshd or the login shell may hang";
const PRINTS: &str = "what runs on the far side prints text before libvirt's protocol: let the login shell print nothing without a terminal (~/.bashrc, ~/.profile, ForceCommand)";
const SPEAKS_TLS: &str = "use qemu+tls, or the port for TCP (16509)";
const NO_TLS: &str = "use qemu+tcp, or the port for TLS (16514)";
const NAME: &str = "use a name of the certificate in the URI, or issue the daemon a certificate with this one as subjectAltName (servercert.pem)";
const AUTHORITY: &str =
    "copy the authority that signed the daemon's certificate to that file, or name its folder by `pkipath=`";
const DATES: &str = "issue the daemon a new certificate (servercert.pem), or correct the clock";
const REVOKED: &str =
    "issue the daemon a new certificate (servercert.pem); the one it has is in cacrl.pem of this machine";
const EXAMINE: &str = "look at the daemon's certificate on its host (openssl x509 -in servercert.pem -noout -text), and issue one that is meant for a TLS server";
const OWN: &str = "have the daemon's authority sign a certificate for this machine, and put it into that file and its key into clientkey.pem (libvirt looks in ~/.pki/libvirt, /etc/pki/libvirt, or where `pkipath=` says)";
const ALLOWED: &str = "ask for the subject of that certificate in tls_allowed_dn_list of the daemon's configuration (libvirtd.conf or virtproxyd.conf)";
const PKI: &str = "put that file there and make it readable, or name the folder with the certificates by `pkipath=` in the URI";
const KEY: &str = "correct `keyfile=` in the URI, or make the key readable";
const VERIFY: &str =
    "leave no_verify out of the URI, and have the daemon's certificate or the host's key verified";
const AUTH_FILE: &str =
    "correct that file, LIBVIRT_AUTH_FILE or `authfile=` in the URI, or give the host an `auth` section";
const SESSION: &str = "a daemon of the user needs a folder of the user's: set XDG_RUNTIME_DIR (/run/user/UID) or HOME to one that can be written";
/// Where the machine's daemons have their sockets.
const SYSTEM: &str = "/var/run/libvirt";
const SESSION_OF_ROOT: &str = "for root a session is the machine's daemon: check that it runs (systemctl status libvirtd, or virtqemud), or run atp as the user whose session is meant";
const MAY_BE_NO_TLS: &str = "that port may not speak TLS, or the two sides have no version and no cipher of TLS in common: check the port, and the daemon's log";
const CLOSED: &str = "the daemon may be at max_clients or max_anonymous_clients, or what listens there is no libvirt: read the daemon's log on its host";
const INSTALL: &str = "install a daemon for this driver (package libvirt-daemon), or use qemu:///system";

/// The failure of an opening.
pub(super) fn connect_error(uri: &LibvirtUri, error: atp_rpc::ConnectError) -> ConnectError {
    let atp_rpc::ConnectError { stage, failure, .. } = error;
    let at = to_stage(stage);
    let sorted = sort(uri, stage, failure);
    let sorted = if sorted.stage.is_none() { sorted.at(at) } else { sorted };
    uri.advise(sorted)
}

fn sort(uri: &LibvirtUri, stage: Stage, failure: ConnectFailure) -> ConnectError {
    let shown = &uri.shown;
    let new = |kind, reason: String| ConnectError::new(kind, reason);
    let failed = |kind, failure: &ConnectFailure| new(kind, format!("{shown}: {}", chain(failure)));
    match failure {
        ConnectFailure::Timeout(_) => silent(uri, stage),
        ConnectFailure::Uri(_) | ConnectFailure::Unsupported(_) => failed(ErrorKind::InvalidUri, &failure),
        ConnectFailure::Resolve(source) => {
            let host = uri.socket.as_ref().map_or(shown.as_str(), |(host, _)| host);
            new(ErrorKind::NameNotResolved, format!("cannot resolve {host}: {source}"))
        }
        ConnectFailure::Dial { to, source } => dial(uri, &to, &source),
        ConnectFailure::NoSocket { ref tried } => {
            let error = new(ErrorKind::ConnectionRefused, chain(&failure));
            if is_session(uri) && tried.iter().all(|path| path.starts_with(SYSTEM)) {
                error.advise(SESSION_OF_ROOT)
            } else {
                error
            }
        }
        ConnectFailure::NoDaemon { .. } => new(ErrorKind::ConnectionRefused, chain(&failure)).advise(INSTALL),
        ConnectFailure::NoFolder { .. } => failed(ErrorKind::ConnectFailed, &failure).advise(SESSION),
        // Another attempt meets the same files and certificates.
        ConnectFailure::File { .. } => {
            let hint = match (stage, uri.transport) {
                (Stage::Settings, _) => "correct that file",
                (Stage::Authenticate, _) => AUTH_FILE,
                (_, Transport::Tls) => PKI,
                _ => KEY,
            };
            failed(ErrorKind::AuthFailed, &failure).advise(hint)
        }
        ConnectFailure::TlsCertificate { ref fault, .. } => {
            let hint = match fault {
                CertificateFault::UnknownIssuer => AUTHORITY,
                CertificateFault::Expired | CertificateFault::NotYetValid => DATES,
                CertificateFault::NoName
                | CertificateFault::WrongName { .. }
                | CertificateFault::WrongAddress { .. } => NAME,
                CertificateFault::Revoked => REVOKED,
                _ => EXAMINE,
            };
            failed(ErrorKind::AuthFailed, &failure).advise(hint)
        }
        ConnectFailure::TlsRefused { ref fault, .. } => {
            let hint = if matches!(fault, CertificateFault::NotAllowed) { ALLOWED } else { OWN };
            failed(ErrorKind::AuthFailed, &failure).advise(hint)
        }
        ConnectFailure::Mechanism { .. } => {
            let others = format!("for a mechanism of its own, such as DIGEST-MD5, {}", library_hint());
            failed(ErrorKind::AuthFailed, &failure).advise(Hint::from(match uri.transport {
                Transport::Tcp => format!("{NO_LAYER}; {others}"),
                _ => others,
            }))
        }
        ConnectFailure::Unverified { .. } => failed(ErrorKind::AuthFailed, &failure).advise(VERIFY),
        ConnectFailure::NoCredentials => failed(ErrorKind::AuthFailed, &failure).advise(CREDENTIALS),
        ConnectFailure::Polkit(_) | ConnectFailure::Kerberos(_) | ConnectFailure::Sasl(_) => {
            failed(ErrorKind::AuthFailed, &failure)
        }
        ConnectFailure::SpeaksTls => failed(ErrorKind::WrongProtocol, &failure).advise(SPEAKS_TLS),
        ConnectFailure::NoTls => failed(ErrorKind::WrongProtocol, &failure).advise(NO_TLS),
        ConnectFailure::NotLibvirt { .. } => {
            let error = failed(ErrorKind::WrongProtocol, &failure);
            match uri.transport {
                Transport::Ssh | Transport::Ext => error.advise(PRINTS),
                _ => error,
            }
        }
        ConnectFailure::Tls { .. } => failed(ErrorKind::ConnectFailed, &failure).advise(MAY_BE_NO_TLS),
        ConnectFailure::Command { .. } if uri.transport == Transport::Unix => {
            failed(ErrorKind::ConnectFailed, &failure).advise(SESSION)
        }
        ConnectFailure::Command { ref command, .. } => {
            let hint = format!("install {command}, or correct `command=` in the URI");
            failed(ErrorKind::ConnectFailed, &failure).advise(hint)
        }
        ConnectFailure::CommandEnded(ref said) => {
            let (kind, hint) = ssh_faults::explain(said);
            failed(kind, &failure).advise(hint)
        }
        ConnectFailure::Call(CallError::Remote { source, .. }) => error::refused_open(uri, remote(*source)),
        ConnectFailure::Call(CallError::Lost { source, .. }) => {
            let closed = matches!(source.reason, EndReason::Eof | EndReason::Frame(_));
            let error = ConnectError {
                source: Some(link_end(&source)),
                ..new(ErrorKind::ConnectFailed, format!("cannot open {shown}"))
            };
            match uri.transport {
                Transport::Ssh | Transport::Ext if stage == Stage::Command => {
                    error.advise(ssh_faults::explain("").1)
                }
                _ if closed => error.advise(CLOSED),
                _ => error,
            }
        }
        failure => new(ErrorKind::ConnectFailed, format!("cannot open {shown}: {}", chain(&failure))),
    }
}

/// Whether a URI means the daemon of a user.
fn is_session(uri: &LibvirtUri) -> bool {
    uri.text.split('?').next().is_some_and(|path| path.ends_with("/session"))
}

fn to_stage(stage: Stage) -> ConnectStage {
    match stage {
        Stage::Settings => ConnectStage::Settings,
        Stage::Resolve => ConnectStage::Name,
        Stage::Dial => ConnectStage::Dial,
        Stage::Command | Stage::Admission => ConnectStage::Command,
        Stage::Tls => ConnectStage::Tls,
        Stage::Greet => ConnectStage::Daemon,
        Stage::Authenticate => ConnectStage::Authenticate,
        Stage::Open => ConnectStage::Open,
    }
}

/// The failure to connect to an address, or to a socket of this machine.
fn dial(uri: &LibvirtUri, to: &str, source: &io::Error) -> ConnectError {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => {
            ConnectError::new(ErrorKind::ConnectionRefused, format!("{to} refuses connections"))
        }
        io::ErrorKind::PermissionDenied => {
            let error = ConnectError::new(ErrorKind::AccessDenied, format!("{to}: {source}"));
            if uri.socket.is_some() { error } else { error.advise(socket_right(Path::new(to))) }
        }
        _ if uri.socket.is_some() => ConnectError::new(ErrorKind::HostUnreachable, format!("{to}: {source}")),
        _ => ConnectError::new(ErrorKind::ConnectFailed, format!("{to}: {source}")),
    }
}

/// What a user can do who may not open a socket: by its group, if that may.
fn socket_right(path: &Path) -> Hint {
    /// Read and write for the group.
    const GROUP: u32 = 0o060;
    let Ok(socket) = fs::symlink_metadata(path) else {
        return Hint::from(format!(
            "{} cannot be looked at: ask for the right to its folder",
            path.display()
        ));
    };
    let group = group_name(socket.gid());
    let mode = socket.mode() & 0o777;
    if mode & GROUP == GROUP && socket.gid() != 0 {
        return Hint::from(format!(
            "the daemon runs, and the socket is for its group {group} (mode {mode:04o}): add the user to it (usermod -aG {group} USER) and log in again"
        ));
    }
    Hint::from(format!(
        "the daemon runs, and only the socket's owner may open it (mode {mode:04o}, group {group}): let a group open it (unix_sock_group = \"libvirt\" and unix_sock_rw_perms = \"0770\" in the daemon's configuration, or SocketGroup and SocketMode of its systemd socket) and add the user to that group (usermod -aG libvirt USER)"
    ))
}

/// The name of a group, or its number.
fn group_name(gid: u32) -> String {
    let number = gid.to_string();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}

/// The error of an attempt whose time runs out at this stage.
pub(super) fn silent(uri: &LibvirtUri, stage: Stage) -> ConnectError {
    let shown = &uri.shown;
    let host = uri.socket.as_ref().map_or(shown.as_str(), |(host, _)| host);
    let new = |kind, reason: String| ConnectError::new(kind, reason).at(to_stage(stage));
    match stage {
        Stage::Settings => {
            new(ErrorKind::ConnectTimeout, format!("{shown}: reading the settings takes too long"))
        }
        Stage::Resolve => {
            new(ErrorKind::NameNotResolved, format!("cannot resolve {host}: no answer from the resolver"))
        }
        Stage::Dial => {
            let place = match &uri.socket {
                Some((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
                Some((host, port)) => format!("{host}:{port}"),
                None => shown.clone(),
            };
            new(ErrorKind::HostUnreachable, format!("{place} does not answer"))
        }
        Stage::Command if uri.transport == Transport::Ssh => {
            let reason = format!("{shown}: ssh did not connect: nothing came through it in time");
            new(ErrorKind::ConnectTimeout, reason).advise(SSH_SILENT)
        }
        Stage::Command => {
            new(ErrorKind::ConnectTimeout, format!("{shown}: the command to connect by has not connected"))
                .advise("run the command by hand: it hangs, or what it connects to does")
        }
        Stage::Admission => {
            let reason =
                format!("{shown}: sshd does not admit ssh: it closes each connection before the login");
            new(ErrorKind::ConnectFailed, reason).advise(ssh_faults::NOT_ADMITTED)
        }
        Stage::Tls => new(
            ErrorKind::ConnectTimeout,
            format!("{shown} accepts connections, and does not answer the first message of TLS"),
        ),
        Stage::Greet | Stage::Authenticate | Stage::Open => uri.no_answer().at(to_stage(stage)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_root_is_the_daemon_of_the_machine() {
        for (uri, folder, is_of_root) in [
            ("qemu:///session", SYSTEM, true),
            ("qemu+unix:///session?mode=direct", SYSTEM, true),
            ("qemu:///session", "/run/user/7/libvirt", false),
            ("qemu:///system", SYSTEM, false),
        ] {
            let failure = ConnectFailure::NoSocket { tried: vec![Path::new(folder).join("virtqemud-sock")] };
            let error = sort(&LibvirtUri::parse(uri).unwrap(), Stage::Dial, failure);
            assert_eq!(error.kind, ErrorKind::ConnectionRefused);
            assert_eq!(error.advice.is_some(), is_of_root, "{uri} {folder}: {:?}", error.advice);
        }
    }

    #[test]
    fn a_certificate_is_advised_on_by_what_is_wrong_with_it() {
        let uri = LibvirtUri::parse("qemu+tls://h/system").unwrap();
        for (fault, advice) in [
            (CertificateFault::Expired, DATES),
            (CertificateFault::NotYetValid, DATES),
            (CertificateFault::UnknownIssuer, AUTHORITY),
            (CertificateFault::NoName, NAME),
            (CertificateFault::Revoked, REVOKED),
            (CertificateFault::Other("invalid purpose".to_owned()), EXAMINE),
        ] {
            let authority = "/etc/pki/CA/cacert.pem".into();
            let error =
                sort(&uri, Stage::Tls, ConnectFailure::TlsCertificate { authority, fault: fault.clone() });
            assert_eq!(error.kind, ErrorKind::AuthFailed);
            assert_eq!(error.advice, Some(Hint::from(advice)), "{fault:?}");
        }
    }

    #[test]
    fn who_does_not_verify_the_daemon_is_not_sent_to_the_engine_that_gives_the_password_away() {
        let uri = LibvirtUri::parse("qemu+tls://h/system?no_verify=1").unwrap();
        let failure = ConnectFailure::Unverified { offered: "SASL DIGEST-MD5".to_owned() };
        let error = sort(&uri, Stage::Authenticate, failure);
        assert_eq!((error.kind, error.advice), (ErrorKind::AuthFailed, Some(Hint::from(VERIFY))));
    }
}
