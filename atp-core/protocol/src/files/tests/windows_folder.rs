//! Tests of copies of folders to and from a guest that plays Windows.

use super::*;

/// The names that Windows has too, in a folder with and without files.
fn make(folder: &Path) {
    for inner in ["deep/er", "empty", ".hidden"] {
        fs::create_dir_all(folder.join(inner)).unwrap();
    }
    fs::write(folder.join("deep/er/large"), content()).unwrap();
    for name in ["-n", ".dot", "deep/$(x) 'y'", "deep/Grüße"] {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::set_permissions(folder.join("-n"), fs::Permissions::from_mode(0o666)).unwrap();
}

/// All that is below a folder: path, and content.
fn all(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let (mut found, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(name) = left.pop() {
        let path = folder.join(&name);
        if path.is_dir() {
            left.extend(names(&path).into_iter().map(|child| name.join(child)));
            found.push((name, None));
        } else {
            found.push((name, Some(fs::read(&path).unwrap())));
        }
    }
    found.sort();
    found
}

struct Here(TempDir);

impl Here {
    fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        fs::create_dir(here.path().join("it")).unwrap();
        make(&here.path().join("it"));
        Here(here)
    }

    fn it(&self) -> PathBuf {
        self.0.path().join("it")
    }

    async fn push(&self, to: &str) -> Push {
        Push::new(Arc::new(Source::open_recursive(self.it()).await.unwrap()), to, policy())
    }
}

/// The faults that the guest has.
const COPY_FAULTS: [Fault; 3] = [Fault::Unsent, Fault::Unanswered, Fault::Refused];

#[tokio::test]
async fn a_folder_goes_to_a_windows_guest_and_comes_back() {
    let (guest, here) = (WindowsGuest::new(), Here::new());
    let there = guest.drive.path();
    for (to, at) in
        [(r"C:\new", "new"), (r"C:\newer\", "newer"), ("C:/new", "new/it"), (r"C:\new\", "new/it")]
    {
        let pushed = here.push(to).await.run(&guest, soon(), &mut |_| {}).await.unwrap();
        assert_eq!(pushed.path, format!("C:\\{}", at.replace('/', "\\")));
        assert_eq!(all(&here.it()), all(&there.join(at)), "{to}");
    }
    assert_eq!(names(there), ["new", "newer"]);
    // What is in the folder stays, and a file is replaced.
    fs::write(there.join("new/it/kept"), "old").unwrap();
    fs::write(there.join("new/it/-n"), "old").unwrap();
    here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert_eq!(fs::read(there.join("new/it/kept")).unwrap(), b"old");
    fs::remove_file(there.join("new/it/kept")).unwrap();
    assert_eq!(all(&here.it()), all(&there.join("new/it")));
    assert_eq!(names(&there.join("new")).into_iter().filter(|name| name.starts_with(".atp")).count(), 0);

    let back = here.0.path().join("back");
    for from in [r"C:\newer", "C:/newer/", r"C:\newer\"] {
        let mut pull = PullFolder::new(from, &back, policy());
        pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
        assert_eq!(all(&here.it()), all(&back), "{from}");
    }
    // Windows has no such modes, and its `tar` writes those of everybody.
    let mode = |name: &str| back.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("-n"), mode("deep")), (0o644, 0o755));
    assert_eq!(names(&there.join("Temp")).len(), 0);
    assert_eq!(guest.open_files(), 0);
    let mut pull = PullFolder::new(r"C:\newer\-n", here.0.path().join("file"), policy());
    pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert_eq!(fs::read(here.0.path().join("file")).unwrap(), b"-n");
}

#[tokio::test]
async fn a_folder_is_pushed_to_windows_again_after_a_failure_of_any_command() {
    for fault in COPY_FAULTS {
        for at in 0.. {
            let (guest, here) = (WindowsGuest::with_fault(at, fault), Here::new());
            let mut push = here.push(r"C:\new").await;
            let first = push.run(&guest, soon(), &mut |_| {}).await;
            let copy = guest.drive.path().join("new");
            if guest.went_wrong().is_none() {
                assert!(at > 10);
                break;
            }
            if copy.exists() {
                // The last step was taken, and its answer is lost: it would not be repeated.
                let is_unknown = first.as_ref().is_err_and(|error| error.effect() == Effect::Unknown);
                assert!(first.is_ok() || is_unknown, "{fault:?} at {at}: {first:?}");
            } else {
                push.run(&guest, soon(), &mut |_| {}).await.unwrap();
            }
            assert_eq!(all(&here.it()), all(&copy), "{fault:?} at {at}");
            assert_eq!(names(guest.drive.path()), ["new"], "{fault:?} at {at}");
        }
    }
}

#[tokio::test]
async fn a_folder_is_pulled_from_windows_again_after_a_failure_of_any_command() {
    for fault in COPY_FAULTS {
        for at in 0.. {
            let (guest, here) = (WindowsGuest::with_fault(at, fault), tempfile::tempdir().unwrap());
            let original = guest.drive.path().join("it");
            fs::create_dir(&original).unwrap();
            make(&original);
            let copy = here.path().join("copy");
            let mut pull = PullFolder::new(r"C:\it", &copy, policy());
            let first = pull.run(&guest, soon(), &mut |_| {}).await;
            if guest.went_wrong().is_none() {
                assert!(at > 10);
                break;
            }
            if !copy.exists() {
                assert!(first.is_err(), "{fault:?} at {at}");
                pull.run(&guest, soon(), &mut |_| {}).await.unwrap();
            }
            assert_eq!(all(&original), all(&copy), "{fault:?} at {at}");
            assert_eq!(names(here.path()), ["copy"], "{fault:?} at {at}");
        }
    }
}

#[tokio::test]
async fn another_process_resumes_a_folder_of_windows() {
    let here = Here::new();
    let guest = WindowsGuest::with_fault(8, Fault::Unsent);
    here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let pushed = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap();
    assert!(pushed.resumed_at > 0, "{pushed:?}");
    assert_eq!(all(&here.it()), all(&guest.drive.path().join("new")));

    let guest = WindowsGuest::with_fault(11, Fault::Refused);
    make(&guest.drive.path().join("it"));
    let pull = || PullFolder::new(r"C:\it", here.0.path().join("copy"), policy());
    let stopped = pull().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    let ProtocolError::File(FileError::Stopped { path, done, .. }) = stopped else { panic!("{stopped:?}") };
    assert!(path == r"C:\it" && done > 0);
    assert_eq!(pull().run(&guest, soon(), &mut |_| {}).await.unwrap().resumed_at, done);
    assert_eq!(all(&guest.drive.path().join("it")), all(&here.0.path().join("copy")));
}

#[tokio::test]
async fn what_windows_cannot_have_is_refused_by_name_before_anything_is_sent() {
    for (name, why) in
        [("deep/a:b", "':'"), ("con.txt", "CON"), ("dot.", "dot"), (".DOT", "upper and lower case")]
    {
        let (guest, here) = (WindowsGuest::new(), Here::new());
        fs::write(here.it().join(name), "x").unwrap();
        let error = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("local-file-error", Effect::None), "{name}");
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("it/") && reason.contains(why), "{error}: {reason}");
        assert!(guest.commands().is_empty());
        // Any other guest has it.
        let to = here.0.path().join("copy");
        let mut push = here.push(to.to_str().unwrap()).await;
        push.run(&LocalGuest::default(), soon(), &mut |_| {}).await.unwrap();
    }
    let (guest, here) = (WindowsGuest::new(), Here::new());
    symlink("-n", here.it().join("deep/link")).unwrap();
    let error = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().ends_with("it/deep/link"), "{error}");
    assert!(guest.commands().is_empty());
    // An archive that is there is looked at as well.
    let source = Source::open_recursive(here.it()).await.unwrap();
    let source = Arc::new(Source::open_archive(source.archive().unwrap()).await.unwrap());
    let error = Push::new(source, r"C:\new", policy()).run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().ends_with("deep/link"), "{error}");
    assert!(guest.commands().is_empty());
    // A path that is too long where it is to go, and the folder's own name, if it gets it.
    let (guest, here) = (WindowsGuest::new(), Here::new());
    let folder = here.it().join("n".repeat(150));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("n".repeat(80)), "x").unwrap();
    let error = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("guest-file-error", Effect::None), "{error}");
    assert!(names(guest.drive.path()).is_empty());
    fs::remove_dir_all(folder).unwrap();
    fs::rename(here.it(), here.0.path().join("nul")).unwrap();
    let source = Arc::new(Source::open_recursive(here.0.path().join("nul")).await.unwrap());
    let push = || Push::new(source.clone(), r"C:\new", policy());
    push().run(&guest, soon(), &mut |_| {}).await.unwrap();
    let error = push().run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("nul: NUL is the name of a device there"), "{error}");
}

#[tokio::test]
async fn a_link_in_a_windows_guest_is_named_and_nothing_changes() {
    for at in ["deep", "deep/er", "-n"] {
        let (guest, here) = (WindowsGuest::new(), Here::new());
        let (outside, path) = (tempfile::tempdir().unwrap(), guest.drive.path().join("new/it").join(at));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(outside.path(), &path).unwrap();
        let error = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("path-occupied", Effect::None), "{error}");
        assert!(error.to_string().contains(&format!(r"C:\new\it\{}:", at.replace('/', r"\"))), "{error}");
        assert!(names(outside.path()).is_empty() && !guest.drive.path().join("new/it/.dot").exists());
        // Nor is one read.
        let mut pull = PullFolder::new(r"C:\new\it", here.0.path().join("copy"), policy());
        let error = pull.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("archive-refused", Effect::None), "{error}");
        assert!(error.to_string().contains(at) && !here.0.path().join("copy").exists(), "{error}");
    }
    // Nor is one at the folder's own name.
    let (guest, here) = (WindowsGuest::new(), Here::new());
    fs::create_dir(guest.drive.path().join("new")).unwrap();
    symlink("/nowhere", guest.drive.path().join("new/it")).unwrap();
    let error = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), r"cannot write to C:\new\it: it is a link or another reparse point");
    assert_eq!(names(&guest.drive.path().join("new")), ["it"]);
}

#[tokio::test]
async fn a_windows_guest_without_tar_or_a_folder_says_so() {
    let (guest, here) = (WindowsGuest::old(), Here::new());
    fs::create_dir(guest.drive.path().join("dir")).unwrap();
    fs::write(guest.drive.path().join("file"), "x").unwrap();
    let copy = here.0.path().join("copy");
    let pull =
        async |path: &str| PullFolder::new(path, &copy, policy()).run(&guest, soon(), &mut |_| {}).await;
    for error in [
        here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err(),
        pull(r"C:\dir").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("no `tar`"), "{error}");
        assert!(error.hint().contains("Windows 10 1803"), "{}", error.hint());
        assert_eq!((error.kind().as_str(), error.effect()), ("guest-file-error", Effect::None));
    }
    assert_eq!(pull(r"C:\none").await.unwrap_err().kind(), "file-not-found");
    for (to, kind) in [(r"C:\file", "not-a-directory"), (r"C:\none\x", "file-not-found")] {
        let error = here.push(to).await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), (kind, Effect::None), "{error}");
    }
    assert_eq!(names(guest.drive.path()), ["dir", "file"]);
}

#[tokio::test]
async fn a_folder_in_place_in_part_has_an_unknown_effect_on_windows() {
    for (status, effect) in [(9, Effect::None), (1, Effect::Unknown), (7, Effect::Unknown)] {
        let (guest, here) = (WindowsGuest::ending_with(status), Here::new());
        let error = here.push(r"C:\new").await.run(&guest, soon(), &mut |_| {}).await.unwrap_err();
        assert_eq!(error.effect(), effect, "exit code {status}");
    }
}

/// What is open at the end of a script of PowerShell, and the line of a string that does not end on it.
fn open_in(script: &str) -> Option<String> {
    let mut open = Vec::new();
    for line in script.lines() {
        let (mut quote, mut characters) = (None, line.chars());
        while let Some(character) = characters.next() {
            match (quote, character) {
                (Some('"'), '`') => drop(characters.next()),
                (Some(begun), _) if begun == character => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(character),
                (None, '(' | '[' | '{') => open.push(character),
                (None, ')' | ']' | '}') => {
                    let begun = open.pop();
                    if !matches!((begun, character), (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')) {
                        return Some(format!("{character} in {line}"));
                    }
                }
                (None, character) if character.is_control() => return Some(line.to_owned()),
                _ => {}
            }
        }
        if quote.is_some() {
            return Some(line.to_owned());
        }
    }
    (!open.is_empty()).then(|| format!("{open:?}"))
}

/// No PowerShell reads them here. This finds a lost quote, bracket or backslash.
#[test]
fn the_scripts_for_windows_close_what_they_open() {
    for (name, script) in WINDOWS_SCRIPTS.into_iter().chain(crate::exec::WINDOWS_SCRIPTS) {
        assert_eq!(open_in(script), None, "{name}");
        assert!(script.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{name}");
    }
    assert_eq!(open_in(crate::windows::HEAD), None);
    for wrong in ["say '\\", "\"$own\new\"", "if($x{exit}", "say 'a'+'", "exit)"] {
        assert!(open_in(wrong).is_some(), "{wrong}");
    }
}
