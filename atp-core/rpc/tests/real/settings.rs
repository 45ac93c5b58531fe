//! libvirt's settings for clients. What `virsh` makes of the same files and variables is the oracle.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use atp_rpc::{ConnectFailure, ConnectOptions, Connection, Stage};

use crate::daemon::Daemon;
use crate::sasl;
use crate::user::{as_user, run};

/// No daemon has a socket there: an error names it, and shows what a text stands for.
fn nowhere(name: &str) -> String {
    format!("test+unix:///default?socket=/nonexistent/{name}")
}

fn write_settings(folder: &Path, text: &str) {
    fs::create_dir_all(folder.join(".config/libvirt")).unwrap();
    fs::write(folder.join(".config/libvirt/libvirt.conf"), text).unwrap();
}

/// Opens a text and has `virsh` open it. Both have to fail at the socket of this name.
async fn both_look_for(text: &str, name: &str) {
    let path = Path::new("/nonexistent").join(name);
    match Connection::open(text, &ConnectOptions::default()).await.unwrap_err().failure {
        ConnectFailure::NoSocket { tried } => assert_eq!(tried, std::slice::from_ref(&path), "{text:?}"),
        other => panic!("{text:?}: {other:?}"),
    }
    let output = Command::new("virsh").args(["-c", text, "uri"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&path.display().to_string()), "{text:?}: {said}");
}

/// Opens a URI that needs a password and has `virsh` open it. Returns whether both did.
async fn both_log_in(uri: &str) -> bool {
    let opened = Connection::open(uri, &ConnectOptions::default()).await;
    if let Err(error) = &opened {
        assert!(matches!(error.failure, ConnectFailure::NoCredentials), "{error:?}");
    }
    // Without a terminal to ask at, virsh gives up where no file has the password.
    let mut virsh = Command::new("virsh");
    let output = virsh.args(["-c", uri, "uri"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), opened.is_ok(), "{said}");
    opened.is_ok()
}

/// Neither opens the text.
async fn both_refuse(text: &str) {
    let failure = Connection::open(text, &ConnectOptions::default()).await.unwrap_err().failure;
    assert!(matches!(failure, ConnectFailure::Uri(_)), "{text:?}: {failure:?}");
    let output = Command::new("virsh").args(["-c", text, "uri"]).output().unwrap();
    assert!(!output.status.success(), "{text:?}");
}

#[test]
fn aliases_and_the_default_are_those_of_virsh() {
    let Some(_) = as_user("settings::aliases_and_the_default_are_those_of_virsh", |folder| {
        let text = format!(
            "# uri_default = \"{}\"\nuri_aliases = [\n  \"one={}\",\n  \"two={}\",\n]\nuri_default = '{}' # at last\n",
            nowhere("comment"),
            nowhere("one"),
            nowhere("two"),
            nowhere("default")
        );
        write_settings(folder, &text);
        vec![]
    }) else {
        return;
    };
    run(async {
        both_look_for("one", "one").await;
        both_look_for("two", "two").await;
        both_look_for("", "default").await;
        both_refuse("three").await;
    });
}

#[test]
fn the_variable_comes_before_the_file() {
    let Some(_) = as_user("settings::the_variable_comes_before_the_file", |folder| {
        write_settings(folder, &format!("uri_default = \"{}\"\n", nowhere("default")));
        vec![("LIBVIRT_DEFAULT_URI", nowhere("variable"))]
    }) else {
        return;
    };
    run(async {
        both_look_for("", "variable").await;
        both_look_for(&nowhere("given"), "given").await;
    });
}

#[test]
fn the_variable_may_name_an_alias() {
    let Some(_) = as_user("settings::the_variable_may_name_an_alias", |folder| {
        write_settings(folder, &format!("uri_aliases = [\"one={}\"]\n", nowhere("one")));
        vec![("LIBVIRT_DEFAULT_URI", "one".to_owned())]
    }) else {
        return;
    };
    run(both_look_for("", "one"));
}

#[test]
fn a_setting_of_another_form_is_no_alias() {
    let Some(_) = as_user("settings::a_setting_of_another_form_is_no_alias", |folder| {
        write_settings(folder, "uri_aliases = 3\n");
        vec![]
    }) else {
        return;
    };
    run(both_refuse("one"));
}

/// A daemon that asks every user of the machine for a password, and its socket as a variable.
fn asking() -> (Daemon, (&'static str, String)) {
    let daemon = sasl::daemon("SCRAM-SHA-256", "unix_sock_rw_perms = \"0777\"\n");
    daemon.open_to_all();
    let socket = ("ATP_RPC_TEST_SOCKET", daemon.socket().display().to_string());
    (daemon, socket)
}

fn asking_uri() -> String {
    format!("test+unix:///default?socket={}", std::env::var("ATP_RPC_TEST_SOCKET").unwrap())
}

/// An `auth.conf` in which a host has the password.
fn passwords(host: &str) -> String {
    format!("[credentials-t]\nauthname=tester\npassword=s3cret\n[auth-libvirt-{host}]\ncredentials=t\n")
}

#[test]
fn the_users_file_of_passwords_is_read_as_by_virsh() {
    let mut daemon = None;
    let Some(folder) = as_user("settings::the_users_file_of_passwords_is_read_as_by_virsh", |_| {
        let (asks, socket) = asking();
        daemon = Some(asks);
        vec![socket]
    }) else {
        return;
    };
    run(async {
        let file = folder.join(".config/libvirt/auth.conf");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (host, known) in [("localhost", true), ("elsewhere", false), ("default", true)] {
            fs::write(&file, passwords(host)).unwrap();
            assert_eq!(both_log_in(&asking_uri()).await, known, "{host}");
        }
        // That of the URI comes before it.
        let other = folder.join("other");
        fs::write(&other, passwords("elsewhere")).unwrap();
        assert!(!both_log_in(&format!("{}&authfile={}", asking_uri(), other.display())).await);
    });
}

#[test]
fn a_file_of_passwords_that_a_variable_names_comes_first() {
    let mut daemon = None;
    let Some(folder) = as_user("settings::a_file_of_passwords_that_a_variable_names_comes_first", |folder| {
        let (asks, socket) = asking();
        daemon = Some(asks);
        let file = folder.join("named");
        fs::write(&file, passwords("localhost")).unwrap();
        vec![socket, ("LIBVIRT_AUTH_FILE", file.display().to_string())]
    }) else {
        return;
    };
    run(async {
        let other = folder.join("other");
        fs::write(&other, passwords("elsewhere")).unwrap();
        assert!(both_log_in(&format!("{}&authfile={}", asking_uri(), other.display())).await);
    });
}

#[test]
fn a_user_whom_polkit_refuses_is_told_so() {
    let mut daemon = None;
    let Some(_) = as_user("settings::a_user_whom_polkit_refuses_is_told_so", |_| {
        let settings = "auth_unix_rw = \"polkit\"\nunix_sock_rw_perms = \"0777\"\n";
        let strict = Daemon::start_with(|_| settings.to_owned());
        strict.open_to_all();
        let socket = strict.socket().display().to_string();
        daemon = Some(strict);
        vec![("ATP_RPC_TEST_SOCKET", socket)]
    }) else {
        return;
    };
    run(async {
        let error = Connection::open(&asking_uri(), &ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.stage, Stage::Authenticate);
        // The words are those of polkit, or of a daemon that does not reach it.
        assert!(matches!(&error.failure, ConnectFailure::Polkit(_)), "{error:?}");
    });
}
