//! The existing beds: a folder for each, with a file that names its owner.
//!
//! The folder and the number of a bed are enough to find and remove it: all its resources have names that begin with
//! the number or lie in the folder. So any process can remove what a crashed one left.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache;
use crate::error::{Error, Result};
use crate::language::Language;
use crate::libvirt::Libvirt;
use crate::network::Network;
use crate::process::{Members, Process};

/// How the hosts of a bed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// System daemons, each with an address and a network namespace of its own.
    Root,
    /// Session daemons on ports of 127.0.0.1. Under root they run as the user `nobody`.
    Rootless,
}

/// The content of a bed's state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BedState {
    pub(crate) mode: Mode,
    /// The process that removes the bed when it ends. `None` for a bed that stays until `down`.
    pub(crate) owner: Option<Process>,
    /// The boot of the machine: process ids and namespaces of an earlier boot are invalid.
    pub(crate) boot: String,
    pub(crate) hosts: Vec<HostState>,
}

/// A host in the state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostState {
    pub(crate) id: String,
    pub(crate) uuid: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    /// The language of the daemon's messages. As fields to come, it may be missing: a state that cannot be read is taken for that
    /// of a dead process, and another build's bed would be removed.
    #[serde(default)]
    pub(crate) language: Language,
    #[serde(default)]
    pub(crate) libvirt: Libvirt,
}

impl BedState {
    /// Whether the process that should remove the bed is gone.
    pub(crate) fn is_stale(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive()) || boot_id().is_ok_and(|boot| boot != self.boot)
    }

    /// Reads the state of a bed.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE_FILE);
        let text = fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))?;
        serde_json::from_slice(&text).map_err(|error| Error::State(format!("{}: {error}", path.display())))
    }

    /// Writes the state of a bed.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::State(error.to_string()))?;
        cache::write_atomically(&folder.join(STATE_FILE), &text)
    }
}

const STATE_FILE: &str = "state.json";

/// The file with the number that was assigned last.
const LAST_FILE: &str = "last";

/// The highest number. It is a part of the addresses of the bed's hosts.
const LAST_BED: u8 = 254;

/// The folder with all beds of one user.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
    root: bool,
}

impl Store {
    /// Opens the store of this user: `/run/atp-testbed` for root, else in `$XDG_RUNTIME_DIR` or the folder for
    /// temporary files.
    pub(crate) fn open() -> Result<Self> {
        use std::os::unix::fs::MetadataExt;

        let user = cache::user_id();
        let folder = if user == 0 {
            PathBuf::from("/run/atp-testbed")
        } else if let Some(runtime) =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir())
        {
            runtime.join("atp-testbed")
        } else {
            std::env::temp_dir().join(format!("atp-testbed-{user}"))
        };
        // The daemons of a rootless bed that root started run as another user, and access this folder.
        cache::make_folder(&folder, if user == 0 { 0o755 } else { 0o700 })?;
        let owner = fs::symlink_metadata(&folder).map_err(Error::io(folder.display().to_string()))?.uid();
        if owner != user {
            return Err(Error::State(format!("{} belongs to user {owner}, not to {user}", folder.display())));
        }
        Ok(Self { folder, root: user == 0 })
    }

    /// Keeps all other processes from claiming, listing or removing beds of this user.
    pub(crate) fn lock(&self) -> Result<File> {
        cache::lock(&self.folder.join("lock"))
    }

    /// The folder of a bed, which need not exist.
    pub(crate) fn bed_folder(&self, bed: u8) -> PathBuf {
        self.folder.join(bed.to_string())
    }

    /// The numbers of all beds, in order. Without the lock, they include beds that other processes are making or
    /// removing.
    pub(crate) fn beds(&self) -> Result<Vec<u8>> {
        let entries =
            fs::read_dir(&self.folder).map_err(Error::io(format!("reading {}", self.folder.display())))?;
        let mut beds: Vec<u8> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        beds.sort_unstable();
        Ok(beds)
    }

    /// Takes the next free number and creates the folder of the bed. The caller must hold the lock until the state is
    /// written: a bed without a state counts as abandoned.
    ///
    /// Numbers are reused only after all others, so that a check whether a bed is gone does not find a new one with
    /// the same number.
    pub(crate) fn claim(&self, _lock: &File) -> Result<u8> {
        let last_file = self.folder.join(LAST_FILE);
        let last = fs::read_to_string(&last_file).ok().and_then(|text| text.parse().ok());
        let last = last.filter(|last| *last < LAST_BED).unwrap_or(0);
        for bed in (last + 1..=LAST_BED).chain(1..=last) {
            let folder = self.bed_folder(bed);
            if folder.exists() || (self.root && Network::new(bed).is_taken()?) {
                continue;
            }
            cache::make_folder(&folder, 0o755)?;
            cache::write_atomically(&last_file, bed.to_string().as_bytes())?;
            return Ok(bed);
        }
        Err(Error::State(format!("all {LAST_BED} testbeds of {} are in use", self.folder.display())))
    }

    /// All processes of a bed.
    pub(crate) fn members(&self, bed: u8) -> Members {
        let namespaces = if self.root { Network::new(bed).namespaces() } else { Vec::new() };
        Members { namespaces, home: self.bed_folder(bed) }
    }

    /// Removes a bed, as far as it exists: processes, network, files, in this order. The folder is removed last, so
    /// that the number is not reused before everything else is gone. The caller must hold the lock.
    pub(crate) fn remove(&self, _lock: &File, bed: u8) -> Result<()> {
        self.members(bed).kill()?;
        if self.root {
            Network::new(bed).remove()?;
        }
        let folder = self.bed_folder(bed);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", folder.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the beds whose owners are gone, and returns their numbers. The caller must hold the lock.
    pub(crate) fn remove_stale(&self, lock: &File) -> Result<Vec<u8>> {
        let mut removed = Vec::new();
        for bed in self.beds()? {
            // A state that is unreadable under the lock: its owner died before writing it, or while removing the bed.
            if BedState::read(&self.bed_folder(bed)).map_or(true, |state| state.is_stale()) {
                self.remove(lock, bed)?;
                removed.push(bed);
            }
        }
        Ok(removed)
    }
}

/// The id of this boot of the machine.
pub(crate) fn boot_id() -> Result<String> {
    read_kernel_id("/proc/sys/kernel/random/boot_id")
}

/// A new random UUID.
pub(crate) fn new_uuid() -> Result<String> {
    read_kernel_id("/proc/sys/kernel/random/uuid")
}

fn read_kernel_id(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path).map_err(Error::io(path))?.trim().to_owned())
}
