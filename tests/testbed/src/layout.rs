//! The paths of the files of one host.

use std::path::{Path, PathBuf};

use crate::cache::make_folder;
use crate::error::Result;
use crate::state::Mode;

/// The folder of one host: configuration, sockets, logs and run-time files of its daemon and its guests.
///
/// In root mode its `etc`, `lib`, `cache`, `log` and `run` are mounted over libvirt's folders of the machine, see
/// `daemon.sh`. In rootless mode the `XDG_…` variables of the daemon point into it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    folder: PathBuf,
    mode: Mode,
}

impl Layout {
    pub(crate) fn new(folder: PathBuf, mode: Mode) -> Self {
        Self { folder, mode }
    }

    /// Creates all folders.
    pub(crate) fn create(&self) -> Result<()> {
        make_folder(&self.folder, 0o755)?;
        let folders: &[&str] = match self.mode {
            Mode::Root => &["etc", "lib", "cache/qemu/capabilities", "log", "run", "guests", "sockets"],
            Mode::Rootless => &[
                "config/libvirt",
                "cache/libvirt/qemu/cache/capabilities",
                "data",
                "log",
                "run",
                "guests",
                "sockets",
            ],
        };
        folders.iter().try_for_each(|folder| make_folder(&self.folder.join(folder), 0o755))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration of the daemon with this name.
    pub(crate) fn daemon_config(&self, daemon: &str) -> PathBuf {
        self.configuration().join(format!("{daemon}.conf"))
    }

    pub(crate) fn qemu_config(&self) -> PathBuf {
        self.configuration().join("qemu.conf")
    }

    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.folder.join("log/libvirtd.log")
    }

    /// The pid file of the daemon with this name.
    pub(crate) fn daemon_pid_file(&self, daemon: &str) -> PathBuf {
        let folder = match self.mode {
            Mode::Root => "run",
            Mode::Rootless => "run/libvirt",
        };
        self.folder.join(folder).join(format!("{daemon}.pid"))
    }

    /// libvirt's cache of QEMU capabilities, which take seconds to probe.
    pub(crate) fn capabilities(&self) -> PathBuf {
        self.folder.join(match self.mode {
            Mode::Root => "cache/qemu/capabilities",
            Mode::Rootless => "cache/libvirt/qemu/cache/capabilities",
        })
    }

    pub(crate) fn qemu_pid_file(&self, guest: &str) -> PathBuf {
        let folder = match self.mode {
            Mode::Root => "run/libvirt/qemu",
            Mode::Rootless => "run/libvirt/qemu/run",
        };
        self.folder.join(folder).join(format!("{guest}.pid"))
    }

    /// The folder for small files. In root mode it is a file system of its own, which only the daemon and its guests
    /// see; see `daemon.sh`.
    pub(crate) fn small(&self) -> PathBuf {
        self.folder.join("small")
    }

    /// The records of the guests of this host, one file each.
    pub(crate) fn guests(&self) -> PathBuf {
        self.folder.join("guests")
    }

    /// The console output of the guest with this UUID since power-on.
    pub(crate) fn console(&self, uuid: &str) -> PathBuf {
        self.folder.join("log").join(format!("{uuid}.console"))
    }

    /// The sockets of the guest with this UUID. The paths are short, since a socket's path is limited to 107 bytes
    /// and libvirt's default below a session's folders is longer.
    pub(crate) fn disk(&self, uuid: &str) -> PathBuf {
        self.guests().join(format!("{uuid}.disk"))
    }

    pub(crate) fn agent_socket(&self, uuid: &str) -> PathBuf {
        self.socket(uuid, "agent")
    }

    pub(crate) fn control_socket(&self, uuid: &str) -> PathBuf {
        self.socket(uuid, "control")
    }

    pub(crate) fn channel_socket(&self, uuid: &str) -> PathBuf {
        self.socket(uuid, "channel")
    }

    fn socket(&self, uuid: &str, name: &str) -> PathBuf {
        let short = uuid.split('-').next().unwrap_or(uuid);
        self.folder.join("sockets").join(format!("{short}.{name}"))
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join(match self.mode {
            Mode::Root => "etc",
            Mode::Rootless => "config/libvirt",
        })
    }
}
