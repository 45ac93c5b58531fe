//! Tests of transfers to and from a guest in which each command in turn fails.

use std::error::Error as _;
use std::fs::{self, File};
use std::future::Future;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atp_transport::Effect;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::error::ProtocolError;
use crate::local_guest::{FAULTS, Fault, LocalGuest};
use crate::script::Script;
use crate::windows_guest::WindowsGuest;

mod folder;
mod windows_folder;

/// A little more than a few chunks of the carrier's size.
const SIZE: usize = 5_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n * 7 % 251) as u8).collect()
}

fn policy() -> TransferPolicy {
    TransferPolicy { chunk: 2000, ..TransferPolicy::default() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The result of the work, or none if it was dropped because a command hung.
async fn unless_hung<T>(guest: &LocalGuest, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = work => Some(result),
        () = guest.hangs.notified() => None,
    }
}

/// Asserts that no file is left open in the guest, except if its handle was never received, or the guest refused to
/// close it.
fn assert_closed(guest: &LocalGuest, fault: Fault) {
    let excused = match guest.went_wrong().as_deref() {
        Some("guest-file-open") => matches!(fault, Fault::Unanswered | Fault::Hangs),
        Some("guest-file-close") => fault == Fault::Refused,
        _ => false,
    };
    assert_eq!(guest.open_files(), usize::from(excused), "{fault:?} of {:?}", guest.commands());
}

struct Pushing {
    folder: TempDir,
    source: Arc<Source>,
    destination: PathBuf,
}

impl Pushing {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("file");
        fs::write(&destination, "old").unwrap();
        Pushing { folder, source: Arc::new(Source::from_bytes("x", content(), 0o640)), destination }
    }

    fn push(&self) -> Push {
        Push::new(self.source.clone(), self.destination.to_str().unwrap(), policy())
    }

    fn assert_there(&self) {
        assert!(fs::read(&self.destination).unwrap() == content());
        assert_eq!(self.destination.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(names(self.folder.path()), ["file"]);
    }
}

#[tokio::test]
async fn a_push_copies_everything() {
    let (guest, pushing) = (LocalGuest::default(), Pushing::new());
    let mut told = Vec::new();
    let pushed = pushing.push().run(&guest, soon(), &mut |progress| told.push(progress.done)).await.unwrap();
    assert_eq!((pushed.size, pushed.resumed_at), (SIZE as u64, 0));
    assert_eq!(pushed.digest, Digest::of(&content()));
    assert!(told.is_sorted() && told.len() > 3, "{told:?}");
    pushing.assert_there();
    assert_eq!(guest.open_files(), 0);
}

#[tokio::test]
async fn a_push_that_stops_before_its_last_step_changes_nothing() {
    let (guest, pushing, reached) = (LocalGuest::default(), Pushing::new(), Notify::new());
    let last_step = async {
        reached.notify_one();
        std::future::pending().await
    };
    let (mut push, mut quiet) = (pushing.push(), |_| {});
    tokio::select! {
        pushed = push.run_with(&guest, soon(), &mut quiet, last_step) => panic!("{pushed:?}"),
        () = reached.notified() => {}
    }
    assert_eq!(fs::read(&pushing.destination).unwrap(), b"old");
    assert_eq!(names(pushing.folder.path()).len(), 2, "the copy is there, beside it");
}

#[tokio::test]
async fn what_others_put_at_the_name_of_the_partial_file_is_neither_followed_nor_changed() {
    for planted in ["link", "dangling", "second name", "fifo", "folder"] {
        let (guest, pushing) = (LocalGuest::default(), Pushing::new());
        let (victim, mut push) = (pushing.folder.path().join("victim"), pushing.push());
        let partial = pushing.folder.path().join(push.partial_name());
        fs::write(&victim, "precious").unwrap();
        match planted {
            "link" => symlink(&victim, &partial).unwrap(),
            "dangling" => symlink(pushing.folder.path().join("new"), &partial).unwrap(),
            "second name" => fs::hard_link(&victim, &partial).unwrap(),
            "fifo" => {
                let made = std::process::Command::new("mkfifo").arg(&partial).status().unwrap();
                assert!(made.success());
            }
            _ => fs::create_dir(&partial).unwrap(),
        }
        let error = push.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!(
            (error.kind().as_str(), error.effect()),
            ("path-occupied", Effect::None),
            "{planted}: {error}"
        );
        assert!(error.to_string().contains(partial.to_str().unwrap()), "{planted}: {error}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious", "{planted}");
        assert!(!pushing.folder.path().join("new").exists(), "{planted}");
        assert_eq!(fs::read(&pushing.destination).unwrap(), b"old", "{planted}");
    }
}

#[tokio::test]
async fn a_push_can_be_run_again_after_a_failure_of_any_command() {
    let guest = LocalGuest::default();
    Pushing::new().push().run(&guest, soon(), &mut |_| {}).await.unwrap();
    // The program that replaces the destination, and the query of its end.
    let last_step = guest.commands().len() - 2;
    for fault in FAULTS {
        for at in 0.. {
            let (guest, pushing) = (LocalGuest::with_fault(at, fault), Pushing::new());
            let mut push = pushing.push();
            let first = unless_hung(&guest, push.run(&guest, soon(), &mut |_| {})).await;
            if guest.went_wrong().is_none() {
                assert!(at > 10);
                break;
            }
            if let Some(Err(error)) = &first {
                let old = fs::read(&pushing.destination).unwrap() == b"old";
                assert!(old || error.effect() != Effect::None, "{fault:?} at {at}: {error:?}");
                assert!(at >= last_step || error.effect() == Effect::None, "{fault:?} at {at}: {error:?}");
            }
            push.run(&guest, soon(), &mut |_| {}).await.unwrap();
            pushing.assert_there();
            assert_closed(&guest, fault);
        }
    }
}

#[tokio::test]
async fn a_push_whose_last_shell_is_killed_after_the_renaming_has_an_unknown_effect() {
    for status in [9, 137 << 8] {
        let (guest, pushing) = (LocalGuest::killing_after("mv -f", status), Pushing::new());
        let error = pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        pushing.assert_there();
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
    }
}

#[tokio::test]
async fn a_push_whose_renaming_is_refused_has_no_effect() {
    let (guest, pushing) = (LocalGuest::killing_after("mv -f", 1 << 8), Pushing::new());
    let error = pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error}");
}

#[tokio::test]
async fn a_push_resumes_where_another_one_stopped() {
    // The fourth write.
    let (guest, pushing) = (LocalGuest::with_fault(6, Fault::Unsent), Pushing::new());
    let stopped = pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let ProtocolError::File(FileError::Stopped { done, total, .. }) = &stopped else { panic!("{stopped:?}") };
    let (done, total) = (*done, *total);
    assert!(done > 0 && done < total && total == SIZE as u64, "{done} of {total}");
    let partial = names(pushing.folder.path()).into_iter().find(|name| name.ends_with(".part")).unwrap();
    assert!(stopped.to_string().contains(&partial), "{stopped} does not say that {partial} is kept");
    assert_eq!(
        (stopped.kind().as_str(), stopped.effect(), stopped.is_retryable()),
        ("connection-lost", Effect::None, true)
    );
    let pushed = pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert!(pushed.resumed_at >= done, "{pushed:?}");
    pushing.assert_there();
}

#[tokio::test]
async fn a_partial_file_with_other_bytes_is_not_resumed() {
    let (guest, pushing) = (LocalGuest::with_fault(6, Fault::Unsent), Pushing::new());
    pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let partial = names(pushing.folder.path()).into_iter().find(|name| name.ends_with(".part")).unwrap();
    for spoilt in [vec![b'x'; 3], vec![b'x'; SIZE + 1]] {
        fs::write(pushing.folder.path().join(&partial), spoilt).unwrap();
        assert_eq!(pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap().resumed_at, 0);
        pushing.assert_there();
    }
}

#[tokio::test]
async fn a_changed_source_is_detected() {
    let pushing = Pushing::new();
    let original = tempfile::NamedTempFile::new().unwrap();
    fs::write(original.path(), content()).unwrap();
    let source = Arc::new(Source::open(original.path()).await.unwrap());
    assert_eq!((source.size(), source.digest()), (SIZE as u64, Digest::of(&content())));
    for (change, kind) in [(vec![0; SIZE], "checksum-mismatch"), (vec![0; 10], "local-file-error")] {
        fs::write(original.path(), change).unwrap();
        let mut push = Push::new(source.clone(), pushing.destination.to_str().unwrap(), policy());
        let error = push.run(&LocalGuest::default(), soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), (kind, Effect::None), "{error:?}");
        assert_eq!(fs::read(&pushing.destination).unwrap(), b"old");
    }
    assert_eq!(Source::open("/no/such").await.unwrap_err().kind(), "local-file-error");
    assert_eq!(Source::open("/").await.unwrap_err().kind(), "local-file-error");
}

struct Pulling {
    _folder: TempDir,
    original: PathBuf,
    here: PathBuf,
}

impl Pulling {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (original, here) = (folder.path().join("original"), folder.path().join("here"));
        fs::write(&original, content()).unwrap();
        fs::set_permissions(&original, fs::Permissions::from_mode(0o4751)).unwrap();
        fs::create_dir(&here).unwrap();
        Pulling { _folder: folder, original, here }
    }

    fn pull(&self) -> Pull {
        Pull::new(self.original.to_str().unwrap(), self.here.join("copy"), policy())
    }

    fn assert_there(&self) {
        let copy = self.here.join("copy");
        assert!(fs::read(&copy).unwrap() == content());
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o751);
        assert_eq!(names(&self.here), ["copy"]);
    }
}

#[tokio::test]
async fn a_pull_can_be_run_again_after_a_failure_of_any_command() {
    for fault in FAULTS {
        for at in 0.. {
            let (guest, pulling) = (LocalGuest::with_fault(at, fault), Pulling::new());
            let mut pull = pulling.pull();
            let first = unless_hung(&guest, pull.run(&guest, soon(), &mut |_| {})).await;
            if guest.went_wrong().is_none() {
                assert!(at > 8);
                pulling.assert_there();
                break;
            }
            if !matches!(first, Some(Ok(_))) {
                assert!(!pulling.here.join("copy").exists(), "{fault:?} at {at}");
                pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
            }
            pulling.assert_there();
            assert_closed(&guest, fault);
        }
    }
}

#[tokio::test]
async fn two_pulls_do_not_write_to_one_file() {
    let (guest, pulling) = (LocalGuest::with_fault(4, Fault::Unsent), Pulling::new());
    let mut first = pulling.pull();
    first.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let second = pulling.pull().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!((second.kind().as_str(), second.is_retryable()), ("transfer-busy", true));
    assert!(first.run(&guest, soon(), &mut |_| {}).await.unwrap().resumed_at > 0);
    pulling.assert_there();
}

#[tokio::test]
async fn a_pull_does_not_write_through_a_link_at_its_partial_path() {
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    let other = pulling.here.join("other");
    let links: [fn(&Path, &Path) -> io::Result<()>; 2] =
        [|from, to| symlink(from, to), |from, to| fs::hard_link(from, to)];
    for link in links {
        fs::write(&other, "precious").unwrap();
        let mut pull = pulling.pull();
        link(&other, &pull.partial_path()).unwrap();
        let error = pull.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("path-occupied", Effect::None));
        assert!(error.to_string().contains(".copy.atp-part"), "{error}");
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert_eq!(names(&pulling.here), [".copy.atp-part", "other"]);

        // It succeeds after the link is removed.
        fs::remove_file(pull.partial_path()).unwrap();
        fs::remove_file(&other).unwrap();
        pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
        pulling.assert_there();
        fs::remove_file(pulling.here.join("copy")).unwrap();
    }
}

#[tokio::test]
async fn a_pull_to_a_path_that_is_not_a_file_is_refused_before_it_begins() {
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    let copy = pulling.here.join("copy");
    let refused = async |found| {
        let told = &mut |progress| panic!("{found}: {progress:?}");
        let error = pulling.pull().run(&guest, soon(), told).await.unwrap_err();
        assert_eq!(error.kind(), "path-occupied", "{found}: {error:?}");
        assert!(error.to_string().ends_with(&format!("copy: it is {found}")), "{error}");
        assert_eq!(names(&pulling.here), ["copy"]);
    };
    fs::create_dir(&copy).unwrap();
    refused("a directory").await;
    fs::remove_dir(&copy).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&copy).status().unwrap().success());
    refused("a FIFO").await;
    fs::remove_file(&copy).unwrap();
    symlink("/dev/null", &copy).unwrap();
    refused("a device").await;
    fs::remove_file(&copy).unwrap();

    // A link to a file is replaced, and the file stays as it is.
    let other = pulling.here.join("../other");
    fs::write(&other, "precious").unwrap();
    symlink(&other, &copy).unwrap();
    pulling.pull().run(&guest, soon(), &mut |_| {}).await.unwrap();
    pulling.assert_there();
    assert!(!copy.is_symlink());
    assert_eq!(fs::read(&other).unwrap(), b"precious");
}

#[tokio::test]
async fn a_file_that_replaced_the_partial_file_is_not_renamed() {
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    let mut pull = pulling.pull();
    let partial = pull.partial_path();
    let mut replace = |progress: Progress| {
        if progress.done == 0 {
            fs::remove_file(&partial).unwrap();
            fs::write(&partial, "another copy begins").unwrap();
        }
    };
    let error = pull.run(&guest, soon(), &mut replace).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("local-file-error", Effect::None));
    assert_eq!(names(&pulling.here), [".copy.atp-part"]);
    assert_eq!(fs::read(&partial).unwrap(), b"another copy begins");
}

#[tokio::test]
async fn a_copy_that_cannot_be_renamed_is_resumed_later() {
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    fs::set_permissions(&pulling.original, fs::Permissions::from_mode(0o777)).unwrap();
    let copy = pulling.here.join("copy");
    let mut occupy = |progress: Progress| {
        if progress.done == 0 {
            fs::create_dir(&copy).unwrap();
        }
    };
    pulling.pull().run(&guest, soon(), &mut occupy).await.unwrap_err();
    fs::remove_dir(&copy).unwrap();
    let pulled = pulling.pull().run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert_eq!(pulled.resumed_at, SIZE as u64);
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o777);
}

#[tokio::test]
async fn a_pull_is_done_when_the_copy_and_its_name_are_on_disk() {
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    let copy = pulling.here.join("copy");
    fs::write(&copy, "old").unwrap();
    let mut pull = pulling.pull();
    pull.sync = |_| Err(ErrorKind::Other.into());
    let error = pull.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), "local-file-error");
    assert_eq!(fs::read(&copy).unwrap(), b"old");

    pull.sync = |file| if file.metadata()?.is_dir() { Err(ErrorKind::Other.into()) } else { Ok(()) };
    let error = pull.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let why = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(error.kind() == "local-file-error" && why.contains("in its place"), "{error:?}: {why}");
    pulling.assert_there();

    // The name of a folder that was created for it has to be on disk as well.
    let mut pull = Pull::new(pulling.original.to_str().unwrap(), pulling.here.join("new/copy"), policy());
    pull.sync = |file| if file.metadata()?.is_dir() { Err(ErrorKind::Other.into()) } else { Ok(()) };
    let error = pull.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot make the folder"), "{error}");
}

/// Runs a test with one thread for blocking work, which does what is asked of it in this order.
fn with_one_blocking_thread<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(1).enable_all().build().unwrap().block_on(test)
}

/// Returns when the blocking work that was asked for before has ended.
async fn blocking_work_ended() {
    tokio::task::spawn_blocking(|| ()).await.unwrap();
}

#[test]
fn a_disk_that_is_slow_changes_nothing_after_the_deadline() {
    static GOES_ON: OnceLock<()> = OnceLock::new();
    with_one_blocking_thread(async {
        let (guest, pulling) = (LocalGuest::default(), Pulling::new());
        let copy = pulling.here.join("copy");
        fs::write(&copy, "old").unwrap();
        let mut pull = pulling.pull();
        let (file, _) = pull.fetch(&guest, soon(), &mut |_| {}).await.unwrap();
        pull.sync = |_| {
            GOES_ON.wait();
            Ok(())
        };
        let by = Instant::now() + Duration::from_millis(50);
        let finished = pull.finish(file, fs::Permissions::from_mode(0o600), by);
        let finished = tokio::time::timeout(Duration::from_secs(30), finished).await;
        GOES_ON.set(()).unwrap();
        assert!(finished.expect("it ends by its deadline").unwrap_err().is_timeout());
        blocking_work_ended().await;
        assert_eq!(fs::read(&copy).unwrap(), b"old");
        let pulled = pulling.pull().run(&guest, soon(), &mut |_| {}).await.unwrap();
        assert_eq!(pulled.resumed_at, SIZE as u64);
        pulling.assert_there();
    });
}

#[test]
fn what_a_dropped_copy_has_written_is_examined_again() {
    with_one_blocking_thread(async {
        let (guest, pulling) = (LocalGuest::default(), Pulling::new());
        let mut pull = pulling.pull();
        let (goes_on, held) = std::sync::mpsc::channel::<()>();
        let mut held = Some(held);
        let (dropped, mut is_held) = (Notify::new(), false);
        // The second chunk waits behind this to be written.
        let mut hold = |progress: Progress| {
            if progress.done == 2_000
                && let Some(held) = held.take()
            {
                tokio::task::spawn_blocking(move || held.recv());
                dropped.notify_one();
                is_held = true;
            }
        };
        tokio::select! {
            biased;
            pulled = pull.run(&guest, soon(), &mut hold) => panic!("{pulled:?}"),
            () = dropped.notified() => {}
        }
        assert!(is_held);
        drop(goes_on);
        blocking_work_ended().await;
        // As if the disk had not taken it, which nobody was told.
        let partial = File::options().write(true).open(pull.partial_path()).unwrap();
        assert_eq!(partial.metadata().unwrap().len(), 4_000);
        partial.set_len(2_000).unwrap();
        let pulled = pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
        assert_eq!(pulled.resumed_at, 2_000);
        pulling.assert_there();
        assert_eq!(guest.open_files(), 0);
    });
}

#[tokio::test]
async fn a_dropped_copy_that_is_run_again_waits_for_its_own_write() {
    static BEGUN: Notify = Notify::const_new();
    static GOES_ON: OnceLock<()> = OnceLock::new();
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    let mut pull = pulling.pull();
    pull.write = |mut file, bytes| {
        BEGUN.notify_one();
        GOES_ON.wait();
        file.write_all(bytes)
    };
    let mut quiet = |_| {};
    tokio::select! {
        pulled = pull.run(&guest, soon(), &mut quiet) => panic!("{pulled:?}"),
        () = BEGUN.notified() => {}
    }
    let early = Instant::now() + Duration::from_millis(20);
    assert!(pull.run(&guest, early, &mut quiet).await.unwrap_err().is_timeout());
    // Longer than another transfer's lock is waited for.
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        GOES_ON.set(()).unwrap();
    };
    let (pulled, ()) = tokio::join!(pull.run(&guest, soon(), &mut quiet), goes_on);
    assert_eq!(pulled.unwrap().size, SIZE as u64);
    pulling.assert_there();
    assert_eq!(guest.open_files(), 0);
}

#[test]
fn only_a_deadline_of_ours_is_one() {
    let of_the_disk = io::Error::from_raw_os_error(libc::ETIMEDOUT);
    assert!(!FileError::local("write", "copy", of_the_disk).is_timeout());
    assert!(FileError::local("write", "copy", late()).is_timeout());
}

#[tokio::test]
async fn a_chunk_size_of_zero_is_not_the_end_of_the_file() {
    let (guest, pulling) = (LocalGuest::default(), Pulling::new());
    fs::write(&pulling.original, "short").unwrap();
    let policy = TransferPolicy { chunk: 0, ..policy() };
    let mut pull = Pull::new(pulling.original.to_str().unwrap(), pulling.here.join("copy"), policy);
    assert_eq!(pull.run(&guest, soon(), &mut |_| {}).await.unwrap().size, 5);
    assert_eq!(fs::read(pulling.here.join("copy")).unwrap(), b"short");
}

#[tokio::test]
async fn a_path_that_is_not_a_file_is_an_error() {
    let guest = LocalGuest::default();
    let here = tempfile::tempdir().unwrap();
    for (path, kind) in
        [("/no/such", "file-not-found"), ("/etc", "is-a-directory"), ("/dev/null", "not-a-regular-file")]
    {
        let mut pull = Pull::new(path, here.path().join("new/folder/copy"), policy());
        let error = pull.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), (kind, Effect::None));
        assert!(error.to_string().contains(path), "{error}");
    }
    let source = Arc::new(Source::from_bytes("x", b"y", 0o600));
    let mut push = Push::new(source.clone(), "/no/such/folder/x", policy());
    assert_eq!(push.run(&guest, soon(), &mut |_| {}).await.unwrap_err().kind(), "file-not-found");
    let mut push = Push::new(source, "relative", policy());
    assert_eq!(push.run(&guest, soon(), &mut |_| {}).await.unwrap_err().kind(), "invalid-command");
    assert!(names(here.path()).is_empty());
}

#[tokio::test]
async fn files_are_copied_to_and_from_a_windows_guest() {
    let (guest, here) = (WindowsGuest::new(), tempfile::tempdir().unwrap());
    fs::create_dir(guest.drive.path().join("dir")).unwrap();
    for (to, name) in [(r"C:\dir\it's $(x).bin", "it's $(x).bin"), ("C:/dir", "name"), (r"C:\dir\", "name")] {
        let source = Arc::new(Source::from_bytes("name", content(), 0o640));
        let pushed = Push::new(source, to, policy()).run(&guest, soon(), &mut |_| {}).await.unwrap();
        assert_eq!(pushed.digest, Digest::of(&content()));
        assert!(fs::read(guest.drive.path().join("dir").join(name)).unwrap() == content(), "{to}");
        let mut pull = Pull::new(pushed.path, here.path().join("copy"), policy());
        assert_eq!(pull.run(&guest, soon(), &mut |_| {}).await.unwrap().size, SIZE as u64);
        assert!(fs::read(here.path().join("copy")).unwrap() == content());
    }
    assert_eq!(names(&guest.drive.path().join("dir")), ["it's $(x).bin", "name"]);
    assert_eq!(guest.open_files(), 0);
    // Nothing was tried first: the drive letter says what the guest is.
    assert!(!guest.commands().contains(&"guest-get-osinfo".to_owned()));
    assert_eq!(list(&guest, r"C:\dir", soon()).await.unwrap().len(), 2);
    assert_eq!(stat(&guest, r"C:\dir", soon()).await.unwrap().kind, FileKind::Directory);
    assert_eq!(stat(&guest, r"C:\none", soon()).await.unwrap_err().kind(), "file-not-found");
    let source = Arc::new(Source::from_bytes("x", b"y", 0o600));
    let error = Push::new(source, r"C:\none\x", policy()).run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), "file-not-found");
}

#[tokio::test]
async fn the_content_of_a_file_is_read_on_both_systems_up_to_a_limit() {
    let (posix, windows) = (LocalGuest::default(), WindowsGuest::new());
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("file").display().to_string();
    // More than one chunk.
    let content = content().repeat(500);
    let length = content.len() as u64;
    assert!(length > TransferPolicy::default().chunk as u64);
    for folder in [here.path(), windows.drive.path()] {
        fs::write(folder.join("file"), &content).unwrap();
    }
    assert!(read(&posix, &path, length, soon()).await.unwrap() == content);
    assert!(read(&windows, r"C:\file", length, soon()).await.unwrap() == content);
    assert!(!read(&posix, "/proc/version", 4096, soon()).await.unwrap().is_empty(), "its size is 0");
    let errors = [
        (read(&posix, &path, length - 1, soon()).await, "output-too-large"),
        (read(&windows, r"C:\file", length - 1, soon()).await, "output-too-large"),
        (read(&posix, "/proc/version", 3, soon()).await, "output-too-large"),
        (read(&posix, "/none/file", length, soon()).await, "file-not-found"),
        (read(&windows, r"C:\none", length, soon()).await, "file-not-found"),
        (read(&posix, &here.path().display().to_string(), length, soon()).await, "is-a-directory"),
        (read(&windows, r"C:\", length, soon()).await, "is-a-directory"),
        (read(&posix, "/dev/zero", length, soon()).await, "not-a-regular-file"),
    ];
    for (result, kind) in errors {
        let error = result.unwrap_err();
        assert_eq!((error.kind().as_str(), error.is_retryable()), (kind, false), "{error}");
    }
    assert_eq!((posix.open_files(), windows.open_files()), (0, 0));
}

#[tokio::test]
async fn a_file_that_was_not_looked_at_is_not_one_that_is_not_there() {
    // SIGKILL, and exit codes of a shell that did not come to look.
    for status in [9, 2 << 8, 126 << 8, 127 << 8, 137 << 8] {
        let guest = LocalGuest::killing_after("stat -L", status);
        let error = stat(&guest, "/none", soon()).await.unwrap_err();
        assert_eq!(error.kind(), "guest-file-error", "{status}: {error}");
    }
}

#[tokio::test]
async fn a_push_to_a_windows_guest_resumes() {
    let guest = WindowsGuest::new();
    let push = || Push::new(Arc::new(Source::from_bytes("x", content(), 0o640)), r"C:\x", policy());
    let partial = guest.drive.path().join(push().partial_name());
    fs::write(&partial, &content()[..3000]).unwrap();
    assert_eq!(push().run(&guest, soon(), &mut |_| {}).await.unwrap().resumed_at, 3000);
    assert!(fs::read(guest.drive.path().join("x")).unwrap() == content());
    fs::write(&partial, "other bytes").unwrap();
    assert_eq!(push().run(&guest, soon(), &mut |_| {}).await.unwrap().resumed_at, 0);
    assert_eq!(names(guest.drive.path()), ["x"]);
}

#[tokio::test]
async fn a_last_step_that_fails_on_windows_has_no_effect_only_if_that_was_seen() {
    for (status, effect) in [(9, Effect::None), (4, Effect::None), (1, Effect::Unknown), (7, Effect::Unknown)]
    {
        let guest = WindowsGuest::ending_with(status);
        let source = Arc::new(Source::from_bytes("x", content(), 0o640));
        let pushed = Push::new(source, r"C:\x", policy()).run(&guest, soon(), &mut |_| {}).await;
        assert_eq!(pushed.unwrap_err().effect(), effect, "exit code {status}");
    }
}

#[tokio::test]
async fn what_a_windows_guest_cannot_do_is_said_by_name() {
    let (guest, here) = (WindowsGuest::new(), tempfile::tempdir().unwrap());
    // A path of another system.
    let error = Pull::new("/etc/x", here.path().join("x"), policy()).run(&guest, soon(), &mut |_| {}).await;
    let error = error.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("guest-shell-missing", Effect::None));
    assert!(error.to_string().starts_with("Windows Server 2022 Standard has no /bin/sh"), "{error}");
    assert!(error.hint().contains("drive letter"), "{}", error.hint());
    // A path of Windows in another guest.
    let refused =
        r#"{"error":{"class":"GenericError","desc":"Guest agent command failed, error was 'no such file'"}}"#;
    let debian = r#"{"return":{"id":"debian","pretty-name":"Debian 13"}}"#;
    let error = stat(&Script::new([refused, debian]), r"C:\x", soon()).await.unwrap_err();
    assert!(error.to_string().starts_with("Debian 13 has no powershell.exe"), "{error}");
    assert!(error.hint().contains("drive letter"), "{}", error.hint());
}

#[tokio::test]
async fn a_guest_without_a_shell_has_an_error_of_its_own() {
    let refused = r#"{"error":{"class":"GenericError","desc":"no such file"}}"#;
    let windows = r#"{"return":{"id":"mswindows","name":"Microsoft Windows"}}"#;
    let guest = || Script::new([refused, windows]);
    let here = tempfile::tempdir().unwrap();
    let source = Arc::new(Source::from_bytes("x", b"y", 0o600));
    let mut push = Push::new(source, "/x", policy());
    let mut pull = Pull::new("/x", here.path().join("copy"), policy());
    for error in [
        push.run(&guest(), soon(), &mut |_| {}).await.unwrap_err(),
        pull.run(&guest(), soon(), &mut |_| {}).await.unwrap_err(),
        list(&guest(), "/", soon()).await.unwrap_err(),
        stat(&guest(), "/", soon()).await.unwrap_err(),
    ] {
        assert_eq!(
            (error.kind().as_str(), error.effect()),
            ("guest-shell-missing", Effect::None),
            "{error:?}"
        );
        assert!(error.to_string().starts_with("Microsoft Windows has no /bin/sh"), "{error}");
    }
    assert!(names(here.path()).is_empty());
}

#[tokio::test]
async fn a_guest_without_disk_space_gets_a_hint() {
    let (guest, pushing) = (LocalGuest::with_fault(6, Fault::Refused), Pushing::new());
    let error = pushing.push().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("guest-file-error", Effect::None), "{error:?}");
    assert_eq!(error.hint(), atp_transport::Hint::CHECK_GUEST_SPACE);
    assert_eq!(names(pushing.folder.path()), ["file"]);
}

#[tokio::test]
async fn a_copy_is_counted_once_however_often_it_is_begun() {
    let (guest, pulling) = (LocalGuest::with_fault(4, Fault::Unsent), Pulling::new());
    let all = Allowance::of(SIZE as u64 + 10, "the room is used up");
    let pull = || pulling.pull().within(all.clone());
    pull().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let begun = fs::metadata(pulling.pull().partial_path()).unwrap().len();
    assert!(begun > 0 && begun < SIZE as u64, "{begun}");
    // It waits for what others have; the room is not there, and what was copied stays.
    all.take(20).unwrap();
    let error = pull().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert!(format!("{error:?}").contains("the room is used up"), "{error:?}");
    assert_eq!(fs::metadata(pulling.pull().partial_path()).unwrap().len(), begun);
    let all = all.set(SIZE as u64 + 10 - begun, "the room is used up");
    // The beginning is another one now: it is removed, and does not count any more.
    fs::write(&pulling.original, content().into_iter().rev().collect::<Vec<_>>()).unwrap();
    let pulled = pulling.pull().within(all.clone()).run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert_eq!(pulled.resumed_at, 0);
    all.take(10).unwrap();
    assert!(all.take(1).is_err());
}
