//! Information about the guest's filesystem: one file, or the entries of a directory.

use serde::Serialize;
use tokio::time::Instant;

use super::script::{self, Script};
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};

/// The metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its type.
    pub kind: FileKind,
    /// Its size, bytes.
    pub size: u64,
    /// Its permission bits, including set-user-id, set-group-id and sticky: at most `0o7777`.
    pub mode: u32,
    /// When its content was last changed, seconds since 1970.
    pub modified: i64,
    /// The user id of its owner.
    pub uid: u32,
    /// The group id of its group.
    pub gid: u32,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a socket, a pipe.
    Other,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: any bytes but NUL and `/`.
    pub name: Vec<u8>,
    /// Its metadata. A symbolic link is not followed.
    pub info: FileInfo,
}

/// A function of PowerShell that describes a file as the format of `stat` in [`STAT`] does. A link is a reparse point.
macro_rules! windows_fact {
    () => {
        r"function fact($i){
$d=$i.PSIsContainer
$m=if($i.LinkType -eq 'SymbolicLink'){'a1ff'}elseif($d){'41ed'}else{'81a4'}
$s=if($d){0}else{$i.Length}
$t=[long][Math]::Floor(($i.LastWriteTimeUtc-[datetime]'1970-01-01').TotalSeconds)
return ($m,$s,$t,0,0) -join ' '
}"
    };
}

/// Type and mode in hexadecimal, size, time, owners.
///
/// Windows has neither modes nor numbers of users: a file is as one of root with the mode 0644, a directory with 0755.
pub(super) const STAT: Script = Script {
    posix: r#"[ -e "$1" ] || exit 3
stat -L -c '%f %s %Y %u %g' "$1""#,
    windows: concat!(
        windows_fact!(),
        r"
if(-not(Test-Path -LiteralPath $a[0])){exit 3}
say (fact (Get-Item -LiteralPath $a[0] -Force))"
    ),
};

/// Prints the names, each ended by NUL, and one empty name; then the output of `stat` for them, in the same order. Each
/// line of it ends with the name, because a file that is removed in between is missing there.
pub(super) const LIST: Script = Script {
    posix: r#"[ -e "$1" ] || exit 3
[ -d "$1" ] || exit 5
cd "$1" || exit
names() { for name in * .[!.]* ..?*; do
  if [ -e "./$name" ] || [ -L "./$name" ]; then printf '%s\0' "./$name"; fi
done; }
names
printf '\0'
names | xargs -0 -r stat -c '%f %s %Y %u %g %n'
exit 0"#,
    windows: concat!(
        windows_fact!(),
        r#"
if(-not(Test-Path -LiteralPath $a[0])){exit 3}
if(-not [IO.Directory]::Exists($a[0])){exit 5}
$all=@(Get-ChildItem -LiteralPath $a[0] -Force)
say ((($all|%{"./$($_.Name)`0"}) -join '')+"`0"+(($all|%{"$(fact $_) ./$($_.Name)`n"}) -join ''))"#
    ),
};

/// Returns the metadata of a path in the guest. Symbolic links are followed.
///
/// # Errors
/// [`FileError::NotFound`](super::FileError::NotFound), [`Guest`](super::FileError::Guest) for other messages of the
/// guest, and every error of running a program there. The effect of these errors is irrelevant: this only reads.
///
/// Dropping the future stops the wait.
pub async fn stat(carrier: &impl Carrier, path: &str, deadline: Instant) -> Result<FileInfo> {
    let stdout = script::run(carrier, STAT, &[path], "look at", deadline).await?;
    let line = stdout.strip_suffix(b"\n").unwrap_or(&stdout);
    match parse_info(line) {
        Some((info, b"")) => Ok(info),
        _ => Err(unreadable()),
    }
}

/// The entries of a directory in the guest, sorted by name. Files that are created or removed at the same time may be
/// missing.
///
/// # Errors
/// As [`stat`], and [`FileError::NotDirectory`](super::FileError::NotDirectory). About 20,000 names fit into a reply;
/// more are [`OutputTooLarge`](ProtocolError::OutputTooLarge).
///
/// Dropping the future stops the wait.
pub async fn list(carrier: &impl Carrier, path: &str, deadline: Instant) -> Result<Vec<Entry>> {
    let stdout = script::run(carrier, LIST, &[path], "list", deadline).await?;
    let mut entries = parse_list(&stdout).ok_or_else(unreadable)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn unreadable() -> ProtocolError {
    ProtocolError::invalid_answer("guest-exec", "the guest's `stat` does not print the requested format")
}

/// Parses the numbers at the beginning of a text.
fn parse_info(text: &[u8]) -> Option<(FileInfo, &[u8])> {
    let mut rest = text;
    let mut fields = [""; 5];
    for field in &mut fields {
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b'\n')).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        *field = std::str::from_utf8(word).ok()?;
        rest = tail.strip_prefix(b" ").unwrap_or(tail);
    }
    let [mode, size, modified, uid, gid] = fields;
    let mode = u32::from_str_radix(mode, 16).ok()?;
    let kind = match mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let info = FileInfo {
        kind,
        size: size.parse().ok()?,
        mode: mode & 0o7777,
        modified: modified.parse().ok()?,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    };
    Some((info, rest))
}

/// Parses the output of the `LIST` script.
fn parse_list(stdout: &[u8]) -> Option<Vec<Entry>> {
    let mut names = Vec::new();
    let mut rest = stdout;
    loop {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (name, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        if name.is_empty() {
            break;
        }
        names.push(name);
    }
    let mut entries = Vec::with_capacity(names.len());
    let mut names = names.into_iter();
    while !rest.is_empty() {
        let (info, tail) = parse_info(rest)?;
        // A name may contain line feeds: only the list of names shows where it ends.
        let name = names.find(|name| tail.strip_prefix(*name).is_some_and(|tail| tail.starts_with(b"\n")))?;
        rest = &tail[name.len() + 1..];
        let name = name.strip_prefix(b"./")?;
        // The name may be used in a local path: a guest must not be able to choose another folder.
        if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
            return None;
        }
        entries.push(Entry { name: name.to_vec(), info });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::super::script::HEAD;
    use super::*;

    /// Runs a guest script on this machine.
    fn here(script: &str, path: &std::path::Path) -> std::process::Output {
        Command::new("/bin/sh").args(["-c", script, "sh"]).arg(path).output().unwrap()
    }

    #[test]
    fn the_output_of_real_tools_is_parsed() {
        let folder = tempfile::tempdir().unwrap();
        let names: [&[u8]; 9] = [
            b"plain",
            b"with space",
            b"-n",
            b"line\nfeed",
            b"\xff\xfe",
            b".hidden",
            b"..twice",
            b"quo'te\"$x`",
            b"*",
        ];
        for name in names {
            fs::write(folder.path().join(OsStr::from_bytes(name)), name).unwrap();
        }
        fs::create_dir(folder.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        let special = fs::Permissions::from_mode(0o4750);
        fs::set_permissions(folder.path().join("plain"), special).unwrap();

        let output = here(&format!("{HEAD}{}", LIST.posix), folder.path());
        assert_eq!(output.stderr, b"", "{}", String::from_utf8_lossy(&output.stderr));
        let entries = parse_list(&output.stdout).unwrap();
        let find = |name: &[u8]| entries.iter().find(|entry| entry.name == name).map(|entry| entry.info);
        for name in names {
            let info = find(name).unwrap();
            assert_eq!((info.kind, info.size), (FileKind::File, name.len() as u64), "{name:?}");
        }
        assert_eq!(find(b"plain").unwrap().mode, 0o4750);
        assert_eq!(find(b"folder").unwrap().kind, FileKind::Directory);
        assert_eq!(find(b"link").unwrap().kind, FileKind::Symlink);
        assert_eq!(entries.len(), names.len() + 2);

        let one = here(&format!("{HEAD}{}", STAT.posix), &folder.path().join("plain"));
        let (info, rest) = parse_info(&one.stdout).unwrap();
        assert_eq!((info, rest), (find(b"plain").unwrap(), &b"\n"[..]));
    }

    #[test]
    fn an_empty_directory_has_no_entries() {
        let folder = tempfile::tempdir().unwrap();
        let output = here(&format!("{HEAD}{}", LIST.posix), folder.path());
        assert_eq!(parse_list(&output.stdout), Some(Vec::new()), "{output:?}");
        assert_eq!(here(LIST.posix, &folder.path().join("no")).status.code(), Some(3));
        assert_eq!(here(STAT.posix, &folder.path().join("no")).status.code(), Some(3));
        fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(here(LIST.posix, &folder.path().join("file")).status.code(), Some(5));
    }

    #[test]
    fn a_guest_cannot_name_files_in_other_folders() {
        for name in ["", ".", "..", "../x", "a/b"] {
            let text = format!("./{name}\0\081a4 7 1 0 0 ./{name}\n");
            assert_eq!(parse_list(text.as_bytes()), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn names_with_any_bytes_are_separated(
            names in prop::collection::btree_set(
                prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b'7'), 1..=255_u8], 1..6), 0..6),
            gone in any::<prop::sample::Index>(),
        ) {
            let is_name = |name: &Vec<u8>| !name.contains(&b'/') && name != b"." && name != b"..";
            let names: Vec<_> = names.into_iter().filter(is_name).collect();
            let mut text = Vec::new();
            for name in &names {
                text.extend([b"./", name.as_slice(), b"\0"].concat());
            }
            text.push(0);
            // One file may be removed in between, as long as the result is unambiguous.
            let gone = gone.index(names.len() + 1);
            let seen: Vec<_> = names.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, name)| name).collect();
            for name in &seen {
                text.extend([b"81a4 7 -1 0 0 ./", name.as_slice(), b"\n"].concat());
            }
            let unclear = names.get(gone).is_some_and(|gone| {
                names.iter().any(|name| name != gone && name.starts_with(&[gone.as_slice(), b"\n"].concat()))
            });
            if !unclear {
                let entries = parse_list(&text).unwrap();
                prop_assert_eq!(entries.iter().map(|entry| &entry.name).collect::<Vec<_>>(), seen);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), tail in "[0-9a-f ./\n]{0,40}") {
            let _ = parse_list(&bytes);
            let _ = parse_info(&bytes);
            let _ = parse_list(format!("./a\0./b\0\0{tail}").as_bytes());
        }
    }
}
