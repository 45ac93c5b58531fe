use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use atp_rpc::{ConnectFailure, ConnectOptions, Connection, Credentials, Stage};

use crate::daemon::{Daemon, free_port, listens};

/// A daemon that lets in `tester` with the password `s3cret`, by these mechanisms.
pub(crate) fn daemon(mechanisms: &str, more: &str) -> Daemon {
    Daemon::start_with(|folder| {
        let users = folder.join("users.db");
        let sasl = format!("mech_list: {mechanisms}\nsasldb_path: {}\n", users.display());
        fs::write(folder.join("libvirt.conf"), sasl).unwrap();
        add_user(&users);
        format!("auth_unix_rw = \"sasl\"\n{more}")
    })
}

fn add_user(file: &Path) {
    let mut process = Command::new("saslpasswd2")
        .args(["-p", "-c", "-a", "libvirt", "-f"])
        .arg(file)
        .arg("tester")
        .stdin(Stdio::piped())
        .spawn()
        .expect("saslpasswd2 is installed: package sasl2-bin");
    process.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
    assert!(process.wait().unwrap().success());
}

fn with(password: &str) -> ConnectOptions {
    let credentials = Credentials { user: "tester".to_owned(), password: password.to_owned() };
    ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() }
}

#[tokio::test]
async fn each_mechanism_lets_in_who_knows_the_password() {
    for mechanism in ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] {
        let daemon = daemon(mechanism, "");
        let connection = Connection::open(&daemon.uri(), &with("s3cret")).await;
        let connection = connection.unwrap_or_else(|error| panic!("{mechanism}: {error:?}"));
        assert_eq!(connection.list_domains(0).await.unwrap().len(), 1, "{mechanism}");
        let error = Connection::open(&daemon.uri(), &with("wrong")).await.unwrap_err();
        assert_eq!(error.stage, Stage::Authenticate, "{mechanism}");
        match &error.failure {
            ConnectFailure::Call(call) => assert!(call.is_code(45), "{mechanism}: {call:?}"),
            other => panic!("{mechanism}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_password_may_be_in_libvirts_own_file() {
    let daemon = daemon("SCRAM-SHA-256 PLAIN", "");
    let file = daemon.folder().join("auth.conf");
    let uri = format!("{}&authfile={}", daemon.uri(), file.display());
    let open = async || Connection::open(&uri, &ConnectOptions::default()).await;
    assert!(matches!(open().await.unwrap_err().failure, ConnectFailure::File { path, .. } if path == file));
    fs::write(&file, "[credentials-t]\nauthname=tester\npassword=s3cret\n").unwrap();
    assert!(matches!(open().await.unwrap_err().failure, ConnectFailure::NoCredentials));
    let which =
        "[credentials-t]\nauthname=tester\npassword=s3cret\n[auth-libvirt-localhost]\ncredentials=t\n";
    fs::write(&file, which).unwrap();
    open().await.unwrap();
    let wanted = format!("{uri}&auth=sasl.PLAIN");
    Connection::open(&wanted, &ConnectOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_mechanism_that_is_not_there_is_named() {
    let port = free_port();
    let tcp = format!("listen_addr = \"127.0.0.1\"\nlisten_tls = 0\nlisten_tcp = 1\ntcp_port = \"{port}\"\n");
    let daemon = daemon("DIGEST-MD5", &tcp);
    listens(port);
    let over_tcp = format!("test+tcp://127.0.0.1:{port}/default");
    for uri in [daemon.uri(), over_tcp] {
        let error = Connection::open(&uri, &with("s3cret")).await.unwrap_err();
        match &error.failure {
            ConnectFailure::Mechanism { offered, .. } => assert!(offered.contains("DIGEST-MD5"), "{offered}"),
            other => panic!("{uri}: {other:?}"),
        }
    }
}
