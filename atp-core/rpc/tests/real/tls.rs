use std::fs;
use std::path::{Path, PathBuf};

use atp_rpc::{CertificateFault, ConnectError, ConnectFailure, ConnectOptions, Connection, Stage};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
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

/// The first and the last year of a certificate.
type Years = (i32, i32);
const VALID: Years = (2020, 2100);
const EXPIRED: Years = (2020, 2021);
const LATER: Years = (2099, 2100);

/// Writes a certificate and its key.
fn issue(by: &Authority, names: &[&str], (from, to): Years, certificate: &Path, key: &Path) {
    let own = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
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
        Bed::start_with(names, VALID, "")
    }

    /// As [`start`](Self::start), with the years of its certificate, and more settings.
    fn start_with(names: &[&str], years: Years, more: &str) -> Self {
        let (authority, tls, tcp) = (authority("Bed"), free_port(), free_port());
        let daemon = Daemon::start_with(|folder| {
            let at = |name: &str| folder.join(name);
            issue(&authority, names, years, &at("servercert.pem"), &at("serverkey.pem"));
            fs::write(at("cacert.pem"), authority.pem()).unwrap();
            fs::write(at("libvirt.conf"), "mech_list: PLAIN\n").unwrap();
            format!(
                "auth_unix_rw = \"none\"\nlisten_addr = \"127.0.0.1\"\nlisten_tls = 1\nlisten_tcp = 1\n\
                 tls_port = \"{tls}\"\ntcp_port = \"{tcp}\"\nauth_tcp = \"none\"\n\
                 key_file = \"{0}/serverkey.pem\"\ncert_file = \"{0}/servercert.pem\"\n\
                 ca_file = \"{0}/cacert.pem\"\n{more}",
                folder.display()
            )
        });
        listens(tls);
        listens(tcp);
        Bed { daemon, authority, tls, tcp }
    }

    /// A client's folder: the authority that it trusts, and a certificate by another, or none.
    fn client(&self, name: &str, trusts: &Authority, by: Option<&Authority>) -> PathBuf {
        self.client_of(name, trusts, by, VALID)
    }

    /// As [`client`](Self::client), with the years of the certificate.
    fn client_of(&self, name: &str, trusts: &Authority, by: Option<&Authority>, years: Years) -> PathBuf {
        let folder = self.daemon.folder().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cacert.pem"), trusts.pem()).unwrap();
        if let Some(by) = by {
            issue(by, &["client"], years, &folder.join("clientcert.pem"), &folder.join("clientkey.pem"));
        }
        folder
    }

    /// What is wrong with the daemon's certificate.
    async fn theirs(&self, host: &str, folder: &Path) -> CertificateFault {
        let error = self.open(host, folder, "").await.unwrap_err();
        assert_eq!(error.stage, Stage::Tls);
        match error.failure {
            ConnectFailure::TlsCertificate { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    }

    /// What is wrong with the client's certificate.
    async fn ours(&self, folder: &Path) -> CertificateFault {
        let error = self.open("127.0.0.1", folder, "").await.unwrap_err();
        assert_eq!(error.stage, Stage::Tls);
        match error.failure {
            ConnectFailure::TlsRefused { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
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
async fn the_reason_is_given_why_the_daemons_certificate_is_not_accepted() {
    let bed = Bed::start(&["127.0.0.1", "some.host"]);
    let other = authority("Other");
    let missing = bed.daemon.folder().join("missing");
    match bed.open("127.0.0.1", &missing, "").await.unwrap_err().failure {
        ConnectFailure::File { path, .. } => assert_eq!(path, missing.join("cacert.pem")),
        other => panic!("{other:?}"),
    }
    let fine = bed.client("fine", &bed.authority, Some(&bed.authority));
    let distrust = bed.client("distrust", &other, Some(&bed.authority));
    assert_eq!(bed.theirs("127.0.0.1", &distrust).await, CertificateFault::UnknownIssuer);
    match bed.theirs("localhost", &fine).await {
        CertificateFault::WrongName { host, names } => {
            assert_eq!(host, "localhost");
            assert!(names.iter().any(|name| name.contains("some.host")), "{names:?}");
        }
        other => panic!("{other:?}"),
    }
    // Neither chain nor name matter then.
    assert!(bed.open("localhost", &distrust, "&no_verify=1").await.is_ok());

    let named = Bed::start(&["localhost"]);
    let folder = named.client("client", &named.authority, Some(&named.authority));
    assert!(named.open("localhost", &folder, "").await.is_ok());
    match named.theirs("127.0.0.1", &folder).await {
        CertificateFault::WrongAddress { address, .. } => assert_eq!(address, "127.0.0.1"),
        other => panic!("{other:?}"),
    }
    let bare = Bed::start(&[]);
    let folder = bare.client("client", &bare.authority, Some(&bare.authority));
    assert_eq!(bare.theirs("localhost", &folder).await, CertificateFault::NoName);
    for (years, fault) in [(EXPIRED, CertificateFault::Expired), (LATER, CertificateFault::NotYetValid)] {
        let bed = Bed::start_with(&["127.0.0.1"], years, "tls_no_sanity_certificate = 1\n");
        let folder = bed.client("client", &bed.authority, Some(&bed.authority));
        assert_eq!(bed.theirs("127.0.0.1", &folder).await, fault);
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_verified_is_sent_no_password() {
    let bed = Bed::start_with(&["localhost"], VALID, "auth_tls = \"sasl\"\n");
    let folder = bed.client("client", &bed.authority, Some(&bed.authority));
    match bed.open("localhost", &folder, "").await.unwrap_err().failure {
        ConnectFailure::NoCredentials => {}
        other => panic!("{other:?}"),
    }
    match bed.open("localhost", &folder, "&no_verify=1").await.unwrap_err().failure {
        ConnectFailure::Unverified { offered } => assert!(offered.contains("PLAIN"), "{offered}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_reason_is_given_why_the_daemon_refuses_the_clients_certificate() {
    let bed = Bed::start(&["127.0.0.1"]);
    let other = authority("Other");
    let none = bed.client("none", &bed.authority, None);
    assert_eq!(bed.ours(&none).await, CertificateFault::Missing);
    let foreign = bed.client("foreign", &bed.authority, Some(&other));
    assert_eq!(bed.ours(&foreign).await, CertificateFault::UnknownIssuer);
    let expired = bed.client_of("expired", &bed.authority, Some(&bed.authority), EXPIRED);
    assert_eq!(bed.ours(&expired).await, CertificateFault::Expired);
    let later = bed.client_of("later", &bed.authority, Some(&bed.authority), LATER);
    assert_eq!(bed.ours(&later).await, CertificateFault::NotYetValid);

    let strict = Bed::start_with(&["127.0.0.1"], VALID, "tls_allowed_dn_list = [\"CN=somebody\"]\n");
    let folder = strict.client("client", &strict.authority, Some(&strict.authority));
    assert_eq!(strict.ours(&folder).await, CertificateFault::NotAllowed);
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
    assert!(matches!(error.failure, ConnectFailure::NoTls), "{error:?}");
}

#[tokio::test]
async fn a_port_that_is_none_of_libvirts_is_shown_by_what_it_says() {
    use tokio::io::AsyncWriteExt as _;
    let bed = Bed::start(&["127.0.0.1"]);
    let folder = bed.client("client", &bed.authority, Some(&bed.authority));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let _gone = socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            open.push(socket);
        }
    });
    for uri in [
        format!("test+tcp://127.0.0.1:{port}/default"),
        format!("test://127.0.0.1:{port}/default?pkipath={}", folder.display()),
    ] {
        match Connection::open(&uri, &ConnectOptions::default()).await.unwrap_err().failure {
            ConnectFailure::NotLibvirt { begins } => assert!(begins.starts_with("SSH-2.0-"), "{begins}"),
            other => panic!("{uri}: {other:?}"),
        }
    }
}
