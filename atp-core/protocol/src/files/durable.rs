//! Local files that survive a loss of power: their bytes and their names.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes a file and waits until it is on disk. Readers see either the old file at `path` or all of the new bytes.
/// Missing folders are created. A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// What failed. The file at `path` is then unchanged, unless the error says that the new file is in its place.
///
/// It blocks for as long as the disk needs.
pub fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_in_place_by(path, bytes, File::sync_all)
}

fn write_in_place_by(path: &Path, bytes: &[u8], sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let folder = folder_of(path);
    make_folder(folder, &sync)?;
    // A random name, which no other process can have used. The file is removed if a step fails.
    let mut unfinished = tempfile::Builder::new();
    unfinished.prefix(".atp-").suffix(".part").permissions(Permissions::from_mode(0o666));
    let (mut file, unfinished) = unfinished.tempfile_in(folder)?.into_parts();
    file.write_all(bytes)?;
    put_in_place(&file, &unfinished, path, sync)?;
    // No file is left under the old name that would have to be removed.
    unfinished.keep()?;
    Ok(())
}

/// Renames a complete file to `to`, in the same folder, and replaces the file there. Its bytes are on disk before the
/// rename, and its name is on disk when this returns. `sync` writes either to disk.
pub(super) fn put_in_place(
    file: &File,
    from: &Path,
    to: &Path,
    sync: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    // A folder that cannot be opened cannot be synced. This is checked while the old file is still in place.
    let folder = File::open(folder_of(to))?;
    sync(file)?;
    fs::rename(from, to)?;
    sync_folder(&folder, sync).map_err(|error| {
        let said = format!("it is in its place, but may be lost if the power fails: {error}");
        io::Error::new(error.kind(), said)
    })
}

/// Waits until the disk has the bytes of a file that was written, and its name. For what is not a regular file, such as a
/// pipe, there is nothing to wait for.
///
/// # Errors
/// The disk does not take them. The file is there, and may be gone after a loss of power.
///
/// It blocks, for as long as the disk does.
pub fn sync_written(file: &File, path: &Path) -> io::Result<()> {
    sync_written_by(file, path, File::sync_all)
}

fn sync_written_by(file: &File, path: &Path, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    sync(file)?;
    sync_folder(&File::open(folder_of(path))?, sync)
}

/// Creates a folder and its missing parents. The name of each is on disk when this returns.
pub(super) fn make_folder(folder: &Path, sync: &impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder);
    make_folder(above, sync)?;
    match fs::create_dir(folder) {
        // Another target's transfer may have created the same folder.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync_folder(&File::open(above)?, sync)
}

/// Some filesystems cannot sync a folder, and report it.
pub(super) fn sync_folder(folder: &File, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    match sync(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// The folder of a file.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    /// Records what was synced, and the file at a path at that time.
    struct Synced {
        path: PathBuf,
        seen: RefCell<Vec<(u64, String)>>,
    }

    impl Synced {
        fn watching(path: &Path) -> Self {
            Synced { path: path.to_owned(), seen: RefCell::default() }
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            let there = fs::read_to_string(&self.path).unwrap_or_default();
            self.seen.borrow_mut().push((file.metadata()?.ino(), there));
            Ok(())
        }
    }

    fn inode(path: &Path) -> u64 {
        path.metadata().unwrap().ino()
    }

    /// Fails for folders only.
    fn fail_for_folders(file: &File) -> io::Result<()> {
        if file.metadata()?.is_dir() { Err(ErrorKind::Other.into()) } else { Ok(()) }
    }

    #[test]
    fn of_a_file_that_was_written_the_bytes_and_the_name_are_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "written").unwrap();
        let synced = Synced::watching(&path);
        let file = File::open(&path).unwrap();
        sync_written_by(&file, &path, |file| synced.sync(file)).unwrap();
        let expected = [&path, folder.path()].map(|path| (inode(path), "written".to_owned()));
        assert_eq!(*synced.seen.borrow(), expected);
        assert!(sync_written_by(&file, &path, fail_for_folders).is_err());
        // A device cannot be synced, and need not be.
        sync_written_by(&File::open("/dev/null").unwrap(), "/dev/null".as_ref(), |_| panic!()).unwrap();
    }

    #[test]
    fn the_bytes_are_synced_before_the_rename_and_the_folder_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        let synced = Synced::watching(&path);
        write_in_place_by(&path, b"new", |file| synced.sync(file)).unwrap();
        let expected = [(inode(&path), "old".to_owned()), (inode(folder.path()), "new".to_owned())];
        assert_eq!(*synced.seen.borrow(), expected);
    }

    #[test]
    fn every_folder_that_is_made_is_synced_into_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/x");
        let synced = Synced::watching(&path);
        write_in_place_by(&path, b"new", |file| synced.sync(file)).unwrap();
        let synced: Vec<_> = synced.seen.into_inner().into_iter().map(|(inode, _)| inode).collect();
        let a = folder.path().join("a");
        assert_eq!(synced, [inode(folder.path()), inode(&a), inode(&path), inode(&a.join("b"))]);
        assert!(make_folder(&path.join("c"), &File::sync_all).is_err(), "there is a file in its way");
    }

    #[test]
    fn a_failed_sync_of_the_bytes_replaces_nothing_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        write_in_place_by(&path, b"new", |_| Err(ErrorKind::Other.into())).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_sync_of_the_folder_is_an_error_unless_folders_cannot_be_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let error = write_in_place_by(&path, b"new", fail_for_folders).unwrap_err();
        assert!(error.to_string().starts_with("it is in its place"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"new");
        for kind in [ErrorKind::InvalidInput, ErrorKind::Unsupported] {
            let cannot = |file: &File| fail_for_folders(file).map_err(|_| kind.into());
            write_in_place_by(&path, b"newer", cannot).unwrap();
        }
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("x"), folder.path().join("other"));
        fs::write(&other, "precious").unwrap();
        symlink(&other, &path).unwrap();
        write_in_place(&path, b"new").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&other).unwrap()),
            (b"new".into(), b"precious".into())
        );
    }
}
