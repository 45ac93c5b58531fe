//! Tests of copies of folders in which each command in turn fails.

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// A folder with files in folders, links, and names that a shell could misread.
fn make(folder: &Path) {
    for inner in ["deep/er", "empty", ".hidden"] {
        fs::create_dir_all(folder.join(inner)).unwrap();
    }
    fs::write(folder.join("deep/er/large"), content()).unwrap();
    for name in ["-n", "*", ".dot", ".hidden/..x\n", "deep/$(x) 'y'"] {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::hard_link(folder.join("-n"), folder.join("deep/second")).unwrap();
    symlink("deep/er/large", folder.join("link")).unwrap();
    symlink("/nowhere//else", folder.join("broken")).unwrap();
    fs::set_permissions(folder.join("deep/er/large"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(folder.join("empty"), fs::Permissions::from_mode(0o1711)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o750)).unwrap();
}

/// All that is below a folder: path, mode, time, and content or target.
fn all(folder: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let (mut found, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(name) = left.pop() {
        let path = folder.join(&name);
        let there = path.symlink_metadata().unwrap();
        let (content, mode, time) = if there.is_dir() {
            left.extend(names(&path).into_iter().map(|child| name.join(child)));
            // Files that are put into a folder change its time.
            (Vec::new(), there.mode() & 0o777, 0)
        } else if there.is_symlink() {
            (fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(), 0, 0)
        } else {
            (fs::read(&path).unwrap(), there.mode() & 0o777, there.mtime())
        };
        found.push((name, mode, time, content));
    }
    found.sort();
    found
}

/// A folder to be copied, beside which nothing else is.
struct Copying {
    here: TempDir,
    there: TempDir,
}

impl Copying {
    fn new() -> Self {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(here.path().join("it")).unwrap();
        make(&here.path().join("it"));
        Copying { here, there }
    }

    fn original(&self) -> PathBuf {
        self.here.path().join("it")
    }

    fn copy(&self) -> PathBuf {
        self.there.path().join("copy")
    }

    async fn push(&self) -> Push {
        let source = Arc::new(Source::open_recursive(self.original()).await.unwrap());
        Push::new(source, self.copy().to_str().unwrap(), policy())
    }

    fn pull(&self) -> PullFolder {
        PullFolder::new(self.original().to_str().unwrap(), self.copy(), policy())
    }

    fn assert_there(&self) {
        assert_eq!(all(&self.original()), all(&self.copy()));
        assert_eq!(names(self.there.path()), ["copy"]);
        assert_eq!(names(self.here.path()), ["it"]);
    }
}

#[tokio::test]
async fn a_folder_is_pushed_again_after_a_failure_of_any_command() {
    for fault in FAULTS {
        for at in 0.. {
            let (guest, copying) = (LocalGuest::with_fault(at, fault), Copying::new());
            let mut push = copying.push().await;
            let first = unless_hung(&guest, push.run(&guest, soon(), &mut |_| {})).await;
            if guest.went_wrong().is_none() {
                assert!(at > 10);
                copying.assert_there();
                break;
            }
            if copying.copy().exists() {
                // The last step was taken, and its answer may be lost: it would not be repeated.
                let unknown = |result: &Result<Pushed>| match result {
                    Ok(_) => true,
                    Err(error) => error.effect() == Effect::Unknown,
                };
                assert!(first.as_ref().is_none_or(unknown), "{fault:?} at {at}: {first:?}");
            } else {
                push.run(&guest, soon(), &mut |_| {}).await.unwrap();
            }
            copying.assert_there();
            assert_closed(&guest, fault);
        }
    }
}

#[tokio::test]
async fn a_folder_is_pulled_again_after_a_failure_of_any_command() {
    for fault in FAULTS {
        for at in 0.. {
            let (guest, copying) = (LocalGuest::with_fault(at, fault), Copying::new());
            let mut pull = copying.pull();
            let first = unless_hung(&guest, pull.run(&guest, soon(), &mut |_| {})).await;
            if guest.went_wrong().is_none() {
                assert!(at > 10);
                copying.assert_there();
                break;
            }
            if !copying.copy().exists() {
                assert!(!matches!(first, Some(Ok(_))), "{fault:?} at {at}");
                pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
            }
            copying.assert_there();
            assert_closed(&guest, fault);
        }
    }
}

#[tokio::test]
async fn another_process_resumes_a_folder() {
    // Some reads and writes are done by then.
    let copying = Copying::new();
    copying
        .push()
        .await
        .run(&LocalGuest::with_fault(8, Fault::Unsent), soon(), &mut |_| {})
        .await
        .unwrap_err();
    let pushed = copying.push().await.run(&LocalGuest::default(), soon(), &mut |_| {}).await.unwrap();
    assert!(pushed.resumed_at > 0, "{pushed:?}");
    copying.assert_there();

    let copying = Copying::new();
    let stopped = copying.pull().run(&LocalGuest::with_fault(11, Fault::Refused), soon(), &mut |_| {}).await;
    let ProtocolError::File(FileError::Stopped { path, done, .. }) = stopped.unwrap_err() else { panic!() };
    assert_eq!(Path::new(&path), copying.original());
    assert!(done > 0);
    let pulled = copying.pull().run(&LocalGuest::default(), soon(), &mut |_| {}).await.unwrap();
    assert_eq!(pulled.resumed_at, done);
    copying.assert_there();
}

#[tokio::test]
async fn files_are_put_into_the_folder_that_is_there() {
    let (copying, guest) = (Copying::new(), LocalGuest::default());
    let named = copying.copy().join("it");
    fs::create_dir_all(named.join("deep")).unwrap();
    fs::write(named.join("kept"), "old").unwrap();
    fs::write(named.join("-n"), "old").unwrap();
    let precious = copying.there.path().join("precious");
    fs::create_dir(&precious).unwrap();
    symlink(&precious, named.join("*")).unwrap();
    copying.push().await.run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert_eq!(fs::read(named.join("kept")).unwrap(), b"old");
    fs::remove_file(named.join("kept")).unwrap();
    fs::set_permissions(&named, copying.original().metadata().unwrap().permissions()).unwrap();
    assert_eq!(all(&copying.original()), all(&named));
    assert_eq!((names(&precious).len(), names(&copying.copy())), (0, vec!["it".to_owned()]));
}

#[tokio::test]
async fn what_cannot_be_replaced_in_the_guest_is_named_and_nothing_changes() {
    let guest = LocalGuest::default();
    for (at, is_link) in [("deep", true), ("deep/er", false), ("link", false), ("-n", false)] {
        let copying = Copying::new();
        let path = copying.copy().join("it").join(at);
        let outside = copying.there.path().join("outside");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir(&outside).unwrap();
        match at {
            _ if is_link => symlink(&outside, &path).unwrap(),
            "deep/er" => fs::write(&path, "old").unwrap(),
            _ => fs::create_dir(&path).unwrap(),
        }
        let error = copying.push().await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("path-occupied", Effect::None), "{error}");
        assert!(error.to_string().contains(&format!("it/{at}:")), "{error}");
        assert_eq!(names(&outside).len(), 0);
        assert!(!copying.copy().join("it/.dot").exists());
    }
}

#[tokio::test]
async fn a_folder_without_recursion_is_refused_with_what_helps() {
    let copying = Copying::new();
    let error = Source::open(copying.original()).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.hint()), ("local-file-error", atp_transport::Hint::COPY_FOLDER));
    let mut pull = Pull::new(copying.original().to_str().unwrap(), copying.copy(), policy());
    let error = pull.run(&LocalGuest::default(), soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.hint()), ("is-a-directory", atp_transport::Hint::COPY_FOLDER));
}

#[tokio::test]
async fn a_file_is_copied_as_one_by_a_copy_of_folders() {
    let (copying, guest) = (Copying::new(), LocalGuest::default());
    let large = copying.original().join("deep/er/large");
    let source = Arc::new(Source::open_recursive(&large).await.unwrap());
    assert!(!source.is_folder());
    let to = copying.copy();
    Push::new(source, to.to_str().unwrap(), policy()).run(&guest, soon(), &mut |_| {}).await.unwrap();
    let mut pull = PullFolder::new(to.to_str().unwrap(), copying.there.path().join("back"), policy());
    pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert_eq!(fs::read(copying.there.path().join("back")).unwrap(), content());
}

#[tokio::test]
async fn a_special_file_of_the_guests_folder_is_refused_by_name() {
    let (copying, guest) = (Copying::new(), LocalGuest::default());
    assert!(
        std::process::Command::new("mkfifo").arg(copying.original().join("fifo")).status().unwrap().success()
    );
    let error = copying.pull().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("archive-refused", Effect::None));
    assert!(error.to_string().contains("fifo") && error.to_string().ends_with("it is a FIFO"), "{error}");
    assert!(names(copying.there.path()).is_empty());
}

#[tokio::test]
async fn a_folder_whose_archive_would_contain_itself_is_refused() {
    let to = tempfile::tempdir().unwrap();
    let mut pull = PullFolder::new("/", to.path().join("copy"), policy());
    let error = pull.run(&LocalGuest::default(), soon(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("no folder for its archive"), "{error}");
}

#[test]
fn a_tar_that_goes_on_is_ended_when_its_time_has_passed_or_its_folder_is_removed() {
    const WATCHED: &str = concat!(
        "own=$1\nmkdir \"$own\"\nsleep 600 >/dev/null 2>&1 </dev/null & tar=$!\n",
        crate::files::script::watch_tar!("$2"),
        "kill -0 $tar 2>/dev/null || echo $code"
    );
    for (seconds, is_removed) in [("1", false), ("600", true)] {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("own");
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", WATCHED, "sh"]).arg(&own).arg(seconds).stdout(std::process::Stdio::piped());
        let shell = shell.spawn().unwrap();
        while is_removed && fs::remove_dir(&own).is_err() {
            std::thread::yield_now();
        }
        // The agent waits for the end of what is written too.
        let said = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said, "143\n", "{seconds}");
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while own.exists() {
            assert!(std::time::Instant::now() < end);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
