//! What is kept from bed to bed: the guest image, and libvirt's results of probing QEMU.
//!
//! Root keeps it in `/var/cache/atp-testbed`, where the unprivileged daemons of a rootless bed can read it too. Other
//! users keep it in `$XDG_CACHE_HOME/atp-testbed`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// Root's cache, which other users may read.
pub(crate) const SYSTEM_CACHE: &str = "/var/cache/atp-testbed";

/// The user id of this process.
pub(crate) fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The cache folder of this user. Created if it does not exist.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = if user_id() == 0 {
        PathBuf::from(SYSTEM_CACHE)
    } else {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        variable("XDG_CACHE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".cache")))
            .ok_or_else(|| {
                Error::State("neither XDG_CACHE_HOME nor HOME says where to keep the guest image".into())
            })?
            .join("atp-testbed")
    };
    make_folder(&folder, 0o755)?;
    Ok(folder)
}

/// Creates a folder and its parents, and sets its permissions independently of the umask.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(format!("making {}", path.display())))?;
    set_mode(path, mode)
}

/// Sets permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io(format!("setting the permissions of {}", path.display())))
}

/// Writes a file atomically: a reader sees either the old content or the complete new content, also after a crash.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Another process, or another thread of this one, may be writing the same file.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    name.push(format!(".{}-{}.new", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let new = path.with_file_name(name);
    fs::write(&new, content).map_err(Error::io(format!("writing {}", new.display())))?;
    fs::rename(&new, path).map_err(Error::io(format!("writing {}", path.display())))
}

/// Waits for a lock file and holds it until the returned file is dropped or the process ends.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(Error::io(format!("opening {}", path.display())))?;
    file.lock().map_err(Error::io(format!("locking {}", path.display())))?;
    Ok(file)
}
