//! Copies a file from this machine into a guest.

use std::fmt;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atp_transport::Effect;
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::time::Instant;

use super::checksum;
use super::for_windows::{ForWindows, problem_of};
use super::handle::{Writer, write_size};
use super::pack::pack;
use super::script::{self, Script, folders_of_windows, run_tar_on_windows, watch_tar};
use super::unpack::check;
use super::{Progress, TransferPolicy, blocking};
use crate::carrier::Carrier;
use crate::digest::Digest;
use crate::error::FileError;
use crate::error::{ProtocolError, Result};
use crate::windows;

/// Creates the partial file that ends in `$3` beside the destination `t`, readable by its owner only. Prints both paths, each
/// ended by NUL, and the size of the partial file.
///
/// The name of the partial file can be guessed, and the folder may be one that others write to, as `/tmp` is. So the file is
/// made only if nothing is at that name (`set -C` opens with `O_EXCL`, which follows no link), and what is there is refused if
/// it is not a regular file of the agent's user with one name (exit code [`OCCUPIED`]): a link, or a second name, may lead to
/// a file of the system. `ls -n` prints the type, the number of names and the owner first, on every system.
macro_rules! make_partial {
    () => {
        r#"folder=${t%/*}/
[ -d "$folder" ] || exit 3
part=$folder.atp-$3.part
[ -e "$part" ] || [ -L "$part" ] || (umask 077 && set -C && : >"$part") || exit 1
own=$(id -u) && found=$(ls -nd "$part") || exit 1
is_own() { case $1/$2/$3 in -*/1/"$own") ;; *) return 1;; esac; }
set -f
is_own $found || { printf '%s' "$part"; exit 8; }
printf '%s\0%s\0' "$t" "$part"
wc -c <"$part""#
    };
}

/// The same on Windows, beside the destination `$t` in the folder `$d`: a folder or a reparse point at the name is refused.
macro_rules! make_partial_on_windows {
    () => {
        r#"if(Test-Path -LiteralPath $p){
if(([int](Get-Item -LiteralPath $p -Force).Attributes -band 0x410) -ne 0){say $p;exit 8}
}else{[IO.File]::Open($p,'CreateNew','Write','None').Close()}
say "$t`0$p`0$((New-Object IO.FileInfo $p).Length)""#
    };
}

/// Determines the destination of a file, `$1`, or `$2` in that folder, and creates the partial file.
pub(super) const PREPARE: Script = Script {
    posix: concat!(
        r#"t=$1
[ ! -L "$t" ] || t=$(readlink -f "$t") || exit 3
[ ! -d "$t" ] || t=${t%/}/$2
[ ! -d "$t" ] || exit 4
case $t in */) exit 3;; esac
"#,
        make_partial!()
    ),
    windows: concat!(
        r#"$t=$a[0]
if([IO.Directory]::Exists($t)){
if($a[1].IndexOfAny([IO.Path]::GetInvalidFileNameChars()) -ge 0){throw "$($a[1]) is no name of a file on Windows"}
$t=[IO.Path]::Combine($t,$a[1])
}
if([IO.Directory]::Exists($t)){exit 4}
if($t -match '[\\/]$'){exit 3}
$d=[IO.Path]::GetDirectoryName($t)
if(-not [IO.Directory]::Exists($d)){exit 3}
$p=[IO.Path]::Combine($d,".atp-$($a[2]).part")
"#,
        make_partial_on_windows!()
    ),
};

/// Determines the destination of a folder, `$1`, or `$2` in that folder, and creates the partial file of its archive. What is
/// there and is no folder, or a link to one, is not written to.
///
/// On Windows `$a[3]` is the length of the longest path in it, which has to fit beside the destination, and below it; and `$a[4]` what
/// is wrong with the name `$a[1]`, if something is.
pub(super) const PREPARE_FOLDER: Script = Script {
    posix: concat!(
        r#"t=$1
[ "$t" = / ] || t=${t%/}
[ ! -L "$t" ] || t=$(readlink -f "$t") || exit 3
[ ! -d "$t" ] || t=${t%/}/$2
[ ! -L "$t" ] || exit 5
[ ! -e "$t" ] || [ -d "$t" ] || exit 5
command -v tar >/dev/null 2>&1 || exit 11
"#,
        make_partial!()
    ),
    windows: concat!(
        folders_of_windows!(),
        r#"$t=[IO.Path]::GetFullPath($a[0])
if([IO.Directory]::Exists($t)){
if($a[4]){throw "$($a[1]): $($a[4])"}
$t=[IO.Path]::Combine($t,$a[1])
}else{$t=$t.TrimEnd('\')}
if(is_link $t){say $t;exit 12}
if([IO.File]::Exists($t)){exit 5}
$d=[IO.Path]::GetDirectoryName($t)
if(-not [IO.Directory]::Exists($d)){exit 3}
if(-not [IO.File]::Exists($tar)){exit 11}
$p=[IO.Path]::Combine($d,".atp-$($a[2]).part")
if(([Math]::Max($p.Length+16,$t.Length+1)+[int]$a[3]) -gt 247){throw 'a path in it would have more than 247 characters there'}
"#,
        make_partial_on_windows!()
    ),
};

/// The exit code if something else than a partial file is at its name, whose path is printed.
const OCCUPIED: i32 = 8;

/// The exit code if a link, or another reparse point of Windows, is at the name of a folder, whose path is printed.
const LINK: i32 = 12;

/// Empties a file, and nothing that a link leads to.
pub(super) const EMPTY: Script = Script {
    posix: r#"[ ! -L "$1" ] && : >"$1""#,
    windows: r"if(([int](Get-Item -LiteralPath $a[0] -Force).Attributes -band 0x410) -ne 0){exit 1}
[IO.File]::Open($a[0],'Truncate','Write','None').Close()",
};

/// Gives the partial file `$1` the mode `$3` and the name `$2`, if that is still not a folder. Both names are in one
/// folder, so `mv` only renames. On Windows there is no such mode, and a file that is replaced passes its permissions on;
/// `ReplaceFile` may fail when it has removed the old file already, so it is looked at what is there.
pub(super) const FINISH: Script = Script {
    posix: r#"[ ! -d "$2" ] || exit 4
chmod "$3" "$1" && mv -f "$1" "$2""#,
    windows: r"if([IO.Directory]::Exists($a[1])){exit 4}
$old=[IO.File]::Exists($a[1])
try{if($old){[IO.File]::Replace($a[0],$a[1],[NullString]::Value)}else{[IO.File]::Move($a[0],$a[1])}}
catch{
complain ($_.Exception.GetBaseException().Message)
if([IO.File]::Exists($a[0]) -and ($old -eq [IO.File]::Exists($a[1]))){exit 9}
exit 7
}",
};

/// The exit codes of the last step that mean that nothing was replaced: `chmod` or `mv` failed, or the name is a
/// folder. With any other code the shell or `mv` was killed, possibly after the rename.
const NOT_REPLACED: [i32; 2] = [1, 4];
/// The same on Windows, where a program that is ended by another one has the exit code 1 as well.
const NOT_REPLACED_ON_WINDOWS: [i32; 2] = [9, 4];

/// Unpacks the archive `$1` into a new folder, whose name begins with `$3`, prints its path, and looks for what its entries
/// cannot replace in the folder `$2`, if that is there: the first one is printed, with the exit code [`OCCUPIED`]. Nothing else is
/// changed. An archive that cannot be unpacked is removed, as it may be what fills the disk. In `$4` seconds the folder is
/// removed, if [`PLACE`] has not begun by then, and `tar` ends; what an earlier copy left is removed at once.
///
/// The archive was verified, and has no entry below a link, as it was made of a folder.
///
/// On Windows the new folder stays until the next copy if [`PLACE`] does not begin. The archive is named relative to it, as `tar.exe`
/// takes words in the system's code page; files that its mode makes read-only are made writable, as it has no other bits of it.
/// Links and other reparse points are not replaced, nor read-only files, which `File.Replace` refuses.
pub(super) const EXTRACT: Script = Script {
    posix: concat!(
        r#"own=$3.$$
rm -rf "$3".*
(umask 077; mkdir "$own" "$own/new") || exit 1
tar -xopf "$1" -C "$own/new" >"$own/said" 2>&1 </dev/null & tar=$!
"#,
        watch_tar!("$4"),
        r#"[ $code = 0 ] || {
  if [ -d "$own" ] && [ $code -lt 128 ]; then head -n 1 "$own/said" >&2; rm -f "$1"
  else echo 'tar was ended before it had unpacked all' >&2; fi
  rm -rf "$own"
  exit 1
}
check() { for name in "$1"/* "$1"/.[!.]* "$1"/..?*; do
  [ -e "$name" ] || [ -L "$name" ] || continue
  to=$2/${name##*/}
  [ -e "$to" ] || [ -L "$to" ] || continue
  if [ -d "$name" ] && [ ! -L "$name" ]; then
    if [ -d "$to" ] && [ ! -L "$to" ]; then check "$name" "$to" || return; continue; fi
  elif [ -L "$to" ] || [ -f "$to" ]; then continue
  fi
  printf '%s' "$to"
  return 1
done; }
[ ! -d "$2" ] || check "$own/new" "$2" || { rm -rf "$own"; exit 8; }
printf '%s' "$own""#
    ),
    windows: concat!(
        folders_of_windows!(),
        r#"function find_other($from,$to){
foreach($i in (New-Object IO.DirectoryInfo $from).GetFileSystemInfos()){
$x=[int]$i.Attributes;$d=(($x -band 0x10) -ne 0);$n=[IO.Path]::Combine($to,$i.Name)
if(($x -band 0x400) -ne 0){throw "$($i.FullName) is a link"}
if(($x -band 1) -ne 0){$i.Attributes='Normal'}
if(is_there $n){
$y=[int][IO.File]::GetAttributes($n)
if((($y -band 0x400) -ne 0) -or ((($y -band 0x10) -ne 0) -ne $d)){return $n}
if((-not $d) -and (($y -band 1) -ne 0)){return $n}
}
if($d){
$found=find_other $i.FullName $n
if($found){return $found}
}
}
}
$own="$($a[2]).$PID";$place="$own\new";$seconds=$a[3]
foreach($old in [IO.Directory]::GetDirectories([IO.Path]::GetDirectoryName($own),[IO.Path]::GetFileName($a[2])+'.*')){take_away $old}
if(is_there $own){throw "$own is there already"}
[void][IO.Directory]::CreateDirectory($place)
$words='--options hdrcharset=UTF-8 -xf "..\..\'+[IO.Path]::GetFileName($a[0])+'"'
"#,
        run_tar_on_windows!(),
        r"if($why){
tidy $own
if(-not $ended){try{[IO.File]::Delete($a[0])}catch{}}
complain $why
exit 1
}
$found=''
try{$found=find_other $place $a[1]}catch{$why=$_.Exception.GetBaseException().Message}
if($why){tidy $own;complain $why;exit 1}
if($found){tidy $own;say $found;exit 8}
say $own"
    ),
};

/// Gives the unpacked folder `$3/new` the mode `$4` and the name `$2`. If a folder is there, its files are moved into that one, a
/// link is replaced and not followed, and what else is there stays. Removes `$3`, which gets another name first so that it is no
/// longer removed when its time has passed, and the archive `$1`. As [`FINISH`], it exits with 1 if nothing was replaced, and with
/// another code if a part may have been. On Windows there is no mode, the name stays, and a folder is moved again for a second if
/// another program, such as a scanner for viruses, has one of its new files open.
pub(super) const PLACE: Script = Script {
    posix: r#"merge() { for name in "$1"/* "$1"/.[!.]* "$1"/..?*; do
  [ -e "$name" ] || [ -L "$name" ] || continue
  to=$2/${name##*/}
  if [ -d "$name" ] && [ ! -L "$name" ]; then
    [ ! -L "$to" ] || return
    if [ -d "$to" ]; then merge "$name" "$to" || return; continue; fi
  elif [ -L "$to" ]; then rm -f "$to" || return
  elif [ -d "$to" ]; then return 1
  fi
  mv -f "$name" "$to" || return
done; }
own=$3.placed new=$3.placed/new
mv "$3" "$own" || exit 1
if [ -e "$2" ] || [ -L "$2" ]; then
  [ -d "$2" ] && [ ! -L "$2" ] || { rm -rf "$own"; exit 1; }
  merge "$new" "$2" || exit 7
else
  chmod "$4" "$new" && mv "$new" "$2" || { rm -rf "$own"; exit 1; }
fi
rm -rf "$1" "$own"
exit 0"#,
    windows: concat!(
        folders_of_windows!(),
        r#"function move_folder($from,$to){
$left=4
while($true){
try{[IO.Directory]::Move($from,$to);return}
catch{
$left=$left-1
if(($left -le 0) -or (is_there $to)){throw}
}
Start-Sleep -Milliseconds 250
}
}
function merge($from,$to){
foreach($i in (New-Object IO.DirectoryInfo $from).GetFileSystemInfos()){
$d=(([int]$i.Attributes -band 0x10) -ne 0);$n=[IO.Path]::Combine($to,$i.Name)
if(is_link $n){throw "$n is a link or another reparse point"}
if($d -and [IO.Directory]::Exists($n)){merge $i.FullName $n}
elseif($d){move_folder $i.FullName $n}
elseif([IO.File]::Exists($n)){[IO.File]::Replace($i.FullName,$n,[NullString]::Value)}
else{[IO.File]::Move($i.FullName,$n)}
}
}
$t=$a[1];$own=$a[2];$new="$own\new"
if(-not [IO.Directory]::Exists($new)){complain "$new is not there any more";exit 9}
if((is_link $t) -or [IO.File]::Exists($t)){tidy $own;complain "$t is not a folder any more";exit 9}
if([IO.Directory]::Exists($t)){
try{merge $new $t}catch{complain ($_.Exception.GetBaseException().Message);exit 7}
}else{
try{move_folder $new $t}
catch{
complain ($_.Exception.GetBaseException().Message)
if([IO.Directory]::Exists($new) -and (-not (is_there $t))){tidy $own;exit 9}
exit 7
}
}
tidy $own
try{[IO.File]::Delete($a[0])}catch{}
exit 0"#
    ),
};

/// Removes a file, or a folder.
pub(super) const REMOVE: Script = Script { posix: r#"rm -rf "$1""#, windows: r"[IO.File]::Delete($a[0])" };

/// A file to be copied into guests: examined once, sent any number of times.
#[derive(Clone)]
pub struct Source {
    content: Content,
    name: String,
    size: u64,
    mode: u32,
    digest: Digest,
    /// What a Windows guest could not have of a folder.
    windows: ForWindows,
}

#[derive(Debug, Clone)]
enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
    /// The archive of a folder.
    Folder(Arc<TempPath>),
    /// An archive of a folder that is there.
    Archive(PathBuf),
}

/// The fields that journals of before there were schemas have a hash of.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { content, name, size, mode, digest, windows: _ } = self;
        let mut debug = f.debug_struct("Source");
        debug.field("content", content).field("name", name).field("size", size);
        debug.field("mode", mode).field("digest", digest).finish()
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        // The digest is that of the content.
        let facts = |source: &Source| (source.size, source.mode, source.digest, source.is_folder());
        self.name == other.name && facts(self) == facts(other)
    }
}

impl Eq for Source {}

impl Source {
    /// Opens a local file and reads it once for its digest. If it changes before it is sent, the copy in the guest
    /// fails the verification.
    ///
    /// # Errors
    /// [`FileError::Local`] if it cannot be read, or is not a regular file.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let path = path.into();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let looked_at = path.clone();
        let metadata = blocking(move || {
            std::fs::metadata(&looked_at).map_err(|error| FileError::local("read", looked_at, error))
        })
        .await?;
        if metadata.is_dir() {
            return Err(FileError::LocalDirectory { path }.into());
        }
        if !metadata.is_file() {
            let error = std::io::Error::other("it is not a regular file");
            return Err(FileError::local("copy", path, error));
        }
        let (size, mode) = (metadata.size(), metadata.mode() & 0o7777);
        let digest = Digest::finish(checksum::of_local(&path, size).await?);
        Ok(Source { content: Content::File(path), name, size, mode, digest, windows: ForWindows::default() })
    }

    /// Opens a local folder, or a file, as [`open`](Self::open) does. The archive of a folder is made once, in a temporary
    /// file that is removed with the source.
    ///
    /// # Errors
    /// [`FileError::Local`] with the path that cannot be read, or is neither a file nor a folder nor a symbolic link.
    pub async fn open_recursive(path: impl Into<PathBuf>) -> Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let path = path.into();
        let folder = path.clone();
        let packed = blocking(move || {
            let failed = |error| FileError::local("copy", &folder, error);
            let metadata = std::fs::metadata(&folder).map_err(failed)?;
            if !metadata.is_dir() {
                return Ok(None);
            }
            // `.` and `..` have names too.
            let name = folder.canonicalize().map_err(failed)?.file_name().map(ToOwned::to_owned);
            let (archive, windows) = pack(&folder)?;
            let size = archive.metadata().map_err(failed)?.len();
            Ok(Some((archive, windows, name.unwrap_or_default(), size, metadata.mode() & 0o7777)))
        });
        let Some((archive, windows, name, size, mode)) = packed.await? else {
            return Source::open(path).await;
        };
        let digest = Digest::finish(checksum::of_local(&archive, size).await?);
        let (content, name) = (Content::Folder(Arc::new(archive)), name.to_string_lossy().into_owned());
        Ok(Source { content, name, size, mode, digest, windows })
    }

    /// Opens the archive of a folder, in the format of `tar`, as [`open_recursive`](Self::open_recursive) makes it: of the folder
    /// itself first, and sorted. The folder has the name of the archive, without an ending.
    ///
    /// # Errors
    /// [`FileError::Local`] if it cannot be read; [`FileError::Refused`] with the name of an entry that has no place in it.
    pub async fn open_archive(path: impl Into<PathBuf>) -> Result<Self> {
        let opened = Source::open(path).await?;
        let Content::File(path) = opened.content else { return Ok(opened) };
        let archive = path.clone();
        let checked = blocking(move || {
            let file =
                std::fs::File::open(&archive).map_err(|error| FileError::local("read", &archive, error))?;
            check(std::io::BufReader::new(file), &archive.display().to_string())
        });
        let (mode, windows) = checked.await?;
        Ok(Source { mode, windows, content: Content::Archive(path), ..opened })
    }

    /// Whether it is a folder. Its size and its digest are those of its archive.
    pub fn is_folder(&self) -> bool {
        self.archive().is_some()
    }

    /// The archive of a folder, which is there as long as this is.
    pub fn archive(&self) -> Option<&Path> {
        match &self.content {
            Content::Folder(archive) => Some(archive),
            Content::Archive(archive) => Some(archive),
            Content::File(_) | Content::Bytes(_) => None,
        }
    }

    /// The name that it gets in a folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates a source from bytes in memory, with the permission bits of the file. `name` is its name if the
    /// destination is a folder.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        let bytes = bytes.into();
        let (size, digest) = (bytes.len() as u64, Digest::of(&bytes));
        let (content, windows) = (Content::Bytes(bytes), ForWindows::default());
        Source { content, name: name.into(), size, mode: mode & 0o7777, digest, windows }
    }

    /// Its size, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its SHA-256.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    async fn prefix_digest(&self, length: u64) -> Result<Digest> {
        match &self.content {
            Content::File(path) => Ok(Digest::finish(checksum::of_local(path, length).await?)),
            Content::Folder(archive) => Ok(Digest::finish(checksum::of_local(archive, length).await?)),
            Content::Archive(archive) => Ok(Digest::finish(checksum::of_local(archive, length).await?)),
            Content::Bytes(bytes) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Digest::of(&bytes[..length]))
            }
        }
    }

    async fn open_at(&self, offset: u64) -> Result<Opened<'_>> {
        let path: &Path = match &self.content {
            Content::File(path) => path,
            Content::Folder(archive) => archive,
            Content::Archive(archive) => archive,
            Content::Bytes(bytes) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(Opened::Bytes(&bytes[offset..]));
            }
        };
        let failed = |error| FileError::local("read", path, error);
        let mut file = File::open(path).await.map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
        Ok(Opened::File(file, path))
    }
}

enum Opened<'a> {
    File(File, &'a Path),
    Bytes(&'a [u8]),
}

impl Opened<'_> {
    /// The next bytes: `count`, or fewer at the end.
    async fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        match self {
            Opened::File(file, path) => {
                let mut bytes = Vec::with_capacity(count);
                let mut limited = file.take(count as u64);
                limited
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(|error| FileError::local("read", *path, error))?;
                Ok(bytes)
            }
            Opened::Bytes(rest) => {
                let (bytes, tail) = rest.split_at(count.min(rest.len()));
                *rest = tail;
                Ok(bytes.to_vec())
            }
        }
    }
}

/// A complete copy in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its path in the guest.
    pub path: String,
    /// Its size, bytes.
    pub size: u64,
    /// The number of bytes that an earlier run had copied.
    pub resumed_at: u64,
    /// Its SHA-256, computed in the guest.
    pub digest: Digest,
}

/// The transfer of a [`Source`] into one guest.
///
/// The file has the source's permission bits and belongs to the agent's user. It replaces the old file in one step when
/// it is complete and verified; until then the old file is unchanged. Windows guests keep no such bits; a folder with what they
/// cannot have is refused before anything is sent.
#[derive(Debug)]
pub struct Push {
    source: Arc<Source>,
    destination: String,
    policy: TransferPolicy,
    writer: Option<Writer>,
}

/// The paths in the guest.
struct Places {
    destination: String,
    partial: String,
    there: u64,
}

impl Push {
    /// Creates a transfer to an absolute path in the guest, or into the folder with that path.
    pub fn new(source: Arc<Source>, destination: impl Into<String>, policy: TransferPolicy) -> Self {
        Push { source, destination: destination.into(), policy, writer: None }
    }

    /// Copies the file, by `deadline` at the latest, and reports the progress after each chunk.
    ///
    /// After an error it can be run again, over the same carrier or another one. It resumes if the partial file is the
    /// beginning of the source.
    ///
    /// # Errors
    /// A [`FileError`]; [`FileError::Stopped`] if it stopped before its end, with the reason. The partial file stays in
    /// the guest, as `.atp-….part` beside the destination, if running again can help; otherwise it is removed. Only a
    /// missing answer to the last step leaves the effect unknown.
    ///
    /// Dropping the future leaves the partial file, which stays open in the guest until this is run again or the agent
    /// restarts.
    pub async fn run(
        &mut self,
        carrier: &impl Carrier,
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Pushed> {
        self.run_with(carrier, deadline, progress, std::future::ready(())).await
    }

    /// As [`run`](Self::run), and awaits `last_step` before the copy replaces the destination. Until `last_step`
    /// returns, nothing is sent that changes the destination.
    pub async fn run_with(
        &mut self,
        carrier: &impl Carrier,
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
        last_step: impl Future<Output = ()> + Send,
    ) -> Result<Pushed> {
        let work_deadline = self.policy.before(deadline);
        let (places, resumed_at) = self.begin(carrier, work_deadline).await.map_err(|error| {
            // Whatever happened in the guest, the destination is unchanged.
            if error.effect() == Effect::Unknown { self.stopped(0, None, error) } else { error }
        })?;
        let mut done = resumed_at;
        let sent = self.send(carrier, &places.partial, &mut done, work_deadline, progress).await;
        let sent = match (sent, self.close(carrier, deadline).await) {
            (Ok(()), closed) => closed,
            (Err(error), _) => Err(error),
        };
        if let Err(error) = sent {
            // If the guest has no space for the bytes, or may not write them, the partial file is useless.
            let is_useless = matches!(error, ProtocolError::Refused(_));
            if is_useless {
                let _ = script::output(carrier, REMOVE, &[&places.partial], deadline).await;
            }
            return Err(self.stopped(done, (!is_useless).then_some(places.partial), error));
        }

        let (total, expected) = (self.source.size, self.source.digest);
        let found = checksum::in_guest(carrier, &places.partial, total, &self.policy, work_deadline);
        let found = found.await.map_err(|error| self.stopped(done, Some(places.partial.clone()), error))?;
        if found != expected {
            let _ = script::output(carrier, REMOVE, &[&places.partial], deadline).await;
            return Err(FileError::Checksum { path: places.destination, expected, found }.into());
        }
        let mode = format!("{:04o}", self.source.mode);
        let (partial, destination) = (places.partial.as_str(), places.destination.as_str());
        let output = if self.source.is_folder() {
            let unpacked = self.extract(carrier, &places, work_deadline).await?;
            last_step.await;
            script::output(carrier, PLACE, &[partial, destination, &unpacked, &mode], deadline).await?
        } else {
            last_step.await;
            script::output(carrier, FINISH, &[partial, destination, &mode], deadline).await?
        };
        let not_replaced = if windows::is_path(destination) { NOT_REPLACED_ON_WINDOWS } else { NOT_REPLACED };
        if !output.exit_code.is_some_and(|code| code == 0 || not_replaced.contains(&code)) {
            let (path, reason) = (places.destination, script::reason(&output));
            return Err(FileError::ReplaceUnknown { path, reason }.into());
        }
        script::checked(output, "replace", &places.destination)?;
        Ok(Pushed { path: places.destination, size: total, resumed_at, digest: found })
    }

    /// Unpacks the archive beside the destination, and returns the path of the folder. If it fails, the destination is unchanged.
    async fn extract(&self, carrier: &impl Carrier, places: &Places, deadline: Instant) -> Result<String> {
        let partial = places.partial.as_str();
        let unpacked = partial.strip_suffix("part").unwrap_or(partial).to_owned() + "new";
        let names = [partial, &places.destination, &unpacked, &script::seconds_to(deadline)];
        let output = script::output(carrier, EXTRACT, &names, deadline).await;
        let output = output.map_err(|error| match error.effect() {
            Effect::None => error,
            _ => self.stopped(self.source.size, Some(places.partial.clone()), error),
        })?;
        if output.exit_code == Some(OCCUPIED) {
            let found = match windows::is_path(&places.destination) {
                true => {
                    "a link or another reparse point, read-only, or of another type than what is copied there"
                }
                false => "of another type than what is copied there",
            };
            return Err(occupied(&output.stdout, found));
        }
        let stdout = script::checked(output, "unpack a folder at", &places.destination)?;
        String::from_utf8(stdout).ok().filter(|path| path.starts_with(&unpacked)).ok_or_else(|| {
            let detail = "the guest's shell does not print the path of a folder";
            ProtocolError::invalid_answer("guest-exec", detail)
        })
    }

    /// Finds the paths in the guest, and how many bytes are there.
    async fn begin(&mut self, carrier: &impl Carrier, deadline: Instant) -> Result<(Places, u64)> {
        self.close(carrier, deadline).await?;
        let places = self.prepare(carrier, deadline).await?;
        let resumed_at = self.reusable(carrier, &places, deadline).await?;
        Ok((places, resumed_at))
    }

    /// The name of the partial file, in the destination folder in the guest. It is the same for the same file and
    /// destination, and different for all others.
    pub fn partial_name(&self) -> String {
        format!(".atp-{}.part", self.key())
    }

    fn key(&self) -> String {
        let digest = Digest::of(format!("{}{}", self.source.digest, self.destination).as_bytes());
        digest.to_string().chars().take(16).collect()
    }

    async fn prepare(&self, carrier: &impl Carrier, deadline: Instant) -> Result<Places> {
        let (key, name) = (self.key(), self.source.name.as_str());
        let (mut longest, mut problem) = (String::new(), String::new());
        if self.source.is_folder() && windows::is_path(&self.destination) {
            longest = self.source.windows.longest(name)?.to_string();
            problem = problem_of(name).unwrap_or_default();
        }
        let parameters = [self.destination.as_str(), name, &key, &longest, &problem];
        let output = if self.source.is_folder() {
            script::output(carrier, PREPARE_FOLDER, &parameters, deadline).await?
        } else {
            script::output(carrier, PREPARE, &parameters[..3], deadline).await?
        };
        if output.exit_code == Some(LINK) {
            return Err(occupied(&output.stdout, "a link or another reparse point"));
        }
        if output.exit_code == Some(OCCUPIED) {
            return Err(occupied(&output.stdout, "not a regular file of the agent's user with one name"));
        }
        let stdout = script::checked(output, "write to", &self.destination)?;
        parse_places(&stdout).ok_or_else(|| {
            let detail = "the guest's shell does not print the requested format";
            ProtocolError::invalid_answer("guest-exec", detail)
        })
    }

    /// Returns how many bytes of the partial file are valid, and removes the rest.
    async fn reusable(&self, carrier: &impl Carrier, places: &Places, deadline: Instant) -> Result<u64> {
        if places.there == 0 {
            return Ok(0);
        }
        if places.there <= self.source.size {
            let there =
                checksum::in_guest(carrier, &places.partial, places.there, &self.policy, deadline).await?;
            if there == self.source.prefix_digest(places.there).await? {
                return Ok(places.there);
            }
        }
        script::run(carrier, EMPTY, &[&places.partial], "empty", deadline).await?;
        Ok(0)
    }

    async fn send(
        &mut self,
        carrier: &impl Carrier,
        partial: &str,
        done: &mut u64,
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<()> {
        let total = self.source.size;
        progress(Progress { done: *done, total });
        let chunk = write_size(carrier, self.policy.chunk);
        let mut content = self.source.open_at(*done).await?;
        while *done < total {
            let left = usize::try_from(total - *done).unwrap_or(usize::MAX);
            let bytes = content.read(chunk.min(left)).await?;
            if bytes.is_empty() {
                // The file has become shorter. The digest would only show the same.
                let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(FileError::local("read", self.source.name.as_str(), error));
            }
            let count = bytes.len() as u64;
            let writer = self.writer.get_or_insert_with(|| Writer::new(partial.to_owned()));
            writer.append(carrier, bytes, deadline).await?;
            *done += count;
            progress(Progress { done: *done, total });
        }
        Ok(())
    }

    /// Closes the file in the guest. A file that cannot be closed now is closed at the next run.
    async fn close(&mut self, carrier: &impl Carrier, deadline: Instant) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.close(carrier, deadline).await?;
        self.writer = None;
        Ok(())
    }

    fn stopped(&self, done: u64, partial: Option<String>, source: ProtocolError) -> ProtocolError {
        let (path, total) = (self.destination.clone(), self.source.size);
        FileError::Stopped { path, done, total, partial, source: Box::new(source) }.into()
    }
}

/// The error of a path in the guest that is not written to.
fn occupied(path: &[u8], found: &str) -> ProtocolError {
    let path = String::from_utf8_lossy(path).into_owned().into();
    FileError::Occupied { path, found: found.to_owned() }.into()
}

fn parse_places(stdout: &[u8]) -> Option<Places> {
    let mut parts = stdout.split(|&byte| byte == 0).map(std::str::from_utf8);
    let mut next = || parts.next()?.ok();
    let (destination, partial) = (next()?.to_owned(), next()?.to_owned());
    let there = next()?.trim().parse().ok()?;
    Some(Places { destination, partial, there })
}
