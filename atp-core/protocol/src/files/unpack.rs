//! An archive that a guest made of a folder, unpacked below a folder of this machine, and nowhere else.
//!
//! The archive comes from the guest, which is not trusted: every path is walked from a descriptor of the folder, one
//! name at a time, without following a link. What would lead elsewhere, or is not a file, a folder or a link, is
//! refused by name ([`FileError::Refused`]).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat, openat, statat,
    symlinkat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType, Header};

use super::for_windows::ForWindows;
use crate::error::{FileError, ProtocolError, Result};
use crate::windows;

/// The longest path or target of a link, as the system has it.
const LONGEST: u64 = 4096;

/// The most names of a path. What removes folders has each of them open on its way down.
const DEEPEST: usize = 256;

/// The longest extended header: it has at most two paths, and numbers.
const LONGEST_EXTENSION: u64 = 64 << 10;

/// How a folder is opened: a link is not followed.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folders of an archive, by their paths, with their modes and times: they get them when nothing more is written
/// into them.
pub(super) type Folders = BTreeMap<Vec<u8>, (Mode, Timestamps)>;

/// Unpacks an archive below `root`, which is an empty folder of this process. `whole` is the folder's path in the
/// guest, for errors; a path of Windows says that the archive is from there. It blocks.
///
/// # Errors
/// [`FileError::Refused`] with the name of the entry; [`FileError::Local`] if it cannot be written. What was written by
/// then stays below `root`.
pub(super) fn unpack(archive: impl Read, root: &OwnedFd, whole: &str) -> Result<Folders> {
    let mut folders = Folders::new();
    // Windows has no such bits: its `tar` writes them for all users.
    let (is_windows, modes) = if windows::is_path(whole) { (true, 0o755) } else { (false, 0o777) };
    each(archive, whole, |entry, kind, path, target| {
        if is_windows && path.iter().any(|byte| matches!(byte, b'\\' | b':')) {
            return Err(refused(
                path,
                "a path with a backslash or a colon, which no file of Windows has in its name",
            ));
        }
        one(entry, kind, root, path, target, (modes, &mut folders))
    })?;
    Ok(folders)
}

/// Checks an archive that is to be unpacked by other programs below a folder: it has the order of those that are made here, so
/// that nothing in it is there twice or below a link, and only files, folders and symbolic links. Returns the mode of the folder,
/// and what a Windows guest could not have of it.
/// `whole` names the archive, for errors. It blocks.
///
/// # Errors
/// [`FileError::Refused`] with the name of the entry; [`FileError::Local`] if it cannot be read.
pub(super) fn check(archive: impl Read, whole: &str) -> Result<(u32, ForWindows)> {
    let (mut mode, mut windows) = (None, ForWindows::default());
    let (mut last, mut last_is_folder) = (PathBuf::new(), true);
    let rest = each(archive, whole, |entry, kind, path, _| {
        let names = parts(path).map_err(|found| refused(path, found))?;
        if !matches!(kind, EntryType::Directory | EntryType::Regular | EntryType::Symlink) {
            return Err(refused(path, "neither a file nor a folder nor a symbolic link"));
        }
        let is_folder = kind == EntryType::Directory;
        let here: PathBuf = names.into_iter().map(OsStr::from_bytes).collect();
        if mode.is_none() {
            if !is_folder || here != last {
                return Err(refused(path, "not the folder itself, which comes first"));
            }
            mode = Some(entry.header().mode().unwrap_or(0o700) & 0o7777);
            return Ok(());
        }
        // Folders come before what is in them, and names are sorted: what is above the last entry is a folder.
        let above = here.parent().unwrap_or(Path::new(""));
        let is_in_order = here > last
            && match last_is_folder {
                true => last.starts_with(above),
                false => last.parent().is_some_and(|open| open.starts_with(above)),
            };
        if !is_in_order {
            return Err(refused(
                path,
                "out of order: folders come before what is in them, and names are sorted",
            ));
        }
        windows.look(&here, kind == EntryType::Symlink);
        (last, last_is_folder) = (here, is_folder);
        Ok(())
    })?;
    // Programs disagree on what ends an archive.
    for byte in BufReader::new(rest).bytes() {
        if byte.map_err(|error| local(whole.as_bytes(), error))? != 0 {
            return Err(refused(whole.as_bytes(), "something after the end of the archive"));
        }
    }
    let mode = mode.ok_or_else(|| refused(whole.as_bytes(), "an empty archive"))?;
    Ok((mode, windows))
}

/// Calls `take` with each entry of an archive, its type, its path, and the target of a link. Returns what is behind its end.
fn each<R: Read>(
    archive: R,
    whole: &str,
    mut take: impl FnMut(&mut Entry<'_, R>, EntryType, &[u8], Option<Vec<u8>>) -> Result<()>,
) -> Result<R> {
    let malformed = |error: io::Error| refused(whole.as_bytes(), format!("not an archive: {error}"));
    let mut archive = Archive::new(archive);
    let mut names = Names::default();
    // Raw, as the crate would read headers of any length into memory.
    for entry in archive.entries().map_err(malformed)?.raw(true) {
        let mut entry = entry.map_err(malformed)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => names.path = Some(until_nul(text(&mut entry, LONGEST)?)),
            EntryType::GNULongLink => names.target = Some(until_nul(text(&mut entry, LONGEST)?)),
            EntryType::XHeader => names.extend(&text(&mut entry, LONGEST_EXTENSION)?)?,
            _ => {
                let Names { path, target } = std::mem::take(&mut names);
                let path = path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
                let target =
                    target.or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned));
                take(&mut entry, kind, &path, target)?;
            }
        }
    }
    Ok(archive.into_inner())
}

/// Gives folders their modes and times, those within others first. `only` says which of them.
pub(super) fn finish_folders(
    root: &OwnedFd,
    folders: &Folders,
    only: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    for (path, (mode, times)) in folders.iter().rev().filter(|(path, _)| only(path)) {
        let folder = open_folder(root, path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()))?;
        futimens(&folder, times)?;
        fchmod(&folder, *mode)?;
    }
    Ok(())
}

/// Opens a folder below another one, by its names.
pub(super) fn open_folder<'a>(
    root: &OwnedFd,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> rustix::io::Result<OwnedFd> {
    let mut folder = openat(root, ".", FOLDER, Mode::empty())?;
    for part in parts {
        folder = openat(&folder, OsStr::from_bytes(part), FOLDER, Mode::empty())?;
    }
    Ok(folder)
}

/// Names that stand before the header that they are for.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Names {
    /// Reads an extended header: records `LENGTH KEY=VALUE` and a line feed each.
    fn extend(&mut self, records: &[u8]) -> Result<()> {
        let malformed = || refused(b"an extended header", "malformed");
        let mut rest = records;
        while !rest.is_empty() {
            let space = rest.iter().position(|&byte| byte == b' ').ok_or_else(malformed)?;
            let length = std::str::from_utf8(&rest[..space]).ok().and_then(|digits| digits.parse().ok());
            let length: usize = length.filter(|length| *length > space + 1).ok_or_else(malformed)?;
            let (record, tail) = rest.split_at_checked(length).ok_or_else(malformed)?;
            rest = tail;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                // Programs disagree on which of two sizes counts, and a sparse file has holes that no header shows.
                b"size" => return Err(refused(b"an extended header", "one with a size")),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(refused(b"an extended header", "that of a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Unpacks one entry.
fn one(
    entry: &mut Entry<'_, impl Read>,
    kind: EntryType,
    root: &OwnedFd,
    path: &[u8],
    target: Option<Vec<u8>>,
    (modes, folders): (u32, &mut Folders),
) -> Result<()> {
    let parts = parts(path).map_err(|found| refused(path, found))?;
    let failed = |error: Errno| local(path, error.into());
    let Some((&name, above)) = parts.split_last() else {
        return match kind {
            EntryType::Directory => {
                folders.insert(Vec::new(), attributes(entry.header(), modes));
                Ok(())
            }
            _ => Err(refused(path, "not a folder, and has no name")),
        };
    };
    let folder = made_folder(root, above).map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => refused(path, "below a link or a file"),
        error => failed(error),
    })?;
    let name = OsStr::from_bytes(name);
    let taken = |error: Errno| match error {
        Errno::EXIST => refused(path, "there twice"),
        error => failed(error),
    };
    match kind {
        EntryType::Directory => {
            match mkdirat(&folder, name, Mode::RWXU) {
                Err(Errno::EXIST) => {
                    openat(&folder, name, FOLDER, Mode::empty()).map_err(|_| taken(Errno::EXIST))?;
                }
                made => made.map_err(failed)?,
            }
            folders.insert(parts.join(&b'/'), attributes(entry.header(), modes));
        }
        EntryType::Regular | EntryType::Continuous => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(taken)?;
            let (size, mut file) = (entry.size(), File::from(file));
            let written = io::copy(entry, &mut file).map_err(|error| local(path, error))?;
            if written != size {
                return Err(refused(path, format!("cut off after {written} of {size} bytes")));
            }
            let (mode, times) = attributes(entry.header(), modes);
            futimens(&file, &times).map_err(failed)?;
            fchmod(&file, mode).map_err(failed)?;
        }
        EntryType::Symlink => {
            let target = target.filter(|target| !target.is_empty() && target.len() as u64 <= LONGEST);
            let target = target.ok_or_else(|| refused(path, "a link without a valid target"))?;
            symlinkat(OsStr::from_bytes(&target), &folder, name).map_err(taken)?;
        }
        EntryType::Link => {
            let target = target.unwrap_or_default();
            let elsewhere = || {
                let target = String::from_utf8_lossy(&target).into_owned();
                refused(path, format!("a hard link to {target:?}, which is no file before it"))
            };
            let parts = self::parts(&target).map_err(|_| elsewhere())?;
            let (&first, above) = parts.split_last().ok_or_else(elsewhere)?;
            let first = OsStr::from_bytes(first);
            let there = open_folder(root, above.iter().copied()).map_err(|_| elsewhere())?;
            let found = statat(&there, first, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| elsewhere())?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(elsewhere());
            }
            linkat(&there, first, &folder, name, AtFlags::empty()).map_err(taken)?;
        }
        EntryType::Char | EntryType::Block => return Err(refused(path, "a device")),
        EntryType::Fifo => return Err(refused(path, "a FIFO")),
        EntryType::GNUSparse => return Err(refused(path, "a sparse file")),
        kind => return Err(refused(path, format!("of the type {:?}", char::from(kind.as_byte())))),
    }
    Ok(())
}

/// The names of a path, or what is wrong with it.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.starts_with(b"/") {
        return Err("an absolute path");
    }
    if path.len() as u64 > LONGEST || path.contains(&0) {
        return Err("not a valid path");
    }
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts = parts.map(|part| if part == b".." { Err("a path with '..'") } else { Ok(part) });
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    if parts.len() > DEEPEST { Err("a path of more than 256 folders") } else { Ok(parts) }
}

/// Opens a folder below another one, and makes what is missing of it.
fn made_folder(root: &OwnedFd, parts: &[&[u8]]) -> rustix::io::Result<OwnedFd> {
    let mut folder = openat(root, ".", FOLDER, Mode::empty())?;
    for part in parts.iter().map(|part| OsStr::from_bytes(part)) {
        folder = match openat(&folder, part, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => {
                mkdirat(&folder, part, Mode::RWXU)?;
                openat(&folder, part, FOLDER, Mode::empty())?
            }
            opened => opened?,
        };
    }
    Ok(folder)
}

/// The mode, of which only the bits `modes` are kept, and the time of change. A header that has none is that of a private file.
fn attributes(header: &Header, modes: u32) -> (Mode, Timestamps) {
    let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o600) & modes);
    let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or_default();
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    (mode, Timestamps { last_access: time, last_modification: time })
}

/// Reads an entry that is text, of at most this length.
fn text(entry: &mut Entry<'_, impl Read>, longest: u64) -> Result<Vec<u8>> {
    let name = entry.header().path_bytes().into_owned();
    if entry.size() > longest + 1 {
        return Err(refused(&name, format!("a header of {} bytes", entry.size())));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|error| local(&name, error))?;
    Ok(text)
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    text
}

fn refused(name: &[u8], found: impl Into<String>) -> ProtocolError {
    FileError::Refused { name: String::from_utf8_lossy(name).into_owned(), found: found.into() }.into()
}

fn local(path: &[u8], error: io::Error) -> ProtocolError {
    FileError::local("write", Path::new(OsStr::from_bytes(path)), error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// One entry as a hostile program would write it: names are not checked.
    fn entry(kind: EntryType, path: &str, target: &str, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
        [header.as_bytes().as_slice(), content, &padding].concat()
    }

    fn file(path: &str, content: &[u8]) -> Vec<u8> {
        entry(EntryType::Regular, path, "", content)
    }

    /// A folder that must not be written to, and one in it to unpack to.
    struct Place {
        outside: TempDir,
    }

    impl Place {
        fn new() -> Self {
            let outside = tempfile::tempdir().unwrap();
            fs::create_dir(outside.path().join("root")).unwrap();
            fs::create_dir(outside.path().join("precious")).unwrap();
            fs::write(outside.path().join("precious/file"), "precious").unwrap();
            Place { outside }
        }

        fn root(&self) -> PathBuf {
            self.outside.path().join("root")
        }

        fn unpack(&self, archive: &[Vec<u8>]) -> Result<Folders> {
            let root = OwnedFd::from(File::open(self.root()).unwrap());
            unpack(&*archive.concat(), &root, "/in/the/guest")
        }

        /// Asserts that an archive is refused for the entry with this name, and that nothing is written outside.
        fn assert_refused(&self, archive: &[Vec<u8>], name: &str, found: &str) {
            let error = self.unpack(archive).unwrap_err();
            let ProtocolError::File(FileError::Refused { name: named, found: said }) = &error else {
                panic!("{name}: {error:?}");
            };
            assert_eq!(named, name);
            assert!(said.contains(found), "{name}: {said}");
            assert_eq!((error.kind().as_str(), error.is_retryable()), ("archive-refused", false));
            self.assert_untouched();
        }

        fn assert_untouched(&self) {
            let mut names: Vec<_> =
                fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["precious", "root"]);
            let precious = self.outside.path().join("precious/file");
            assert_eq!(fs::read(&precious).unwrap(), b"precious");
            let metadata = precious.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.mode() & 0o111), (1, 0));
            assert_eq!(fs::read_dir(self.outside.path().join("precious")).unwrap().count(), 1);
        }
    }

    #[test]
    fn an_absolute_path_is_refused() {
        let place = Place::new();
        let path = place.outside.path().join("precious/file").display().to_string();
        place.assert_refused(&[file("a", b"x"), file(&path, b"x")], &path, "an absolute path");
        assert_eq!(fs::read(place.root().join("a")).unwrap(), b"x");
    }

    #[test]
    fn a_path_that_leads_upwards_is_refused() {
        for path in ["../precious/file", "..", "a/../../precious/file", "./../x", "a/.."] {
            Place::new().assert_refused(&[file(path, b"x")], path, "'..'");
            let folder = entry(EntryType::Directory, path, "", b"");
            Place::new().assert_refused(&[folder], path, "'..'");
            let long = entry(EntryType::GNULongName, "long", "", &[path.as_bytes(), b"\0"].concat());
            Place::new().assert_refused(&[long, file("harmless", b"x")], path, "'..'");
            let length = path.len() + "12 path=\n".len();
            let pax = entry(EntryType::XHeader, "pax", "", format!("{length} path={path}\n").as_bytes());
            Place::new().assert_refused(&[pax, file("harmless", b"x")], path, "'..'");
        }
    }

    #[test]
    fn a_name_that_no_file_of_windows_has_is_refused_in_an_archive_from_there() {
        for path in ["C:/Windows/x", "c:x", "a\\b", "..\\x", "./d/x:stream"] {
            let place = Place::new();
            let root = OwnedFd::from(File::open(place.root()).unwrap());
            let error = unpack(&*file(path, b"x"), &root, r"C:\dir").unwrap_err();
            assert!(error.to_string().contains("a backslash or a colon"), "{path}: {error}");
            assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
            // Elsewhere it is a name as any other.
            unpack(&*file(path, b"x"), &root, "/dir").unwrap();
        }
        Place::new().assert_refused(&[file("../x", b"x")], "../x", "'..'");
    }

    #[test]
    fn nothing_is_written_through_a_link_of_the_archive() {
        let link = |target: &str| entry(EntryType::Symlink, "link", target, b"");
        for target in ["../precious", "/", "."] {
            for kind in [EntryType::Regular, EntryType::Directory, EntryType::Symlink] {
                let through = entry(kind, "link/file", "x", b"");
                Place::new().assert_refused(&[link(target), through], "link/file", "below a link");
            }
        }
        let place = Place::new();
        let to_file = link("../precious/file");
        place.assert_refused(&[to_file.clone(), file("link", b"x")], "link", "there twice");
        let folder = entry(EntryType::Directory, "link", "", b"");
        Place::new().assert_refused(&[link("../precious"), folder], "link", "there twice");
        // The link itself is kept: nothing follows it here.
        assert_eq!(fs::read_link(place.root().join("link")).unwrap(), Path::new("../precious/file"));
    }

    #[test]
    fn a_hard_link_leads_to_a_file_of_the_archive_or_is_refused() {
        let hard = |target: &str| entry(EntryType::Link, "hard", target, b"");
        let place = Place::new();
        let precious = place.outside.path().join("precious/file").display().to_string();
        for target in [&precious, "../precious/file", "missing", "", "link/file", "soft", "."] {
            let links = [
                entry(EntryType::Symlink, "link", "../precious", b""),
                entry(EntryType::Symlink, "soft", "../precious/file", b""),
                hard(target),
            ];
            Place::new().assert_refused(&links, "hard", "a hard link");
        }
        place.unpack(&[file("a", b"x"), hard("./a")]).unwrap();
        assert_eq!(place.root().join("hard").metadata().unwrap().nlink(), 2);
    }

    #[test]
    fn devices_and_other_kinds_are_refused_by_name() {
        for (kind, found) in [
            (EntryType::Char, "a device"),
            (EntryType::Block, "a device"),
            (EntryType::Fifo, "a FIFO"),
            (EntryType::GNUSparse, "a sparse file"),
            (EntryType::XGlobalHeader, "'g'"),
            (EntryType::new(b'M'), "'M'"),
        ] {
            let place = Place::new();
            place.assert_refused(&[entry(kind, "dev/x", "", b"")], "dev/x", found);
        }
    }

    #[test]
    fn long_headers_and_cut_off_files_are_refused() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let long = entry(kind, "long", "", &vec![b'a'; 1 << 17]);
            Place::new().assert_refused(&[long], "long", "a header of 131072 bytes");
        }
        let whole = file("a", &[b'x'; 1024]);
        Place::new().assert_refused(&[whole[..1024].to_vec()], "a", "cut off after 512 of 1024");
        Place::new().assert_refused(&[file("", b"x")], "", "has no name");
        for text in ["11 size=99\n", "22 GNU.sparse.major=1\n", "99 path=x\n", "x", "2 "] {
            let pax = entry(EntryType::XHeader, "pax", "", text.as_bytes());
            Place::new().assert_refused(&[pax, file("a", b"x")], "an extended header", "");
        }
    }

    #[test]
    fn modes_times_and_links_are_kept() {
        let place = Place::new();
        let folders = place
            .unpack(&[
                entry(EntryType::Directory, "./", "", b""),
                entry(EntryType::Directory, "./d/", "", b""),
                file("./d/f", b"content"),
                entry(EntryType::Symlink, "./d/s", "a//b", b""),
                file("made/on/the/way", b""),
            ])
            .unwrap();
        let root = OwnedFd::from(File::open(place.root()).unwrap());
        finish_folders(&root, &folders, |_| true).unwrap();
        for path in ["", "d", "d/f"] {
            let metadata = place.root().join(path).metadata().unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o755, 1_000_000_000), "{path}");
        }
        assert_eq!(fs::read(place.root().join("d/f")).unwrap(), b"content");
        assert_eq!(fs::read_link(place.root().join("d/s")).unwrap().as_os_str(), "a//b");
        assert!(place.root().join("made/on/the/way").exists());
        place.assert_untouched();
        // A folder that was replaced by a link is not followed.
        fs::remove_dir_all(place.root().join("d")).unwrap();
        symlink("../precious", place.root().join("d")).unwrap();
        assert!(finish_folders(&root, &folders, |_| true).is_err());
    }

    proptest! {
        #[test]
        fn no_archive_writes_outside(
            entries in prop::collection::vec(
                ("[05126LKxg]", r"(\.\./|/|a|b|\./|//|\.\.){0,4}", r"(\.\./|/|a|b|precious/file){0,4}", "[ax\n= 0-9]{0,20}"),
                0..8,
            ),
        ) {
            let place = Place::new();
            let archive: Vec<_> = entries
                .iter()
                .map(|(kind, path, target, content)| {
                    entry(EntryType::new(kind.as_bytes()[0]), path, target, content.as_bytes())
                })
                .collect();
            let _ = place.unpack(&archive);
            place.assert_untouched();
        }
    }

    #[test]
    fn a_path_is_not_deeper_than_it_can_be_removed() {
        assert_eq!(parts("./".repeat(300).as_bytes()).unwrap().len(), 0);
        assert_eq!(parts("a/".repeat(DEEPEST).as_bytes()).unwrap().len(), DEEPEST);
        assert!(parts("a/".repeat(DEEPEST + 1).as_bytes()).unwrap_err().contains("256"));
    }

    #[test]
    fn an_archive_for_other_programs_is_in_order() {
        let folder = |path: &str| entry(EntryType::Directory, path, "", b"");
        let link = |path: &str| entry(EntryType::Symlink, path, "/etc", b"");
        let checked = |archive: &[Vec<u8>]| check(&*archive.concat(), "it");
        let end = vec![0; 1024];
        let good =
            [folder("./"), folder("./a/"), file("a/x", b"x"), link("a/y"), file("b", b""), end.clone()];
        assert_eq!(checked(&good).unwrap().0, 0o4755);
        let lone = vec![0; 512];
        for (archive, found) in [
            (vec![], "an empty archive"),
            (vec![file("a", b"")], "not the folder itself"),
            (vec![folder("./"), file("../a", b"")], "'..'"),
            (vec![folder("./"), file("/a", b"")], "absolute"),
            (vec![folder("./"), file("a/b", b"")], "out of order"),
            (vec![folder("./"), link("a"), file("a/b", b"")], "out of order"),
            (vec![folder("./"), link("a"), folder("a")], "out of order"),
            (vec![folder("./"), file("b", b""), file("a", b"")], "out of order"),
            (vec![folder("./"), folder("a"), file("b", b""), file("a/x", b"")], "out of order"),
            (vec![folder("./"), entry(EntryType::Link, "a", "b", b"")], "neither"),
            (vec![folder("./"), entry(EntryType::Char, "a", "", b"")], "neither"),
            (vec![folder("./"), lone, file("../a", b"")], "after the end"),
        ] {
            let error = checked(&archive).unwrap_err();
            let ProtocolError::File(FileError::Refused { found: said, .. }) = &error else {
                panic!("{found}: {error:?}");
            };
            assert!(said.contains(found), "{found}: {said}");
        }
    }
}
