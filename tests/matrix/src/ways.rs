//! Every way to a daemon: what listens, who connects, and what must come of it.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use atp_testbed::Host;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::call::PASSWORD;

/// The maximum time until a server listens, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A way to a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Tcp,
    Unix,
    Tls,
    Ssh,
    ReadOnly,
    Sasl,
    Polkit,
}

impl Way {
    /// Those of a daemon that asks for no passwords, and then those of one that does.
    pub(crate) const ALL: [Self; 7] =
        [Self::Tcp, Self::Unix, Self::Tls, Self::Ssh, Self::ReadOnly, Self::Sasl, Self::Polkit];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix socket",
            Self::Tls => "tls, with certificates of both sides",
            Self::Ssh => "ssh, with `virt-ssh-helper`",
            Self::ReadOnly => "unix socket for reading",
            Self::Sasl => "SASL (SCRAM-SHA-256) over tls",
            Self::Polkit => "unix socket, an ordinary user, where polkit is asked and does not run",
        }
    }

    /// Whether the daemon has to ask for passwords.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Sasl | Self::Polkit)
    }
}

/// A host with everything that its ways need. Dropping it ends its sshd.
pub(crate) struct Site {
    pub(crate) host: Host,
    folder: PathBuf,
    sshd: Option<Child>,
}

impl Site {
    /// Makes certificates, keys and users, in the host's folder for the daemon and in another for the clients.
    pub(crate) fn new(host: &Host, clients: &Path) -> Result<Self> {
        let site = Self { host: host.clone(), folder: clients.to_owned(), sshd: None };
        site.issue_certificates()?;
        site.add_user()?;
        Ok(site)
    }

    /// Restarts the daemon so that it asks for passwords, or for none.
    pub(crate) fn serve(&mut self, asks: bool) -> Result<()> {
        self.end_sshd();
        let folder = self.host.folder().display();
        let access = if asks {
            "auth_tls = \"sasl\"\nauth_unix_rw = \"polkit\"\nunix_sock_rw_perms = \"0777\"\n"
        } else {
            "auth_tls = \"none\"\n"
        };
        self.host.set_daemon_settings(&format!(
            "listen_tls = 1\ntls_port = \"16514\"\nkey_file = \"{folder}/serverkey.pem\"\n\
             cert_file = \"{folder}/servercert.pem\"\nca_file = \"{folder}/cacert.pem\"\n{access}"
        ))?;
        if asks { Ok(()) } else { self.start_sshd() }
    }

    /// A settings file for a way.
    pub(crate) fn config(&self, way: Way) -> Result<PathBuf> {
        let (address, shown) = (self.host.address().ip(), self.folder.display());
        let uri = match way {
            Way::Tcp => self.host.uri(),
            Way::Unix | Way::Polkit => {
                format!("qemu+unix:///system?socket={}", self.host.socket(false).display())
            }
            Way::ReadOnly => format!("qemu+unix:///system?socket={}", self.host.socket(true).display()),
            Way::Tls | Way::Sasl => format!("qemu+tls://{address}/system?pkipath={shown}"),
            Way::Ssh => format!("qemu+ssh://root@{address}/system?command={shown}/ssh&keyfile={shown}/user"),
        };
        let auth = if way == Way::Sasl {
            "auth = { username = \"matrix\", password_env = \"MATRIX_PASSWORD\" }\n"
        } else {
            ""
        };
        let path = self.folder.join(format!("{way:?}.toml"));
        fs::write(&path, format!("[hosts.h]\nuri = \"{uri}\"\n{auth}"))?;
        Ok(path)
    }

    fn issue_certificates(&self) -> Result<()> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Matrix");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        for (folder, name, prefix) in [
            (self.host.folder(), self.host.address().ip().to_string(), "server"),
            (&self.folder, "client".to_owned(), "client"),
        ] {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new([name.clone()])?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            fs::write(folder.join("cacert.pem"), authority.pem())?;
            let certificate = params.signed_by(&key, &authority)?;
            fs::write(folder.join(format!("{prefix}cert.pem")), certificate.pem())?;
            fs::write(folder.join(format!("{prefix}key.pem")), key.serialize_pem())?;
        }
        Ok(())
    }

    fn add_user(&self) -> Result<()> {
        let folder = self.host.folder().join("sasl2");
        fs::create_dir_all(&folder)?;
        let users = folder.join("users.db");
        fs::write(
            folder.join("libvirt.conf"),
            format!("mech_list: SCRAM-SHA-256\nsasldb_path: {}\n", users.display()),
        )?;
        let mut add = Command::new("saslpasswd2");
        // The users are those of a realm, which is the daemon's host name.
        let realm = self.host.virsh(&["hostname"])?;
        add.args(["-p", "-c", "-a", "libvirt", "-u", realm.trim(), "-f"]).arg(&users).arg("matrix");
        add.stdin(Stdio::piped());
        let mut add = add.spawn().context("cannot run saslpasswd2")?;
        add.stdin.take().context("no stdin")?.write_all(PASSWORD.as_bytes())?;
        ensure!(add.wait()?.success(), "saslpasswd2 failed");
        Ok(())
    }

    /// Starts an sshd in the host's network, which sees the sockets of its daemon.
    fn start_sshd(&mut self) -> Result<()> {
        let at = |name: &str| self.folder.join(name);
        for name in ["host", "user"] {
            if !at(name).exists() {
                let keygen = Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(at(name))
                    .status();
                ensure!(keygen.context("cannot run ssh-keygen")?.success(), "ssh-keygen failed");
            }
        }
        let (address, shown) = (self.host.address().ip(), self.folder.display());
        fs::write(at("known"), format!("{address} {}", fs::read_to_string(at("host.pub"))?))?;
        let options = "-o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o IdentityAgent=none";
        let ssh =
            format!("#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile={shown}/known {options} \"$@\"\n");
        script(&at("ssh"), &ssh)?;

        // The helper of the daemon's own release.
        fs::create_dir_all(at("bin"))?;
        let helper = match self.host.release()? {
            Some(root) => format!("chroot {} /usr/bin/virt-ssh-helper", root.display()),
            None => "/usr/bin/virt-ssh-helper".to_owned(),
        };
        script(&at("bin/virt-ssh-helper"), &format!("#!/bin/sh\nexec {helper} \"$@\"\n"))?;
        let config = format!(
            "ListenAddress {address}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/user.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nSetEnv PATH={shown}/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        );
        fs::write(at("sshd.conf"), config)?;
        let mut sshd = self.host.command("sh")?;
        sshd.args(["-c", "mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f \"$0\""]).arg(at("sshd.conf"));
        sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(at("sshd.log"))?);
        self.sshd = Some(sshd.spawn().context("cannot run nsenter")?);
        let start = Instant::now();
        while TcpStream::connect((address, 22)).is_err() {
            if start.elapsed() > START_DEADLINE {
                bail!("sshd does not listen: {}", fs::read_to_string(at("sshd.log"))?);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn end_sshd(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            // Both fail only if it has ended.
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end_sshd();
    }
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
