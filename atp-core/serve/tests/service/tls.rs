//! TLS: the certificate, another one while the service runs, and files that are none.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use atp_serve::{Listener, ServeConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::bed::Bed;

/// Makes a certificate for this address in the folder, and its key.
fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

fn settings(folder: &Path, config: &mut ServeConfig) {
    config.tls_cert = folder.join("cert.pem").display().to_string();
    config.tls_key = folder.join("key.pem").display().to_string();
}

/// What the service answers to a client that trusts the certificate in the folder.
async fn get(bed: &Bed, folder: &Path, path: &str) -> Result<String, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", bed.address).as_bytes()).await?;
    let mut answer = Vec::new();
    // A server may end the connection without saying so in TLS.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn clients_that_trust_the_certificate_are_served_and_it_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let bed = Bed::with(1, 1, |config| settings(folder.path(), config)).await;
    let answer = get(&bed, folder.path(), "/healthz").await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("ok"), "{answer}");

    let old = tempfile::tempdir().unwrap();
    fs::copy(folder.path().join("cert.pem"), old.path().join("cert.pem")).unwrap();
    certificate(folder.path());
    let tls = bed.tls.as_ref().unwrap();
    tls.reload(&bed.service.config()).unwrap();
    assert!(get(&bed, old.path(), "/healthz").await.is_err(), "the old certificate is still served");
    assert!(get(&bed, folder.path(), "/healthz").await.unwrap().contains("200"));

    fs::write(folder.path().join("key.pem"), "nonsense").unwrap();
    let error = tls.reload(&bed.service.config()).unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
    assert!(get(&bed, folder.path(), "/healthz").await.unwrap().contains("200"), "it serves no more");
}

#[tokio::test]
async fn files_that_are_no_certificate_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let listen = "127.0.0.1:0".to_owned();
    let mut valid = ServeConfig { listen, ..ServeConfig::default() };
    settings(folder.path(), &mut valid);
    let missing = folder.path().join("none.pem").display().to_string();
    for (config, said) in [
        (ServeConfig { tls_key: String::new(), ..valid.clone() }, "serve.tls_key"),
        (ServeConfig { tls_cert: String::new(), ..valid.clone() }, "serve.tls_cert"),
        (ServeConfig { tls_cert: missing, ..valid.clone() }, "none.pem"),
        (ServeConfig { tls_cert: valid.tls_key.clone(), ..valid.clone() }, "key.pem"),
        (ServeConfig { tls_key: valid.tls_cert.clone(), ..valid.clone() }, "cert.pem"),
    ] {
        let error = Listener::bind(&config).await.unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    // With TLS any address may be listened on.
    Listener::bind(&ServeConfig { listen: "0.0.0.0:0".to_owned(), ..valid }).await.unwrap();
}
