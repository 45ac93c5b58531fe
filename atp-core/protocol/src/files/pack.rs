//! A local folder as one archive in the format of `tar`, to be copied into guests.
//!
//! The same folder always gives the same bytes, so that a copy that stopped is resumed by another process: names are
//! sorted, and users are left out, as the copy belongs to the agent's user.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};
use tempfile::TempPath;

use super::for_windows::ForWindows;
use crate::error::{FileError, Result};

/// Makes the archive of a folder, in a temporary file. Symbolic links are kept as they are, except one that is the folder
/// itself, which is followed. Returns as well what a Windows guest could not have of it. It blocks.
///
/// # Errors
/// [`FileError::Local`] with the path that cannot be read, or that is neither a file nor a folder nor a link.
pub(super) fn pack(folder: &Path) -> Result<(TempPath, ForWindows)> {
    let temporary = tempfile::Builder::new().prefix(".atp-").suffix(".tar").tempfile();
    let failed = |error| FileError::local("make the archive of a folder in", std::env::temp_dir(), error);
    let (file, path) = temporary.map_err(failed)?.into_parts();
    let mut archive = Builder::new(BufWriter::new(file));
    let mut windows = ForWindows::default();
    // Not a recursion: a folder may be deeper than a thread's stack.
    let mut left = vec![PathBuf::new()];
    while let Some(name) = left.pop() {
        let path = folder.join(&name);
        let failed = |error| FileError::local("copy", &path, error);
        let there = if name.as_os_str().is_empty() { fs::metadata(&path) } else { path.symlink_metadata() };
        let there = there.map_err(failed)?;
        append(&mut archive, &name, &path, &there).map_err(failed)?;
        windows.look(&name, there.is_symlink());
        if there.is_dir() {
            let children = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let mut names: Vec<_> =
                children.map_err(failed)?.into_iter().map(|child| name.join(child.file_name())).collect();
            // The last one is taken first.
            names.sort_unstable_by(|a, b| b.cmp(a));
            left.append(&mut names);
        }
    }
    let written = archive.into_inner().and_then(|mut writer| writer.flush());
    written.map_err(failed)?;
    Ok((path, windows))
}

fn append(archive: &mut Builder<impl Write>, name: &Path, path: &Path, there: &Metadata) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(there.mode() & 0o7777);
    header.set_mtime(there.mtime().try_into().unwrap_or_default());
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let kind = there.file_type();
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, Path::new("./").join(name).join(""), io::empty())
    } else if kind.is_symlink() {
        append_link(archive, header, name, fs::read_link(path)?.as_os_str().as_bytes())
    } else if kind.is_file() {
        // It may be a FIFO or a link by now.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(there.len());
        let mut content = Exactly { left: there.len(), file };
        archive.append_data(&mut header, name, &mut content)
    } else {
        Err(io::Error::other("it is neither a file nor a folder nor a symbolic link"))
    }
}

/// Appends a symbolic link with any target, unchanged: the crate would shorten `a//b`.
fn append_link(
    archive: &mut Builder<impl Write>,
    mut header: Header,
    name: &Path,
    target: &[u8],
) -> io::Result<()> {
    header.set_entry_type(EntryType::Symlink);
    if header.set_link_name_literal(target).is_err() {
        // A target that is too long for the header stands before it.
        let mut long = Header::new_gnu();
        long.set_path("@LongLink")?;
        long.set_mode(0o644);
        long.set_size(target.len() as u64 + 1);
        long.set_entry_type(EntryType::GNULongLink);
        long.set_cksum();
        archive.append(&long, target.chain(&[0][..]))?;
    }
    archive.append_data(&mut header, name, io::empty())
}

/// The bytes of a file, as many as its header has announced. One that has become longer is cut off; one that has become
/// shorter is an error.
struct Exactly {
    left: u64,
    file: File,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::files::unpack::check;

    #[test]
    fn the_same_folder_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("x"), name).unwrap();
        }
        let bytes = || fs::read(pack(folder.path()).unwrap().0).unwrap();
        let first = bytes();
        assert_eq!(first, bytes());
        fs::write(folder.path().join("c/x"), "changed").unwrap();
        assert_ne!(first, bytes());
    }

    #[test]
    fn what_is_neither_a_file_nor_a_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let error = pack(folder.path()).unwrap_err();
        assert_eq!(error.kind(), "local-file-error");
        assert!(error.to_string().ends_with("/socket"), "{error}");
    }

    #[test]
    fn tar_unpacks_names_and_targets_of_any_length() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let long = "n".repeat(120);
        let targets = ["a//b/.", "../../x", "/", &"t/".repeat(200)];
        fs::create_dir(from.path().join(&long)).unwrap();
        fs::write(from.path().join(&long).join(&long), "deep").unwrap();
        fs::set_permissions(from.path().join(&long).join(&long), fs::Permissions::from_mode(0o4711)).unwrap();
        for (number, target) in targets.iter().enumerate() {
            symlink(target, from.path().join(format!("{long}-{number}"))).unwrap();
        }
        let (archive, _) = pack(from.path()).unwrap();
        let mode = from.path().metadata().unwrap().mode() & 0o7777;
        assert_eq!(check(File::open(&archive).unwrap(), "it").unwrap().0, mode);
        let mut tar = std::process::Command::new("tar");
        assert!(tar.arg("-xopf").arg(&archive).arg("-C").arg(to.path()).status().unwrap().success());
        assert_eq!(fs::read(to.path().join(&long).join(&long)).unwrap(), b"deep");
        let mode = to.path().join(&long).join(&long).metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o4711);
        for (number, target) in targets.iter().enumerate() {
            let kept = fs::read_link(to.path().join(format!("{long}-{number}"))).unwrap();
            assert_eq!(kept.as_os_str(), *target);
        }
    }
}
