//! GSSAPI against a realm of the test's own: its servers, a ticket, and a libvirtd that lets in who has one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use atp_rpc::{ConnectFailure, ConnectOptions, Connection, Stage};

use crate::daemon::{free_port, listens};
use crate::user::{as_user, run};

/// The variables that lead programs to the realm.
fn realm(folder: &Path) -> Vec<(&'static str, String)> {
    let at = |name: &str| folder.join(name).display().to_string();
    vec![
        ("KRB5_CONFIG", at("krb5.conf")),
        ("KRB5_KDC_PROFILE", at("kdc.conf")),
        ("KRB5_KTNAME", at("daemon.keytab")),
        ("KRB5CCNAME", at("ticket")),
        ("SASL_CONF_PATH", folder.display().to_string()),
    ]
}

/// The realm's server, and a daemon. Dropping it ends both.
struct Bed {
    folder: PathBuf,
    processes: Vec<Child>,
    tcp: u16,
}

impl Bed {
    fn start(folder: &Path) -> Self {
        let (kdc, tcp) = (free_port(), free_port());
        let at = |name: &str| folder.join(name);
        let here = folder.display();
        let settings = format!(
            "[libdefaults]\ndefault_realm = TEST\nrdns = false\ndns_lookup_kdc = false\nudp_preference_limit = 1\n\
             dns_canonicalize_hostname = false\nignore_acceptor_hostname = true\n\
             [realms]\nTEST = {{\nkdc = 127.0.0.1:{kdc}\n}}\n[domain_realm]\nlocalhost = TEST\n"
        );
        fs::write(at("krb5.conf"), settings).unwrap();
        let settings = format!(
            "[kdcdefaults]\nkdc_listen = \"\"\nkdc_tcp_listen = 127.0.0.1:{kdc}\n\
             [realms]\nTEST = {{\ndatabase_name = {here}/principals\nkey_stash_file = {here}/stash\n\
             acl_file = {here}/acl\n}}\n[logging]\nkdc = FILE:{here}/kdc.log\n"
        );
        fs::write(at("kdc.conf"), settings).unwrap();
        program("/usr/sbin/kdb5_util", &["create", "-s", "-r", "TEST", "-P", "master"]);
        for query in [
            "addprinc -randkey tester",
            "addprinc -randkey libvirt/localhost",
            &format!("ktadd -k {here}/user.keytab tester"),
            &format!("ktadd -k {here}/daemon.keytab libvirt/localhost"),
        ] {
            program("/usr/sbin/kadmin.local", &["-r", "TEST", "-q", query]);
        }
        let mut server = Command::new("/usr/sbin/krb5kdc");
        let server = server.args(["-n", "-r", "TEST"]).stderr(Stdio::null()).spawn();
        let server = server.expect("krb5kdc is installed: package krb5-kdc");
        listens(kdc);
        fs::write(at("libvirt.conf"), format!("mech_list: gssapi\nkeytab: {here}/daemon.keytab\n")).unwrap();
        let settings = format!(
            "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"{tcp}\"\n\
             auth_tcp = \"sasl\"\nauth_unix_rw = \"sasl\"\n"
        );
        fs::write(at("libvirtd.conf"), settings).unwrap();
        let mut daemon = Command::new("/usr/sbin/libvirtd");
        daemon.arg("--listen").arg("--config").arg(at("libvirtd.conf")).stderr(Stdio::null());
        let processes = vec![server, daemon.spawn().unwrap()];
        listens(tcp);
        Bed { folder: folder.to_owned(), processes, tcp }
    }

    /// Gets the user a ticket.
    fn ticket(&self) {
        let keytab = self.folder.join("user.keytab").display().to_string();
        program("kinit", &["-k", "-t", &keytab, "tester"]);
    }

    fn over_tcp(&self) -> String {
        format!("test+tcp://localhost:{}/default", self.tcp)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _over = process.kill();
            let _reaped = process.wait();
        }
    }
}

fn program(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{name}: {error}: packages krb5-admin-server, krb5-user"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_ticket_lets_in_and_encrypts_what_goes_over_tcp() {
    let Some(folder) = as_user("gssapi::a_ticket_lets_in_and_encrypts_what_goes_over_tcp", realm) else {
        return;
    };
    run(async {
        let bed = Bed::start(&folder);
        let options = ConnectOptions::default();
        let error = Connection::open(&bed.over_tcp(), &options).await.unwrap_err();
        assert_eq!(error.stage, Stage::Authenticate);
        assert!(matches!(&error.failure, ConnectFailure::Kerberos(_)), "{error:?}");
        bed.ticket();

        let connection = Connection::open(&bed.over_tcp(), &options).await.unwrap();
        assert_eq!(connection.uri().await.unwrap(), "test:///default");
        let domain = connection.domain_by_name("test").await.unwrap();
        // More than one piece in each direction.
        let long = "x".repeat(300_000);
        let none = connection.domain_by_name(&long).await.unwrap_err();
        assert!(none.to_string().starts_with("virDomainLookupByName"), "{none}");
        let (_, mut picture) = connection.screenshot(&domain, 0, 1 << 24).await.unwrap();
        let mut size = 0;
        while let Some(chunk) = picture.recv().await.unwrap() {
            size += chunk.len();
        }
        picture.finish().await.unwrap();
        assert!(size > 1_000, "{size}");
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move { connection.hostname().await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        connection.close().await.unwrap();

        // A socket of the machine needs no encryption.
        let connection = Connection::open("test+unix:///default", &options).await.unwrap();
        assert_eq!(connection.list_domains(0).await.unwrap().len(), 1);
    });
}
