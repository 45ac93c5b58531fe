//! What is wrong with a certificate, the daemon's or the client's.

use thiserror::Error;
use tokio_rustls::rustls::CertificateError;
use tokio_rustls::rustls::pki_types::ServerName;

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// The client has none.
    #[error("there is no such file, and no key beside it (clientkey.pem)")]
    Missing,
    /// Its authority is not the one in `cacert.pem`.
    #[error("its authority is not the one in cacert.pem")]
    UnknownIssuer,
    /// Its time is over, or the clock is wrong.
    #[error("it has expired, or the clock of this machine is wrong")]
    Expired,
    /// Its time has not begun, or the clock is wrong.
    #[error("it is not valid yet, or the clock of this machine is wrong")]
    NotYetValid,
    /// The authority has revoked it.
    #[error("it is revoked in cacrl.pem")]
    Revoked,
    /// It has no subjectAltName. Its common name is not looked at.
    #[error("it has no subjectAltName; a common name is not looked at")]
    NoName,
    /// It is for other hosts.
    #[error("it is for {}, and not for the name {host}", names.join(", "))]
    WrongName {
        /// The name in the URI.
        host: String,
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// It does not have the address in the URI.
    #[error("it is for {}, and not for the address {address}", names.join(", "))]
    WrongAddress {
        /// The address in the URI.
        address: String,
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// Nothing is wrong as far as the client can see.
    #[error("nothing is wrong with it here; the daemon's tls_allowed_dn_list may not have its subject")]
    NotAllowed,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl From<&CertificateError> for CertificateFault {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => CertificateFault::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CertificateFault::NotYetValid
            }
            CertificateError::Revoked => CertificateFault::Revoked,
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                CertificateFault::NoName
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let (host, names) =
                    (expected.to_str().into_owned(), presented.iter().map(|name| bare(name)).collect());
                match expected {
                    ServerName::IpAddress(_) => CertificateFault::WrongAddress { address: host, names },
                    _ => CertificateFault::WrongName { host, names },
                }
            }
            other => CertificateFault::Other(other.to_string()),
        }
    }
}

/// The name itself, of `DnsName("NAME")` and `IpAddress(NAME)`.
fn bare(presented: &str) -> String {
    let inside = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(presented).trim_matches('"').to_owned()
}
