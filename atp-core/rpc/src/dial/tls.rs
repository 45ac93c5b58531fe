//! TLS, with the certificates at the places where libvirt keeps them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::geteuid;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::certificate_fault::CertificateFault;
use crate::connect_error::{ConnectFailure, Progress, Stage};
use crate::settings::reading;
use crate::uri::Uri;

/// libvirt's port for TLS.
pub(super) const PORT: u16 = 16514;

/// The daemon's one byte that says that it accepts our certificate.
const ACCEPTED: u8 = 1;

/// Where the certificates are.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    ca: PathBuf,
    revoked: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// All in one folder.
    fn in_folder(folder: &Path) -> Self {
        let at = |name| folder.join(name);
        Files {
            ca: at("cacert.pem"),
            revoked: at("cacrl.pem"),
            certificate: at("clientcert.pem"),
            key: at("clientkey.pem"),
        }
    }

    fn of_the_system() -> Self {
        let at = |name| Path::new("/etc/pki").join(name);
        Files {
            ca: at("CA/cacert.pem"),
            revoked: at("CA/cacrl.pem"),
            certificate: at("libvirt/clientcert.pem"),
            key: at("libvirt/private/clientkey.pem"),
        }
    }

    /// Where a URI says, else those of the user, which has no folder of its own as root, else those of the system.
    fn find(uri: &Uri) -> Self {
        if let Some(folder) = uri.parameter("pkipath") {
            return Files::in_folder(Path::new(folder));
        }
        let mut files = Files::of_the_system();
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        if let Some(home) = home.filter(|_| !geteuid().is_root()) {
            let own = Files::in_folder(&Path::new(&home).join(".pki/libvirt"));
            if own.ca.exists() {
                (files.ca, files.revoked) = (own.ca, own.revoked);
            }
            if own.certificate.exists() && own.key.exists() {
                (files.certificate, files.key) = (own.certificate, own.key);
            }
        }
        files
    }
}

/// Negotiates TLS with the daemon at the other end of a socket.
pub(super) async fn negotiate(
    socket: TcpStream,
    uri: &Uri,
    progress: &Progress<'_>,
) -> Result<TlsStream<TcpStream>, ConnectFailure> {
    let Prepared { files, own, config } = reading({
        let uri = uri.clone();
        move || Prepared::read(&uri)
    })
    .await?;
    let host = uri.host.as_deref().unwrap_or("localhost").to_owned();
    let name = ServerName::try_from(host).map_err(|error| {
        ConnectFailure::Unsupported(format!("the host's name cannot be checked: {error}"))
    })?;
    progress.set(Stage::Tls);
    let is_refusal = |error: &io::Error| matches!(tls_error(error), Some(Error::AlertReceived(alert)) if is_about_certificate(*alert));
    let mut stream = match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
        Ok(stream) => stream,
        Err(source) if is_refusal(&source) => return Err(refused(files, own).await),
        Err(source) => {
            return Err(match tls_error(&source) {
                Some(Error::InvalidCertificate(error)) => {
                    ConnectFailure::TlsCertificate { authority: files.ca, fault: error.into() }
                }
                _ => ConnectFailure::Tls { source },
            });
        }
    };
    // The daemon checks our certificate when TLS is there, and closes the connection if it does not accept it. Some
    // send an alert first.
    let is_end = |error: &io::Error| {
        tls_error(error).is_none()
            && matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
    };
    match stream.read_u8().await {
        Ok(ACCEPTED) => Ok(stream),
        Ok(_) => Err(refused(files, own).await),
        Err(source) if is_refusal(&source) || is_end(&source) => Err(refused(files, own).await),
        Err(source) => Err(ConnectFailure::Tls { source }),
    }
}

/// The failure of a client whose certificate the daemon refused.
async fn refused(files: Files, own: Option<Own>) -> ConnectFailure {
    let failure = reading(move || {
        let fault = find_fault(&files, own.as_ref());
        Ok(ConnectFailure::TlsRefused { certificate: files.certificate, fault })
    });
    failure.await.unwrap_or_else(|failure| failure)
}

/// What is read from files before TLS begins.
struct Prepared {
    files: Files,
    own: Option<Own>,
    config: ClientConfig,
}

impl Prepared {
    fn read(uri: &Uri) -> Result<Self, ConnectFailure> {
        let files = Files::find(uri);
        let own = Own::read(&files)?;
        let config = configure(uri, &files, own.as_ref())?;
        Ok(Prepared { files, own, config })
    }
}

/// Whether an error of the handshake is that of a peer that does not speak TLS.
pub(crate) fn may_be_no_tls(error: &io::Error) -> bool {
    match tls_error(error) {
        Some(error) => matches!(error, Error::InvalidMessage(_)),
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
    }
}

/// The error of TLS inside an error of the stream.
fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether a daemon sends an alert because of the client's certificate.
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// What is wrong with our certificate, by the rules that the daemon has too. Its authority is taken to be ours.
fn find_fault(files: &Files, own: Option<&Own>) -> CertificateFault {
    let Some(own) = own else { return CertificateFault::Missing };
    let Some((certificate, intermediates)) = own.chain.split_first() else {
        return CertificateFault::Missing;
    };
    let Ok(roots) = roots(files) else { return CertificateFault::NotAllowed };
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verified = verifier
        .ok()
        .map(|verifier| verifier.verify_client_cert(certificate, intermediates, UnixTime::now()));
    match verified {
        Some(Err(Error::InvalidCertificate(error))) => (&error).into(),
        Some(Err(error)) => CertificateFault::Other(error.to_string()),
        Some(Ok(_)) | None => CertificateFault::NotAllowed,
    }
}

/// Whether the other end of a socket speaks TLS: with anyone, for all we check.
pub(super) async fn answers(socket: TcpStream) -> bool {
    let provider = Arc::new(ring::default_provider());
    let unverified = Arc::new(Unverified(provider.signature_verification_algorithms));
    let Ok(config) = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    else {
        return false;
    };
    let config = config.dangerous().with_custom_certificate_verifier(unverified).with_no_client_auth();
    let Ok(name) = ServerName::try_from("localhost") else { return false };
    match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
        Ok(_) => true,
        // An alert is TLS too.
        Err(error) => {
            error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(Error::AlertReceived(_))))
        }
    }
}

/// Our certificate and its key.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Own {
    /// Reads the files; none if neither is there.
    fn read(files: &Files) -> Result<Option<Self>, ConnectFailure> {
        if !files.certificate.exists() && !files.key.exists() {
            return Ok(None);
        }
        let chain = pem(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| broken(&files.key, error.to_string()))?;
        Ok(Some(Own { chain, key }))
    }
}

fn broken(path: &Path, reason: String) -> ConnectFailure {
    ConnectFailure::File { path: path.to_owned(), reason }
}

/// What to check, and what to show.
fn configure(uri: &Uri, files: &Files, own: Option<&Own>) -> Result<ClientConfig, ConnectFailure> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectFailure::Unsupported(error.to_string()))?;
    let config = if uri.flag("no_verify") {
        let unverified = Unverified(provider.signature_verification_algorithms);
        config.dangerous().with_custom_certificate_verifier(Arc::new(unverified))
    } else {
        config.with_webpki_verifier(verifier(files, provider)?)
    };
    match own {
        Some(Own { chain, key }) => config
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| broken(&files.certificate, error.to_string())),
        None => Ok(config.with_no_client_auth()),
    }
}

/// The authorities that are trusted.
fn roots(files: &Files) -> Result<RootCertStore, ConnectFailure> {
    let mut roots = RootCertStore::empty();
    for certificate in pem(&files.ca)? {
        roots.add(certificate).map_err(|error| broken(&files.ca, error.to_string()))?;
    }
    Ok(roots)
}

fn verifier(
    files: &Files,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, ConnectFailure> {
    let mut verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(files)?), provider);
    if files.revoked.exists() {
        let lists: Vec<CertificateRevocationListDer<'_>> = pem(&files.revoked)?;
        // A list does not cover the certificates of other authorities.
        verifier = verifier.with_crls(lists).allow_unknown_revocation_status();
    }
    verifier.build().map_err(|error| broken(&files.revoked, error.to_string()))
}

/// The items of a kind in a file; at least one.
fn pem<T: PemObject>(path: &Path) -> Result<Vec<T>, ConnectFailure> {
    let items = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    match items {
        Ok(items) if items.is_empty() => Err(broken(path, "nothing of that kind is in it".to_owned())),
        items => items.map_err(|error| broken(path, error.to_string())),
    }
}

/// Takes any certificate, as `no_verify=1` asks for. The peer still has to prove that it has the key.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
