//! A libvirtd of a test's own, in a folder of its own.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use atp_rpc::{ConnectOptions, Connection};

/// A TCP port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a TCP port takes connections.
pub(crate) fn listens(port: u16) {
    until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "libvirtd does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A daemon. Dropping it ends it.
pub(crate) struct Daemon {
    process: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts one without the drivers that are modules: those need more of the machine than a test may ask for, and
    /// libvirt's test driver is built in.
    pub(crate) fn start() -> Self {
        Daemon::start_with(|_| "auth_unix_rw = \"none\"\n".to_owned())
    }

    /// As [`start`](Self::start), with settings made in its folder.
    pub(crate) fn start_with(settings: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("modules")).unwrap();
        let settings = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\n{}",
            folder.path().display(),
            settings(folder.path())
        );
        let listens = settings.contains("listen_addr");
        std::fs::write(at("libvirtd.conf"), settings).unwrap();
        let process = Command::new("libvirtd")
            .arg("--config")
            .arg(at("libvirtd.conf"))
            .arg("--pid-file")
            .arg(at("pid"))
            .args(listens.then_some("--listen"))
            .env("SASL_CONF_PATH", folder.path())
            .env("LIBVIRT_DRIVER_DIR", at("modules"))
            .stderr(Stdio::null())
            .spawn()
            .expect("libvirtd is installed: package libvirt-daemon");
        let daemon = Daemon { process, folder };
        until(|| UnixStream::connect(daemon.socket()).is_ok());
        daemon
    }

    /// Lets other users reach the socket, as far as the settings let them.
    pub(crate) fn open_to_all(&self) {
        std::fs::set_permissions(self.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("libvirt-sock")
    }

    pub(crate) fn uri(&self) -> String {
        format!("test+unix:///default?socket={}", self.socket().display())
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.connect_with(&ConnectOptions::default()).await
    }

    pub(crate) async fn connect_with(&self, options: &ConnectOptions) -> Connection {
        Connection::open(&self.uri(), options).await.expect("the daemon takes connections")
    }

    /// What `virsh` prints, each line without spaces at its ends, the empty ones left out.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> Vec<String> {
        let output = Command::new("virsh")
            .args(["--quiet", "--connect", &self.uri()])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .expect("virsh is installed: package libvirt-clients");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// What `virsh` prints behind `name:` in a table.
    pub(crate) fn virsh_field(&self, arguments: &[&str], name: &str) -> String {
        let lines = self.virsh(arguments);
        let field = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.unwrap_or_else(|| panic!("{arguments:?} has no {name}: {lines:?}")).trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _over = self.process.kill();
        let _reaped = self.process.wait();
    }
}
