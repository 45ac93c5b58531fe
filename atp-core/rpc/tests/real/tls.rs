use std::fs;
use std::path::{Path, PathBuf};

use atp_rpc::{ConnectError, ConnectFailure, ConnectOptions, Connection, Stage};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::daemon::{Daemon, free_port, listens};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate and its key.
fn issue(by: &Authority, names: &[&str], certificate: &Path, key: &Path) {
    let own = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    fs::write(certificate, params.signed_by(&own, by).unwrap().pem()).unwrap();
    fs::write(key, own.serialize_pem()).unwrap();
}

/// A daemon that listens for TLS, and one port more for TCP in the clear.
struct Bed {
    daemon: Daemon,
    authority: Authority,
    tls: u16,
    tcp: u16,
}

impl Bed {
    /// With a certificate for these names.
    fn start(names: &[&str]) -> Self {
        let (authority, tls, tcp) = (authority("Bed"), free_port(), free_port());
        let daemon = Daemon::start_with(|folder| {
            let at = |name: &str| folder.join(name);
            issue(&authority, names, &at("servercert.pem"), &at("serverkey.pem"));
            fs::write(at("cacert.pem"), authority.pem()).unwrap();
            format!(
                "auth_unix_rw = \"none\"\nlisten_addr = \"127.0.0.1\"\nlisten_tls = 1\nlisten_tcp = 1\n\
                 tls_port = \"{tls}\"\ntcp_port = \"{tcp}\"\nauth_tcp = \"none\"\n\
                 key_file = \"{0}/serverkey.pem\"\ncert_file = \"{0}/servercert.pem\"\n\
                 ca_file = \"{0}/cacert.pem\"\n",
                folder.display()
            )
        });
        listens(tls);
        listens(tcp);
        Bed { daemon, authority, tls, tcp }
    }

    /// A client's folder: the authority that it trusts, and a certificate by another, or none.
    fn client(&self, name: &str, trusts: &Authority, by: Option<&Authority>) -> PathBuf {
        let folder = self.daemon.folder().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cacert.pem"), trusts.pem()).unwrap();
        if let Some(by) = by {
            issue(by, &["client"], &folder.join("clientcert.pem"), &folder.join("clientkey.pem"));
        }
        folder
    }

    async fn open(&self, host: &str, folder: &Path, more: &str) -> Result<Connection, ConnectError> {
        let uri = format!("test://{host}:{}/default?pkipath={}{more}", self.tls, folder.display());
        Connection::open(&uri, &ConnectOptions::default()).await
    }
}

#[tokio::test]
async fn tls_with_certificates_of_both_sides() {
    let bed = Bed::start(&["localhost", "127.0.0.1"]);
    let folder = bed.client("client", &bed.authority, Some(&bed.authority));
    for host in ["localhost", "127.0.0.1"] {
        let connection = bed.open(host, &folder, "").await.unwrap();
        assert_eq!(connection.list_domains(0).await.unwrap().len(), 1);
        connection.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_said() {
    let bed = Bed::start(&["127.0.0.1"]);
    let other = authority("Other");
    let fine = bed.client("fine", &bed.authority, Some(&bed.authority));
    let failure = async |host, folder: &Path, more| bed.open(host, folder, more).await.unwrap_err().failure;

    let missing = bed.daemon.folder().join("missing");
    match failure("127.0.0.1", &missing, "").await {
        ConnectFailure::File { path, .. } => assert_eq!(path, missing.join("cacert.pem")),
        other => panic!("{other:?}"),
    }
    let foreign = bed.client("foreign", &bed.authority, Some(&other));
    let refused = failure("127.0.0.1", &foreign, "").await;
    assert!(matches!(refused, ConnectFailure::TlsRefused { given: true }), "{refused:?}");
    let bare = bed.client("bare", &bed.authority, None);
    let refused = failure("127.0.0.1", &bare, "").await;
    assert!(matches!(refused, ConnectFailure::TlsRefused { given: false }), "{refused:?}");
    let distrust = bed.client("distrust", &other, Some(&bed.authority));
    let tls = failure("127.0.0.1", &distrust, "").await;
    assert!(matches!(&tls, ConnectFailure::Tls { source } if source.to_string().contains("UnknownIssuer")));
    let name = failure("localhost", &fine, "").await;
    assert!(matches!(&name, ConnectFailure::Tls { .. }), "{name:?}");
    // Neither chain nor name matter then.
    assert!(bed.open("localhost", &distrust, "&no_verify=1").await.is_ok());
}

#[tokio::test]
async fn a_common_name_alone_is_not_enough_and_that_is_said() {
    let bed = Bed::start(&[]);
    let folder = bed.client("client", &bed.authority, Some(&bed.authority));
    let failure = bed.open("localhost", &folder, "").await.unwrap_err().failure;
    assert!(matches!(failure, ConnectFailure::TlsNoName), "{failure:?}");
}

#[tokio::test]
async fn tls_and_the_clear_are_told_apart() {
    let bed = Bed::start(&["127.0.0.1"]);
    let folder = bed.client("client", &bed.authority, Some(&bed.authority));
    let options = ConnectOptions::default();
    let clear = format!("test+tcp://127.0.0.1:{}/default", bed.tcp);
    assert!(Connection::open(&clear, &options).await.is_ok());
    let clear = format!("test+tcp://127.0.0.1:{}/default", bed.tls);
    let error = Connection::open(&clear, &options).await.unwrap_err();
    assert!(matches!(error.failure, ConnectFailure::SpeaksTls), "{error:?}");
    let tls = format!("test://127.0.0.1:{}/default?pkipath={}", bed.tcp, folder.display());
    let error = Connection::open(&tls, &options).await.unwrap_err();
    assert_eq!(error.stage, Stage::Tls);
    assert!(error.failure.to_string().contains("may not speak TLS"), "{error:?}");
}
