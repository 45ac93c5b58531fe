//! Daemons that require authentication (SASL).

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use atp_e2e::{Atp, eventually};
use atp_testbed::session;

/// A daemon with the test driver, whose mechanism encrypts by itself, as only the library can. It accepts `tester` with the password `s3cret`.
struct Daemon {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Daemon {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A folder that its user can access, independently of where the project is, and of this daemon alone.
        let folder = std::env::temp_dir().join(format!("sasl-{}-{port}", std::process::id()));
        for name in ["run", "config", "cache", "data", "sasl2"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let shown = folder.display();
        let config = format!(
            "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"{port}\"\nauth_tcp = \"sasl\"\n\
             auth_unix_ro = \"none\"\nauth_unix_rw = \"sasl\"\nunix_sock_dir = \"{shown}/run\"\nlog_outputs = \"4:stderr\"\n"
        );
        fs::write(folder.join("libvirtd.conf"), config).unwrap();
        let sasl = format!("mech_list: digest-md5\nsasldb_path: {shown}/passwd.db\n");
        fs::write(folder.join("sasl2/libvirt.conf"), sasl).unwrap();
        add_user(&folder.join("passwd.db"));
        session::give_to_daemon_user(&folder).unwrap();
        let mut command = session::daemon(&folder, &folder.join("libvirtd.conf")).unwrap();
        command.env("SASL_CONF_PATH", folder.join("sasl2"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Daemon { child: command.spawn().unwrap(), folder, port };
        eventually("the daemon listens", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", port)));
        daemon
    }

    /// A settings file with one host that has this `auth`.
    fn config(&self, auth: &str) -> String {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sasl-{}.toml", self.port));
        let uri = format!("test+tcp://127.0.0.1:{}/default", self.port);
        fs::write(&path, format!("[hosts.h]\nuri = \"{uri}\"\n{auth}\n")).unwrap();
        path.display().to_string()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn add_user(database: &Path) {
    let mut command = Command::new("saslpasswd2");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["-p", "-c", "-f"]).arg(database);
    command.args(["-a", "libvirt", "tester"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"s3cret").unwrap();
    assert!(child.wait().unwrap().success(), "saslpasswd2 (package sasl2-bin) failed");
}

#[test]
fn the_password_comes_from_a_file_or_a_variable_and_is_never_shown() {
    let daemon = Daemon::start();
    let secret = |name: &str, text: &str| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (secret("right", "s3cret\n"), secret("wrong", "wr0ng\n"));
    for (auth, brief) in [
        (format!("auth = {{ username = \"tester\", password_file = \"{right}\" }}"), "h/test ok none"),
        ("auth = { username = \"tester\", password_env = \"DAEMON_PASSWORD\" }".to_owned(), "h/test ok none"),
        (
            format!("auth = {{ username = \"tester\", password_file = \"{wrong}\" }}"),
            "h unreachable none auth-failed",
        ),
        (
            "auth = { username = \"tester\", password_env = \"UNSET\" }".to_owned(),
            "h unreachable none auth-failed",
        ),
        (
            "auth = { username = \"tester\", password_file = \"/nonexistent\" }".to_owned(),
            "h unreachable none auth-failed",
        ),
        (String::new(), "h unreachable none auth-failed"),
    ] {
        let config = daemon.config(&auth);
        for args in [&["vm", "list"][..], &["config", "show"]] {
            let run = Atp::new(&[&["--config", &config, "-vv", "--engine", "library"], args].concat());
            let run = run.env("DAEMON_PASSWORD", "s3cret").output("json").run();
            if args[0] == "vm" {
                assert_eq!(run.brief(), [brief], "{auth}\n{}", run.stderr);
            }
            let said = run.stdout() + &run.stderr;
            assert!(!said.contains("s3cret") && !said.contains("wr0ng"), "{said}");
        }
    }
    // There is no terminal to ask for a password, and no attempt to connect is made.
    let config = daemon.config("auth = { username = \"tester\", password_prompt = true }");
    let run = Atp::new(&["--config", &config, "vm", "list"]).run();
    run.exits_with(2);
    assert!(run.stderr.contains("there is no terminal"), "{}", run.stderr);
}

#[test]
fn a_mechanism_that_only_the_library_has_is_refused_with_the_way_out() {
    let daemon = Daemon::start();
    let config = daemon.config("auth = { username = \"tester\", password_env = \"DAEMON_PASSWORD\" }");
    let run =
        Atp::new(&["--config", &config, "vm", "list"]).env("DAEMON_PASSWORD", "s3cret").output("json").run();
    run.exits_with(1);
    let outcome = run.outcome("h");
    assert_eq!(outcome.brief(), "h unreachable none auth-failed");
    assert!(outcome.failure().causes.concat().contains("DIGEST-MD5"), "{outcome:?}");
    let hint = outcome.failure().hint.clone().unwrap();
    assert!(hint.contains("set engine = \"library\" for this host"), "{hint}");
}

#[test]
fn libvirts_own_file_of_passwords_serves_without_settings_of_ours() {
    let daemon = Daemon::start();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("auth.conf");
    let config = daemon.config("");
    let listed = |password: &str| {
        let text = format!(
            "[credentials-t]\nauthname=tester\npassword={password}\n[auth-libvirt-127.0.0.1]\ncredentials=t\n"
        );
        fs::write(&file, text).unwrap();
        let run = Atp::new(&["--config", &config, "vm", "list"]).env("ATP_TRANSPORT__ENGINE", "library");
        run.env("LIBVIRT_AUTH_FILE", &file.display().to_string()).output("json").run().brief()
    };
    assert_eq!(listed("s3cret"), ["h/test ok none"]);
    assert_eq!(listed("wr0ng"), ["h unreachable none auth-failed"]);
}

/// Leads to a socket, as a command of a URI does.
const RELAY: &str = r#"#!/usr/bin/perl
use IO::Socket::UNIX; use IO::Select;
my $s = IO::Socket::UNIX->new(Peer => "SOCKET") or die "cannot connect: $!\n";
my %to = (fileno(STDIN) => $s, fileno($s) => \*STDOUT);
my $select = IO::Select->new(\*STDIN, $s);
while (1) {
    for my $from ($select->can_read) {
        sysread($from, my $chunk, 65536) or exit 0;
        syswrite($to{fileno($from)}, $chunk);
    }
}
"#;

#[test]
fn over_a_command_the_password_is_that_of_the_host_in_the_uri() {
    let daemon = Daemon::start();
    let (relay, file) = (daemon.folder.join("relay"), daemon.folder.join("auth.conf"));
    fs::write(&relay, RELAY.replace("SOCKET", &daemon.folder.join("run/libvirt-sock").display().to_string()))
        .unwrap();
    fs::set_permissions(&relay, Permissions::from_mode(0o755)).unwrap();
    let text = "[credentials-t]\nauthname=tester\npassword=s3cret\n[auth-libvirt-far.example]\ncredentials=t\n\
                [credentials-w]\nauthname=tester\npassword=wr0ng\n[auth-libvirt-localhost]\ncredentials=w\n";
    fs::write(&file, text).unwrap();
    let (relay, file) = (relay.display(), file.display());
    for (name, brief) in
        [("far.example", "h/test ok none"), ("other.example", "h unreachable none auth-failed")]
    {
        let host = format!("h=test+ext://{name}/default?command={relay}&authfile={file}");
        let run = Atp::new(&["--engine", "library", "--host", &host, "vm", "list"]).output("json").run();
        assert_eq!(run.brief(), [brief], "{}{}", run.stdout(), run.stderr);
    }
}
