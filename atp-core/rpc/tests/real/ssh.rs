//! The transport ssh with a real sshd, of this user, on loopback.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use atp_rpc::{ConnectError, ConnectFailure, ConnectOptions, Connection, EndReason, Stage};

use crate::commands::{NETCAT, eventually_none, script};
use crate::daemon::{Daemon, free_port, listens};

/// What a login shell may print before anything else.
const GREETING: &str = "Welcome to this host";

/// An sshd, and a libvirtd behind it. What a login may run is in one folder.
struct Bed {
    daemon: Daemon,
    sshd: Child,
    port: u16,
    user: String,
}

impl Bed {
    fn start() -> Self {
        Bed::start_with("")
    }

    /// With more settings of sshd.
    fn start_with(more: &str) -> Self {
        let (daemon, port) = (Daemon::start(), free_port());
        let at = |name: &str| daemon.folder().join(name);
        for name in ["host", "user", "stranger"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(name));
            assert!(keygen.status().expect("ssh-keygen is installed: package openssh-client").success());
        }
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        let host = fs::read_to_string(at("host.pub")).unwrap();
        fs::write(at("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        fs::write(at("unknown"), "").unwrap();
        for known in ["known", "unknown"] {
            let config = format!(
                "UserKnownHostsFile {0}/{known}\nGlobalKnownHostsFile {0}/unknown\n\
                 IdentitiesOnly yes\nIdentityAgent none\n",
                daemon.folder().display()
            );
            fs::write(at(&format!("{known}.config")), config).unwrap();
            let call = format!("#!/bin/sh\nexec ssh -F {}.config \"$@\"\n", at(known).display());
            script(daemon.folder(), &format!("ssh-{known}"), &call);
        }
        fs::create_dir(at("bin")).unwrap();
        for program in ["sh", "grep", "cat", "sleep", "perl"] {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
            symlink(found.iter().find(|path| path.exists()).unwrap(), at("bin").join(program)).unwrap();
        }
        script(&at("bin"), "nc", NETCAT);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nSetEnv PATH={0}/bin\n{more}",
            daemon.folder().display()
        );
        fs::write(at("sshd.conf"), config).unwrap();
        if rustix::process::geteuid().is_root() {
            // Run by root, sshd wants it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(at("sshd.conf")).stdin(Stdio::null());
        let sshd = sshd.stderr(fs::File::create(at("sshd.log")).unwrap()).spawn();
        let sshd = sshd.expect("sshd is installed: package openssh-server");
        listens(port);
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        Bed { daemon, sshd, port, user: String::from_utf8(user).unwrap().trim().to_owned() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.daemon.folder().join(name)
    }

    /// Installs a helper that leads to the daemon, and writes down what it is called with.
    fn install_helper(&self) {
        let text = format!(
            "#!/bin/sh\necho \"$@\" > {}\nexec nc -U {}\n",
            self.at("called").display(),
            self.daemon.socket().display()
        );
        script(&self.at("bin"), "virt-ssh-helper", &text);
    }

    /// With a key, a file of known hosts, and more parameters.
    async fn open(&self, key: &str, known: &str, more: &str) -> Result<Connection, ConnectError> {
        self.open_with(key, known, more, &ConnectOptions::default()).await
    }

    async fn open_with(
        &self,
        key: &str,
        known: &str,
        more: &str,
        options: &ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        let (ssh, key) = (self.at(&format!("ssh-{known}")), self.at(key));
        let uri = format!(
            "test+ssh://{}@127.0.0.1:{}/default?command={}&keyfile={}{more}",
            self.user,
            self.port,
            ssh.display(),
            key.display()
        );
        Connection::open(&uri, options).await
    }

    /// What ssh said when it gave up.
    async fn refused(&self, key: &str, known: &str, more: &str) -> String {
        let error = self.open(key, known, more).await.unwrap_err();
        assert_eq!(error.stage, Stage::Command);
        match error.failure {
            ConnectFailure::CommandEnded(said) => said,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _over = self.sshd.kill();
        let _reaped = self.sshd.wait();
    }
}

#[tokio::test]
async fn a_login_leads_to_the_helper_with_the_name_that_is_opened() {
    let bed = Bed::start();
    bed.install_helper();
    let connection = bed.open("user", "known", "&x=y").await.unwrap();
    assert_eq!(connection.list_domains(0).await.unwrap().len(), 1);
    assert_eq!(fs::read_to_string(bed.at("called")).unwrap().trim(), "test:///default?x=y");
    let read_only = ConnectOptions { read_only: true, ..ConnectOptions::default() };
    drop(bed.open_with("user", "known", "", &read_only).await.unwrap());
    assert_eq!(fs::read_to_string(bed.at("called")).unwrap().trim(), "-r test:///default");
    drop(connection);
    eventually_none(&bed.at("known.config").display().to_string()).await;
}

#[tokio::test]
async fn without_the_helper_netcat_is_taken() {
    let bed = Bed::start();
    let socket = format!("&socket={}", bed.daemon.socket().display());
    let connection = bed.open("user", "known", &socket).await.unwrap();
    assert_eq!(connection.list_domains(0).await.unwrap().len(), 1);
    // It does not find the socket of a daemon that is not there, and says where it looked.
    let said = bed.refused("user", "known", "&mode=direct").await;
    assert!(said.contains("/var/run/libvirt/virttestd-sock"), "{said}");
    let said = bed.refused("user", "known", "&proxy=native").await;
    assert!(said.contains("virt-ssh-helper"), "{said}");
}

#[tokio::test]
async fn what_ssh_refuses_is_the_error() {
    let bed = Bed::start();
    bed.install_helper();
    let said = bed.refused("stranger", "known", "").await;
    assert!(said.contains("Permission denied"), "{said}");
    let said = bed.refused("user", "unknown", "").await;
    assert!(said.contains("Host key verification failed"), "{said}");
    drop(bed.open("user", "unknown", "&no_verify=1").await.unwrap());
}

#[tokio::test]
async fn a_login_shell_that_prints_is_named() {
    let run = "sh -c \"$SSH_ORIGINAL_COMMAND\"";
    // What goes to stderr does no harm.
    let bed = Bed::start_with(&format!("ForceCommand echo {GREETING} >&2; {run}\n"));
    bed.install_helper();
    let connection = bed.open("user", "known", "").await.unwrap();
    drop(bed);
    let end = connection.closed().await;
    assert!(matches!(end.reason, EndReason::Eof), "{end:?}");
    assert!(end.said.contains(GREETING), "{}", end.said);

    let bed = Bed::start_with(&format!("ForceCommand echo {GREETING}; {run}\n"));
    bed.install_helper();
    match bed.open("user", "known", "").await.unwrap_err().failure {
        ConnectFailure::NotLibvirt { begins } => assert!(begins.starts_with(GREETING), "{begins}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_ssh_is_left_of_a_connect_that_is_cancelled() {
    let bed = Bed::start_with("ForceCommand sleep 600\n");
    let word = bed.at("known.config").display().to_string();
    let options = ConnectOptions { timeout: Duration::from_secs(2), ..ConnectOptions::default() };
    let error = bed.open_with("user", "known", "", &options).await.unwrap_err();
    assert!(matches!(error.failure, ConnectFailure::Timeout(_)), "{error:?}");
    eventually_none(&word).await;
    let opening = bed.open("user", "known", "");
    assert!(tokio::time::timeout(Duration::from_secs(1), opening).await.is_err());
    eventually_none(&word).await;
}
