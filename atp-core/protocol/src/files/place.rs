//! A folder that was unpacked, put in its place on this machine: by one rename, or into the folder that is there.
//!
//! What is in that folder is not trusted, as others may write to it: no link in it is followed, nor replaced by a folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with, statat,
    syncfs,
};
use rustix::io::Errno;

use super::durable::{folder_of, sync_folder};
use super::unpack::{Folders, finish_folders, open_folder};
use crate::error::{FileError, ProtocolError, Result};

/// Refuses a destination that is there and is no folder, before the transfer begins.
pub(super) fn check_folder(destination: &Path) -> Result<()> {
    match fs::symlink_metadata(destination) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(there) if there.is_symlink() => Err(occupied(destination, "a symbolic link")),
        Ok(_) => Err(occupied(destination, "not a folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::local("write", destination, error)),
    }
}

/// Puts the folder `new`, which is open as `root`, at `destination`, beside it. If a folder is there, the files go into
/// it: a file replaces one of the same name, and what else is there stays. It blocks, for as long as the disk does, and asks when
/// all of it is on disk whether it may begin.
///
/// # Errors
/// [`FileError::Occupied`] with a path in the destination that a file or folder cannot replace: nothing was changed
/// then. [`FileError::Local`] for all else, after which a part may be in place.
pub(super) fn put_folder_in_place(
    new: &Path,
    root: &OwnedFd,
    folders: &Folders,
    destination: &Path,
    may_begin: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| FileError::local("write", destination, error);
    let errno = |error: Errno| failed(error.into());
    let above = File::open(folder_of(destination)).map_err(failed)?;
    syncfs(root).map_err(errno)?;
    may_begin()?;
    if check_folder(destination).is_ok() && fs::symlink_metadata(destination).is_err() {
        finish_folders(root, folders, |_| true).map_err(failed)?;
        match renameat_with(CWD, new, CWD, destination, RenameFlags::NOREPLACE) {
            Ok(()) => return sync_folder(&above, File::sync_all).map_err(failed),
            // A folder has come there since.
            Err(Errno::EXIST) => {}
            // Some filesystems have no such rename. What is there by now is replaced only if it is an empty folder.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::rename(new, destination).map_err(failed)?;
                return sync_folder(&above, File::sync_all).map_err(failed);
            }
            Err(error) => return Err(errno(error)),
        }
    }
    check_folder(destination)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = openat(CWD, destination, flags, Mode::empty()).map_err(errno)?;
    let merge = Merge { new: root, there: &there, destination };
    merge.walk(|_, _, _| Ok(()))?;
    let mut made = Vec::new();
    merge.walk(|parent, name, entry| {
        let path = parent.join(name);
        let (from, to) = merge.both(parent).map_err(|error| merge.failed(&path, error))?;
        let done = match entry {
            Kind::Folder { is_there: true } => Ok(()),
            Kind::Folder { is_there: false } => {
                made.push(path.as_os_str().as_bytes().to_vec());
                mkdirat(&to, name, Mode::RWXU)
            }
            Kind::File => renameat(&from, name, &to, name),
        };
        done.map_err(|error| merge.failed(&path, error))
    })?;
    made.sort_unstable();
    finish_folders(&there, folders, |path| made.binary_search_by(|made| made.as_slice().cmp(path)).is_ok())
        .map_err(failed)?;
    syncfs(&there).map_err(errno)
}

/// A folder that goes into another one.
struct Merge<'a> {
    new: &'a OwnedFd,
    there: &'a OwnedFd,
    destination: &'a Path,
}

/// What is to be put in place.
enum Kind {
    Folder { is_there: bool },
    File,
}

impl Merge<'_> {
    /// Goes through the new folder, a folder before what is in it, and calls `each` with the folder that an entry is in,
    /// its name, and what it is. An entry that something else stands in the way of is an error.
    fn walk(&self, mut each: impl FnMut(&Path, &OsStr, Kind) -> Result<()>) -> Result<()> {
        let mut left = vec![PathBuf::new()];
        while let Some(parent) = left.pop() {
            let failed = |error| self.failed(&parent, error);
            let from = open_folder(self.new, parts(&parent)).map_err(failed)?;
            let to = match open_folder(self.there, parts(&parent)) {
                Err(Errno::NOENT) => None,
                opened => Some(opened.map_err(failed)?),
            };
            let mut names = Vec::new();
            for entry in Dir::read_from(&from).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            for name in names {
                let path = parent.join(&name);
                let failed = |error| self.failed(&path, error);
                let new = statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                let is_folder = FileType::from_raw_mode(new.st_mode) == FileType::Directory;
                let found = match to.as_ref().map(|to| statat(to, &name, AtFlags::SYMLINK_NOFOLLOW)) {
                    None | Some(Err(Errno::NOENT)) => None,
                    Some(found) => Some(FileType::from_raw_mode(found.map_err(failed)?.st_mode)),
                };
                let kind = match (is_folder, found) {
                    (true, Some(FileType::Directory)) => Kind::Folder { is_there: true },
                    (true, None) => Kind::Folder { is_there: false },
                    (false, None | Some(FileType::RegularFile | FileType::Symlink)) => Kind::File,
                    (_, Some(found)) => return Err(occupied(&self.destination.join(&path), words(found))),
                };
                each(&parent, &name, kind)?;
                if is_folder {
                    left.push(path);
                }
            }
        }
        Ok(())
    }

    /// A folder in both, opened.
    fn both(&self, folder: &Path) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        Ok((open_folder(self.new, parts(folder))?, open_folder(self.there, parts(folder))?))
    }

    fn failed(&self, path: &Path, error: Errno) -> ProtocolError {
        FileError::local("write", self.destination.join(path), error.into())
    }
}

fn parts(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.iter().map(OsStr::as_bytes)
}

fn words(found: FileType) -> &'static str {
    match found {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::RegularFile => "a file",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}

fn occupied(path: &Path, found: &str) -> ProtocolError {
    FileError::Occupied { path: path.to_owned(), found: found.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        folders: Folders,
    }

    impl Scene {
        /// A folder `new` with `a/b/file`, `a/link` and `top`, and modes for its folders.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let new = folder.path().join("new");
            fs::create_dir_all(new.join("a/b")).unwrap();
            fs::write(new.join("a/b/file"), "new").unwrap();
            fs::write(new.join("top"), "new").unwrap();
            symlink("anywhere", new.join("a/link")).unwrap();
            let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let folders = ["", "a", "a/b"]
                .map(|path| (path.as_bytes().to_vec(), (Mode::from_raw_mode(0o550), times.clone())));
            Scene { folder, folders: folders.into() }
        }

        fn there(&self) -> PathBuf {
            self.folder.path().join("there")
        }

        fn put(&self) -> Result<()> {
            self.put_if(&|| Ok(()))
        }

        fn put_if(&self, may_begin: &dyn Fn() -> Result<()>) -> Result<()> {
            let new = self.folder.path().join("new");
            let root = OwnedFd::from(File::open(&new).unwrap());
            put_folder_in_place(&new, &root, &self.folders, &self.there(), may_begin)
        }

        fn mode(&self, path: &str) -> u32 {
            self.there().join(path).metadata().unwrap().mode() & 0o7777
        }

        fn assert_refused(&self, at: &str, found: &str) {
            let error = self.put().unwrap_err();
            let ProtocolError::File(FileError::Occupied { path, found: said }) = &error else {
                panic!("{error:?}");
            };
            assert_eq!((path.as_path(), said.as_str()), (self.there().join(at).as_path(), found));
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_there_in_one_step() {
        let scene = Scene::new();
        scene.put().unwrap();
        assert_eq!(fs::read(scene.there().join("a/b/file")).unwrap(), b"new");
        assert_eq!(["", "a", "a/b"].map(|path| scene.mode(path)), [0o550; 3]);
        assert_eq!(scene.there().join("a").metadata().unwrap().mtime(), 1_000_000_000);
        assert!(!scene.folder.path().join("new").exists());
    }

    #[test]
    fn files_go_into_the_folder_that_is_there() {
        let scene = Scene::new();
        fs::create_dir_all(scene.there().join("a")).unwrap();
        fs::set_permissions(scene.there().join("a"), fs::Permissions::from_mode(0o711)).unwrap();
        for name in ["a/kept", "top", "precious"] {
            fs::write(scene.there().join(name), "old").unwrap();
        }
        // A link in the place of a file is replaced, and not written through.
        symlink("../precious", scene.there().join("a/link")).unwrap();
        scene.put().unwrap();
        let read = |name| fs::read_to_string(scene.there().join(name)).unwrap();
        assert_eq!(["a/kept", "top", "a/b/file", "precious"].map(read), ["old", "new", "new", "old"]);
        assert_eq!(fs::read_link(scene.there().join("a/link")).unwrap(), Path::new("anywhere"));
        assert_eq!((scene.mode("a"), scene.mode("a/b")), (0o711, 0o550));
    }

    #[test]
    fn nothing_is_put_in_place_that_may_not_begin() {
        for is_there in [false, true] {
            let scene = Scene::new();
            if is_there {
                fs::create_dir(scene.there()).unwrap();
            }
            let late = || Err(FileError::local("write", "it", io::ErrorKind::TimedOut.into()));
            scene.put_if(&late).unwrap_err();
            let entries = fs::read_dir(scene.there()).map(Iterator::count).ok();
            assert_eq!(entries, is_there.then_some(0));
            assert!(scene.folder.path().join("new/a/b/file").exists());
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_refused_before_anything_changes() {
        for (at, found) in
            [("a", "a symbolic link"), ("a/b", "a file"), ("top", "a directory"), ("top", "a FIFO")]
        {
            let scene = Scene::new();
            let path = scene.there().join(at);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let outside = scene.folder.path().join("outside");
            fs::create_dir(&outside).unwrap();
            match found {
                "a symbolic link" => symlink(&outside, &path).unwrap(),
                "a file" => fs::write(&path, "old").unwrap(),
                "a directory" => fs::create_dir(&path).unwrap(),
                _ => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
            }
            scene.assert_refused(at, found);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
            assert!(!scene.there().join("a/b/file").exists());
        }
    }

    #[test]
    fn a_destination_that_is_no_folder_is_refused() {
        let scene = Scene::new();
        fs::write(scene.there(), "old").unwrap();
        scene.assert_refused("", "not a folder");
        fs::remove_file(scene.there()).unwrap();
        symlink(scene.folder.path(), scene.there()).unwrap();
        scene.assert_refused("", "a symbolic link");
    }
}
