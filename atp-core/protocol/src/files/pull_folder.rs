//! Copies a folder from a guest to this machine: one archive, which the guest's `tar` makes, copied like a file, and
//! unpacked here.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Seek as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::allowance::Allowance;
use super::durable::{folder_of, make_folder, put_in_place};
use super::list::{FileKind, stat};
use super::partial::partial_path;
use super::place::{check_folder, put_folder_in_place};
use super::pull::{Pull, Pulled};
use super::script::{self, Script, folders_of_windows, run_tar_on_windows, watch_tar};
use super::unpack::unpack;
use super::{Progress, TransferPolicy, blocking, blocking_by};
use crate::carrier::Carrier;
use crate::digest::Digest;
use crate::error::{FileError, ProtocolError, Result};
use crate::reserve::keep_back;
use crate::windows;

/// Makes the archive of the folder `$1` in a folder of its own, whose name has the key `$2` in it, which only the agent's user can
/// read, and prints its path. It is not made below the folder itself, as it would contain itself. What an earlier copy left
/// there is removed: the archive of a folder that has not changed has the same bytes, so that the copy is still resumed. In `$3`
/// seconds `tar` ends, if it still runs.
///
/// GNU's `tar` exits with 1 if a file changed while it was read: it is then as it was read, as any file that is copied.
///
/// On Windows the first link or other reparse point below the folder is printed, with the exit code [`LINK`]: its `tar` would go
/// into some of them. The format is the one without extended headers, with names in UTF-8, whatever the system's code page is.
pub(super) const PACK: Script = Script {
    posix: concat!(
        r#"[ -e "$1" ] || exit 3
[ -d "$1" ] || exit 5
command -v tar >/dev/null 2>&1 || exit 11
cd "$1" || exit
here=$(pwd -P)
place() { for place in /var/tmp /tmp /dev/shm; do
  real=$(cd "$place" 2>/dev/null && [ -w . ] && pwd -P) || continue
  case $real/ in "${here%/}"/*) ;; *) return;; esac
done; echo 'there is no folder for its archive outside of it' >&2; return 1; }
place || exit 1
rm -rf "$real/.atp-$2."*
own=$real/.atp-$2.$$
(umask 077; mkdir "$own") || exit 1
tar -cf "$own/archive" . >"$own/said" 2>&1 </dev/null & tar=$!
"#,
        watch_tar!("$3"),
        r#"if [ $code = 1 ]; then case $(tar --version 2>/dev/null) in *GNU*) code=0;; esac; fi
[ $code = 0 ] || {
  if [ -d "$own" ] && [ $code -lt 128 ]; then head -n 1 "$own/said" >&2
  else echo 'tar was ended before it had read all' >&2; fi
  rm -rf "$own"
  exit 1
}
printf '%s' "$own/archive""#
    ),
    windows: concat!(
        folders_of_windows!(),
        r#"function find_link($p){
foreach($i in (New-Object IO.DirectoryInfo $p).GetFileSystemInfos()){
$x=[int]$i.Attributes
if(($x -band 0x400) -ne 0){return $i.FullName}
if(($x -band 0x10) -ne 0){
$found=find_link $i.FullName
if($found){return $found}
}
}
}
if([IO.File]::Exists($a[0])){exit 5}
if(-not [IO.Directory]::Exists($a[0])){exit 3}
if(-not [IO.File]::Exists($tar)){exit 11}
$place=[IO.Path]::GetFullPath($a[0]).TrimEnd('\')+'\'
$temp=[IO.Path]::GetFullPath([IO.Path]::GetTempPath()).TrimEnd('\')+'\'
if($temp.StartsWith($place,[StringComparison]::OrdinalIgnoreCase)){throw 'there is no folder for its archive outside of it'}
$found=find_link $place
if($found){say $found;exit 8}
foreach($old in [IO.Directory]::GetDirectories($temp,".atp-$($a[1]).*")){take_away $old}
$own=$temp+".atp-$($a[1]).$PID"
if(is_there $own){throw "$own is there already"}
$me=[Security.Principal.WindowsIdentity]::GetCurrent().User
$rule=New-Object Security.AccessControl.FileSystemAccessRule($me,'FullControl','ContainerInherit,ObjectInherit','None','Allow')
$rules=New-Object Security.AccessControl.DirectorySecurity
$rules.SetAccessRuleProtection($true,$false)
$rules.AddAccessRule($rule)
[void][IO.Directory]::CreateDirectory($own,$rules)
$words='--format gnutar --options hdrcharset=UTF-8 -cf "'+$own+'\archive" .';$seconds=$a[2]
"#,
        run_tar_on_windows!(),
        r"if($why){tidy $own;complain $why;exit 1}
say ($own+'\archive')"
    ),
};

/// Removes the folder of an archive.
pub(super) const REMOVE: Script = Script {
    posix: r#"rm -rf "${1%/archive}""#,
    windows: concat!(folders_of_windows!(), "drop ([IO.Path]::GetDirectoryName($a[0]))"),
};

/// The exit code if a folder of Windows has a link in it, whose path is printed.
const LINK: i32 = 8;

/// The transfer of a folder in one guest to this machine. A path in the guest that is a file is copied like a file.
///
/// The copy has the names, the symbolic links, the times, and the permission bits of the original without set-user-id,
/// set-group-id and sticky, and belongs to the user of this process. It is in place in one step; into a folder that is there,
/// the files go one by one when the archive is complete, verified and unpacked. Nothing outside the destination is written,
/// whatever the guest sends. For the time of the copy the guest has the archive in `/var/tmp`, or in `/tmp`; a Windows guest in
/// the agent's `TEMP`. A folder of Windows with links in it is refused, and its files have the mode 0644, or 0755.
#[derive(Debug)]
pub struct PullFolder {
    path: String,
    destination: PathBuf,
    policy: TransferPolicy,
    /// Whether the archive is what is wanted.
    is_packed: bool,
    allowance: Allowance,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    File(Pull),
    /// The archive's path in the guest, until when it is there, and its transfer.
    Archive(String, Instant, Pull),
}

impl PullFolder {
    /// Creates a transfer from an absolute path in the guest to a folder on this machine, which need not be there.
    pub fn new(path: impl Into<String>, destination: impl Into<PathBuf>, policy: TransferPolicy) -> Self {
        PullFolder {
            path: path.into(),
            destination: destination.into(),
            policy,
            is_packed: false,
            allowance: Allowance::default(),
            state: State::New,
        }
    }

    /// Takes the archive from an allowance, or the file, as [`Pull::within`]; not what is unpacked of it.
    pub fn within(self, allowance: Allowance) -> Self {
        PullFolder { allowance, ..self }
    }

    /// Leaves a folder packed: its archive, which only this user can read, goes to `NAME/NAME.tar` where the folder would be
    /// `NAME`. It is as the guest has made it; [`unpack_folder`] checks it. A file is copied as it is.
    pub fn packed(self) -> Self {
        PullFolder { is_packed: true, ..self }
    }

    /// The path of the partial file, beside the destination.
    pub fn partial_path(&self) -> PathBuf {
        partial_path(&self.destination)
    }

    /// Copies the folder, by `deadline` at the latest, and reports the progress of its archive after each chunk.
    ///
    /// After an error it can be run again, over the same carrier or another one. It resumes if the partial file is the
    /// beginning of the folder's archive.
    ///
    /// # Errors
    /// As [`Pull::run`]; [`FileError::Refused`] names an entry of the archive that leads elsewhere, or is neither a file nor a
    /// folder nor a link; [`FileError::Occupied`] a path that cannot be replaced, in a folder that is there.
    ///
    /// Dropping the future leaves the partial file, from which the next copy of the same folder to the same destination resumes. The
    /// guest ends its `tar` and removes the archive by itself, by about twice the time to the deadline; or the next copy does. In
    /// a Windows guest, an archive that was complete stays until the next copy.
    pub async fn run(
        &mut self,
        carrier: &impl Carrier,
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Pulled> {
        // Unpacking takes its time too.
        let fetched_by = keep_back(self.policy.reserve, deadline);
        if let State::Archive(_, until, _) = &self.state
            && *until < Instant::now()
        {
            self.state = State::New;
        }
        if let State::New = self.state {
            self.state = self.begin(carrier, self.policy.before(fetched_by), deadline).await?;
        }
        let (archive, pull) = match &mut self.state {
            State::File(pull) => return pull.run(carrier, deadline, progress).await,
            State::Archive(archive, _, pull) => (archive.clone(), pull),
            State::New => return Err(FileError::NotFound { path: self.path.clone() }.into()),
        };
        let fetched = pull.fetch(carrier, fetched_by, progress).await;
        // Over another connection the same archive is read on.
        match &fetched {
            Err(ProtocolError::Transport(_)) => return fetched.map(|(_, pulled)| pulled),
            Err(ProtocolError::File(FileError::Stopped { source, .. }))
                if matches!(**source, ProtocolError::Transport(_)) =>
            {
                return fetched.map(|(_, pulled)| pulled);
            }
            _ => {}
        }
        let partial = Pull::of_archive(archive.clone(), &self.path, &self.destination, self.policy);
        // Before anything is awaited, as this future may be dropped: the archive is not there any more then.
        self.state = State::New;
        // What is left there takes space, and the next copy removes it.
        let _ = script::output(carrier, REMOVE, &[&archive], deadline).await;
        let (file, pulled) = fetched?;
        if self.is_packed {
            let (archive, to) = (self.partial_path(), packed_path(&self.destination));
            let path = to.clone();
            blocking_by(self.policy.before(deadline), &path, move |may_begin| {
                let failed = |error| FileError::local("write", &to, error);
                let sync = |file: &File| file.sync_all();
                sync(&file).map_err(failed)?;
                may_begin()?;
                let kept = make_folder(folder_of(&to), &sync)
                    .and_then(|()| put_in_place(&file, &archive, &to, sync));
                kept.map_err(failed)
            })
            .await?;
            return Ok(Pulled { path, ..pulled });
        }
        let (whole, destination, opened) = (self.path.clone(), self.destination.clone(), file.clone());
        let placed = blocking_by(self.policy.before(deadline), &self.destination, move |may_begin| {
            put(&opened, &whole, &destination, may_begin)
        });
        let placed = placed.await;
        partial.remove_partial(file, self.policy.before(deadline)).await;
        placed.map(|()| pulled)
    }

    /// Looks at what is to be copied, and has its archive made if it is a folder.
    async fn begin(&self, carrier: &impl Carrier, deadline: Instant, until: Instant) -> Result<State> {
        if stat(carrier, &self.path, deadline).await?.kind != FileKind::Directory {
            let pull = Pull::new(&self.path, &self.destination, self.policy);
            return Ok(State::File(pull.within(self.allowance.clone())));
        }
        let destination = self.destination.clone();
        blocking(move || check_folder(&destination)).await?;
        let of = format!("{}\0{}", self.path, self.destination.display());
        let key: String = Digest::of(of.as_bytes()).to_string().chars().take(16).collect();
        let output =
            script::output(carrier, PACK, &[&self.path, &key, &script::seconds_to(until)], deadline).await?;
        if windows::is_path(&self.path) && output.exit_code == Some(LINK) {
            let name = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(
                FileError::Refused { name, found: "a link or another reparse point".to_owned() }.into()
            );
        }
        let stdout = script::checked(output, "make the archive of", &self.path)?;
        let is_absolute = |path: &str| path.starts_with('/') || windows::is_path(path);
        let archive = String::from_utf8(stdout).ok().filter(|path| is_absolute(path)).ok_or_else(|| {
            let detail = "the guest's shell does not print the path of an archive";
            ProtocolError::invalid_answer("guest-exec", detail)
        })?;
        let pull = Pull::of_archive(archive.clone(), &self.path, &self.destination, self.policy);
        Ok(State::Archive(archive, until, pull.within(self.allowance.clone())))
    }
}

/// Where the archive of a folder stays that would be here.
fn packed_path(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".tar");
    folder.join(name)
}

/// Unpacks the archive of a folder that [`PullFolder::packed`] has left, and puts the folder at `destination` as [`PullFolder`]
/// does. `whole` is the folder's path in the guest, for errors. It blocks.
///
/// # Errors
/// [`FileError::Refused`] and [`FileError::Occupied`], as [`PullFolder::run`]; [`FileError::Local`].
pub fn unpack_folder(archive: &Path, whole: &str, destination: &Path) -> Result<()> {
    check_folder(destination)?;
    let archive = File::open(archive).map_err(|error| FileError::local("read", archive, error))?;
    put(&archive, whole, destination, &|| Ok(()))
}

/// Unpacks an archive beside the destination, and puts the folder in its place, if it may begin with that then.
fn put(archive: &File, whole: &str, destination: &Path, may_begin: &dyn Fn() -> Result<()>) -> Result<()> {
    let failed = |error| FileError::local("unpack into", destination, error);
    let unfinished =
        tempfile::Builder::new().prefix(".atp-").suffix(".part").tempdir_in(folder_of(destination));
    let unfinished = unfinished.map_err(failed)?;
    let placed = unpack_and_put(archive, whole, unfinished.path(), destination, may_begin);
    let left = unfinished.path().to_owned();
    // After a rename nothing is left there to be removed.
    if let Err(error) = unfinished.close()
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %left.display(), "what was unpacked is left behind");
    }
    placed
}

fn unpack_and_put(
    archive: &File,
    whole: &str,
    unfinished: &Path,
    destination: &Path,
    may_begin: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let failed = |error| FileError::local("unpack into", destination, error);
    let root = OwnedFd::from(File::open(unfinished).map_err(failed)?);
    let mut archive = archive;
    archive.rewind().map_err(failed)?;
    let folders = unpack(BufReader::with_capacity(1 << 16, archive), &root, whole)?;
    put_folder_in_place(unfinished, &root, &folders, destination, may_begin)
}
