//! What the C library says of an opening that failed: on the way it speaks for itself, behind it the daemon does.

use crate::engine::error::{self, CREDENTIALS, NO_LAYER};
use crate::engine::ssh_faults;
use crate::engine::uri::{LibvirtUri, Transport};
use crate::error::{ConnectError, ConnectStage, ErrorKind, LibvirtError};

const CERTIFICATES: &str = "check cacert.pem, clientcert.pem and clientkey.pem (in /etc/pki, ~/.pki/libvirt, or the folder of `pkipath=`), and the daemon's servercert.pem: authority, dates, and the name in the URI";
const SOCKET_GROUP: &str =
    "add the user to the group of the daemon's socket (usermod -aG libvirt USER) and log in again";

/// Sorts the failure of an opening. If `reached`, the daemon was there: then no failure is one of the way.
pub(super) fn connect_error(uri: &LibvirtUri, source: LibvirtError, reached: bool) -> ConnectError {
    let message = source.message.as_str();
    if error::is_about_credentials(&source) {
        let no_answer = message.contains("collect auth credentials");
        let no_mechanism = uri.transport == Transport::Tcp && message.contains("mech");
        let error = error::refused_open(uri, source);
        return match (no_answer, no_mechanism) {
            (true, _) => error.advise(CREDENTIALS),
            (false, true) => error.advise(NO_LAYER),
            (false, false) => error,
        };
    }
    if reached {
        return error::refused_open(uri, source);
    }
    let failed = |kind, stage| ConnectError::new(kind, format!("cannot open {}", uri.shown)).at(stage);
    let error = match uri.transport {
        Transport::Ssh | Transport::LibSsh | Transport::Ext => {
            let (kind, hint) = ssh_faults::explain(message);
            failed(kind, ConnectStage::Command).advise(hint)
        }
        Transport::Tls if message.contains("certificate") || message.contains("TLS") => {
            failed(ErrorKind::AuthFailed, ConnectStage::Tls).advise(CERTIFICATES)
        }
        Transport::Unix if message.contains("Permission denied") => {
            failed(ErrorKind::AccessDenied, ConnectStage::Dial).advise(SOCKET_GROUP)
        }
        Transport::Unix
            if message.contains("Connection refused") || message.contains("No such file or directory") =>
        {
            failed(ErrorKind::ConnectionRefused, ConnectStage::Dial)
        }
        // A driver inside the library looks names up itself.
        Transport::Driver
            if message.contains("unable to resolve") || message.contains("Name or service not known") =>
        {
            failed(ErrorKind::NameNotResolved, ConnectStage::Name)
        }
        _ => failed(ErrorKind::ConnectFailed, ConnectStage::Open),
    };
    ConnectError { source: Some(source), ..error }
}
