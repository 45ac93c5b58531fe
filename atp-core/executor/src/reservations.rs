//! Reservations of VMs: who uses which VM until when, in a file that all callers share.
//!
//! # Why two callers never get one VM
//!
//! The file has a lock file beside it, `FILE.lock`, which is never replaced or removed. A process that changes reservations holds an
//! exclusive `flock` on it from before the file is read until after the new file is in its place, on disk. The kernel grants that
//! lock to one open file at a time, keeps it while its process is stopped, and releases it when the process dies. So nothing can
//! come between the look for free VMs and their reservation: a process that is stopped there makes the others wait, up to their
//! deadline, and one that is killed there has reserved nothing, as the new file takes its place in one step (`rename`).
//!
//! # What it cannot promise
//!
//! The lock holds among the processes of one machine that name the same file. Filesystems that several machines share, or
//! whose locks another program grants, are refused. A caller that does not reserve is not kept away from a VM. A reservation ends by
//! the machine's clock of the day: one that is set forward ends it earlier.

#[cfg(test)]
mod stopped;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use atp_api::serve::{Reservation, ReservedVms};
use atp_protocol::files::write_in_place;
use atp_transport::HostId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The format of the file.
const FORMAT: u32 = 1;

/// The most bytes of the file that are read.
const MAX_BYTES: u64 = 64 << 20;

/// Between two tries to get the lock: `flock` itself has no time limit.
const PAUSE: Duration = Duration::from_millis(10);

/// A VM that may be reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its host.
    pub host: HostId,
    /// Its name.
    pub vm: String,
    /// Its identity.
    pub uuid: Uuid,
    /// Whether VMs of other hosts with its UUID are other VMs: see [`SharedUuids`](atp_transport::SharedUuids).
    pub is_copy: bool,
}

/// A file of reservations.
#[derive(Debug, Clone)]
pub struct Reservations {
    path: PathBuf,
}

/// Why reservations cannot be read or changed. Nothing was reserved or released then, unless it is
/// [`Write`](Self::Write), whose cause says so.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReservationError {
    /// The file or its lock file cannot be used.
    #[error("the reservations {path} cannot be {doing}")]
    Open {
        /// The file.
        path: String,
        /// What was done: read, locked.
        doing: &'static str,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file could not be written.
    #[error("the reservations {path} cannot be written")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file is on a filesystem that cannot promise that one process at a time has the lock.
    #[error(
        "the reservations {path} are on a filesystem ({kind}) whose locks may not hold among all that use it"
    )]
    Filesystem {
        /// The file.
        path: String,
        /// The kind of filesystem.
        kind: &'static str,
    },
    /// The file is not one of reservations.
    #[error("{path} has no reservations: {reason}")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has had the lock all the time.
    #[error("the reservations {path} have been in use by another process for {waited:?}")]
    Locked {
        /// The file.
        path: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The process was stopped for so long that the reservations ended before they were made.
    #[error("the reservations in {path} ended before they were made: the process did not run meanwhile")]
    Late {
        /// The file.
        path: String,
    },
}

/// What came of a try to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// So many as were asked for.
    Granted(Vec<Reservation>),
    /// Too few are free: nothing is reserved.
    TooFew {
        /// How many are free.
        free: usize,
    },
}

/// A file of reservations that this process alone may change.
struct Locked {
    /// The file itself, where the caller may have named a link to it.
    file: Reservations,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    reservations: Vec<Reservation>,
}

impl Reservations {
    /// The reservations in the file at `path`. It is created by the first reservation.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Reservations { path: path.into() }
    }

    /// Those that have not ended. It does not wait for the lock: the file is replaced in one step.
    ///
    /// It blocks for as long as the disk does.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self) -> Result<Vec<Reservation>, ReservationError> {
        let now = now_ms();
        Ok(self.read()?.into_iter().filter(|reservation| reservation.until_ms > now).collect())
    }

    /// Reserves `count` of these VMs for `owner`, the first that are free; or none, if fewer are free. The VMs that the owner has
    /// already are not free.
    ///
    /// It blocks, by `deadline` at the latest while another process has the lock.
    ///
    /// # Errors
    /// As [`ReservationError`] says.
    pub fn reserve(
        &self,
        candidates: &[Candidate],
        count: usize,
        owner: &str,
        time: Duration,
        deadline: Instant,
    ) -> Result<Reserved, ReservationError> {
        let locked = self.lock(deadline)?;
        let mut all = locked.file.list()?;
        let until_ms = now_ms().saturating_add(millis(time));
        let candidates = candidates.iter().map(|candidate| Reservation {
            host: candidate.host.clone(),
            vm: candidate.vm.clone(),
            uuid: candidate.uuid,
            is_copy: candidate.is_copy,
            owner: owner.to_owned(),
            until_ms,
        });
        // A VM that two hosts list, as while it moves, is one VM.
        let mut taken: ReservedVms = all.iter().cloned().collect();
        let mut granted: Vec<Reservation> = candidates.filter(|one| taken.insert(one.clone())).collect();
        if granted.len() < count {
            return Ok(Reserved::TooFew { free: granted.len() });
        }
        granted.truncate(count);
        #[cfg(test)]
        stopped::between_check_and_set();
        all.extend(granted.iter().cloned());
        locked.file.write(all)?;
        if now_ms() >= until_ms {
            return Err(ReservationError::Late { path: self.name() });
        }
        Ok(Reserved::Granted(granted))
    }

    /// Ends the reservations of `owner` that `chooses` accepts, and returns them.
    ///
    /// It blocks, by `deadline` at the latest while another process has the lock.
    ///
    /// # Errors
    /// As [`ReservationError`] says.
    pub fn release(
        &self,
        owner: &str,
        chooses: impl Fn(&Reservation) -> bool,
        deadline: Instant,
    ) -> Result<Vec<Reservation>, ReservationError> {
        let locked = self.lock(deadline)?;
        let is_released = |reservation: &Reservation| reservation.owner == owner && chooses(reservation);
        let (released, kept): (Vec<_>, Vec<_>) = locked.file.list()?.into_iter().partition(is_released);
        if !released.is_empty() {
            locked.file.write(kept)?;
        }
        Ok(released)
    }

    /// The file and its lock, which is held until this is dropped. A symbolic link is followed first: those that name the file
    /// itself have to get the same lock, and a new file in the place of the link would be another one.
    fn lock(&self, deadline: Instant) -> Result<Locked, ReservationError> {
        let target = match fs::canonicalize(&self.path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.is_symlink() => {
                self.path.clone()
            }
            Err(error) => return Err(self.cannot("locked", error)),
        };
        let mut path = target.as_os_str().to_owned();
        path.push(".lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o666).open(&path);
        let file = options.map_err(|error| self.cannot("locked", error))?;
        self.check_filesystem(&file)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked { file: Reservations { path: target }, _lock: file }),
                Err(TryLockError::Error(error)) => return Err(self.cannot("locked", error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(ReservationError::Locked { path: self.name(), waited: began.elapsed() });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn check_filesystem(&self, file: &File) -> Result<(), ReservationError> {
        let found = rustix::fs::fstatfs(file).map_err(|error| self.cannot("locked", error.into()))?;
        // The width of the number depends on the machine; the kinds are numbers of 32 bits.
        let number = found.f_type as u32;
        match SHARED.iter().find(|(known, _)| *known == number) {
            Some((_, kind)) => Err(ReservationError::Filesystem { path: self.name(), kind }),
            None => Ok(()),
        }
    }

    fn read(&self) -> Result<Vec<Reservation>, ReservationError> {
        // What is no file may have no end, or none that comes: it is not opened.
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.cannot("read", error)),
            Ok(found) if !found.is_file() => return Err(self.invalid("it is no regular file")),
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        if read.map_err(|error| self.cannot("read", error))? as u64 > MAX_BYTES {
            return Err(self.invalid("it is too large"));
        }
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| self.invalid(error))?;
        if content.format != FORMAT {
            return Err(self.invalid(format!("format {}, where {FORMAT} is known", content.format)));
        }
        Ok(content.reservations)
    }

    fn write(&self, reservations: Vec<Reservation>) -> Result<(), ReservationError> {
        let content = Content { format: FORMAT, reservations };
        // All keys are text, so that serialising cannot fail.
        let mut bytes = serde_json::to_vec_pretty(&content).unwrap_or_default();
        bytes.push(b'\n');
        write_in_place(&self.path, &bytes)
            .map_err(|error| ReservationError::Write { path: self.name(), source: Arc::new(error) })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn cannot(&self, doing: &'static str, error: io::Error) -> ReservationError {
        ReservationError::Open { path: self.name(), doing, source: Arc::new(error) }
    }

    fn invalid(&self, reason: impl ToString) -> ReservationError {
        ReservationError::Invalid { path: self.name(), reason: reason.to_string() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Filesystems that several machines may share, or whose locks another program grants, by their numbers (`statfs(2)`).
const SHARED: [(u32, &str); 17] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x0bd0_0bd0, "lustre"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0xaad7_aaea, "panfs"),
    (0x6b41_4653, "kafs"),
    (0x786f_4256, "vboxsf"),
    (0xbacb_acbc, "vmhgfs"),
];

fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn candidates(count: u128) -> Vec<Candidate> {
        let one = |n: u128| Candidate {
            host: "h1".parse().unwrap(),
            vm: format!("vm{n}"),
            uuid: Uuid::from_u128(n),
            is_copy: false,
        };
        (1..=count).map(one).collect()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn granted(reserved: Reserved) -> Vec<Reservation> {
        match reserved {
            Reserved::Granted(granted) => granted,
            Reserved::TooFew { free } => panic!("{free} are free"),
        }
    }

    #[test]
    fn a_vm_is_reserved_once_and_again_when_it_was_released() {
        let folder = tempfile::tempdir().unwrap();
        let file = Reservations::at(folder.path().join("r"));
        let all = candidates(3);
        let first = granted(file.reserve(&all, 2, "a", HOUR, soon()).unwrap());
        assert_eq!(first.iter().map(|one| one.vm.as_str()).collect::<Vec<_>>(), ["vm1", "vm2"]);
        assert_eq!(file.reserve(&all, 2, "b", HOUR, soon()).unwrap(), Reserved::TooFew { free: 1 });
        assert_eq!(granted(file.reserve(&all, 1, "a", HOUR, soon()).unwrap())[0].vm, "vm3");
        // Of another owner nothing is released.
        assert_eq!(file.release("b", |_| true, soon()).unwrap(), []);
        let released = file.release("a", |one| one.vm == "vm2", soon()).unwrap();
        assert_eq!(released, first[1..]);
        assert_eq!(granted(file.reserve(&all, 1, "b", HOUR, soon()).unwrap())[0].vm, "vm2");
        assert_eq!(file.list().unwrap().len(), 3);
    }

    #[test]
    fn what_has_ended_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let file = Reservations::at(folder.path().join("r"));
        let late = file.reserve(&candidates(1), 1, "a", Duration::ZERO, soon());
        assert!(matches!(late, Err(ReservationError::Late { .. })), "{late:?}");
        assert_eq!(file.list().unwrap(), []);
        assert_eq!(granted(file.reserve(&candidates(1), 1, "b", HOUR, soon()).unwrap())[0].owner, "b");
    }

    #[test]
    fn a_lock_that_is_held_ends_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let file = Reservations::at(folder.path().join("r"));
        let _held = file.lock(soon()).unwrap();
        let refused = file.reserve(&candidates(1), 1, "a", HOUR, Instant::now());
        assert!(matches!(refused, Err(ReservationError::Locked { .. })), "{refused:?}");
    }

    #[test]
    fn what_is_no_such_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        for text in ["", "[]", "{\"format\":2,\"reservations\":[]}"] {
            fs::write(&path, text).unwrap();
            let refused = Reservations::at(&path).reserve(&candidates(1), 1, "a", HOUR, soon());
            assert!(matches!(refused, Err(ReservationError::Invalid { .. })), "{text}: {refused:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_vm_that_two_hosts_list_is_reserved_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = Reservations::at(folder.path().join("r"));
        let twice = [candidates(1), candidates(1)].concat();
        assert_eq!(file.reserve(&twice, 2, "a", HOUR, soon()).unwrap(), Reserved::TooFew { free: 1 });
        assert_eq!(granted(file.reserve(&twice, 1, "a", HOUR, soon()).unwrap()).len(), 1);
    }

    #[test]
    fn copies_that_share_a_uuid_are_reserved_each_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = Reservations::at(folder.path().join("r"));
        let on = |host: &str, is_copy| Candidate {
            host: host.parse().unwrap(),
            is_copy,
            ..candidates(1).remove(0)
        };
        let reserve = |candidate| match file.reserve(&[candidate], 1, "a", HOUR, soon()).unwrap() {
            Reserved::Granted(granted) => granted.len(),
            Reserved::TooFew { free } => free,
        };
        assert_eq!([reserve(on("h1", true)), reserve(on("h1", true)), reserve(on("h2", true))], [1, 0, 1]);
        // Where the hosts' meanings differ, or another job has another one for the same host.
        assert_eq!([reserve(on("h1", false)), reserve(on("h3", false)), reserve(on("h4", false))], [0, 1, 0]);
        assert_eq!([reserve(on("h3", true)), reserve(on("h4", true))], [0, 1]);
        let released = file.release("a", |one| one.host.as_str() == "h2", soon()).unwrap();
        assert_eq!((released.len(), reserve(on("h1", true)), reserve(on("h2", true))), (1, 0, 1));
    }

    #[test]
    fn a_link_and_its_file_have_one_lock_and_one_content() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("r"), folder.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let (file, linked) = (Reservations::at(&path), Reservations::at(&link));
        // A link to nothing cannot be followed yet.
        assert!(matches!(
            linked.reserve(&candidates(1), 1, "a", HOUR, soon()),
            Err(ReservationError::Open { .. })
        ));
        granted(file.reserve(&candidates(1), 1, "a", HOUR, soon()).unwrap());
        assert_eq!(
            linked.reserve(&candidates(1), 1, "b", HOUR, soon()).unwrap(),
            Reserved::TooFew { free: 0 }
        );
        granted(linked.reserve(&candidates(2), 1, "b", HOUR, soon()).unwrap());
        assert_eq!(file.list().unwrap().len(), 2);
        let _held = linked.lock(soon()).unwrap();
        assert!(matches!(
            file.reserve(&candidates(3), 1, "a", HOUR, Instant::now()),
            Err(ReservationError::Locked { .. })
        ));
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        let refused = Reservations::at("/dev/zero").list();
        assert!(matches!(refused, Err(ReservationError::Invalid { .. })), "{refused:?}");
    }

    #[test]
    fn of_many_at_once_none_gets_a_vm_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = Reservations::at(folder.path().join("r"));
        let all = candidates(16);
        let got: Vec<Vec<Reservation>> = std::thread::scope(|scope| {
            let reserve = |n: usize| {
                let (file, all) = (file.clone(), &all);
                scope.spawn(move || granted(file.reserve(all, 2, &n.to_string(), HOUR, soon()).unwrap()))
            };
            let threads: Vec<_> = (0..8).map(reserve).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let vms: HashSet<Uuid> = got.iter().flatten().map(|one| one.uuid).collect();
        assert_eq!(vms.len(), 16);
    }
}
