//! The folders of files: who owns each, how long it is kept, and the names by which clients know what is in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use atp_api::{ConsoleSpec, ErrorKind, OperationSpec, PullSpec, PushSpec, ScreenshotSpec};
use atp_executor::{FilePlaces, Operation, Scenario};
use tokio::fs;

use crate::auth::{Caller, Secret, permit_transfer, permit_verb};
use crate::problem::Refusal;
use crate::settings::ServeConfig;
use crate::time::Clock;

/// The file in each folder that names the token it belongs to.
pub(super) const OWNER: &str = ".owner";

pub(super) fn unwritten(error: std::io::Error) -> Refusal {
    Refusal::new(ErrorKind::StorageFailed, format!("the file cannot be written: {error}"))
}

/// A new folder of a caller, with its id. Folders whose time has passed are removed.
pub(super) async fn make_folder(
    config: &ServeConfig,
    clock: &Clock,
    caller: &Caller,
) -> Result<(String, PathBuf), Refusal> {
    sweep(config, clock).await;
    let id = Secret::new("").map_err(|error| Refusal::new(ErrorKind::Unknown, error.to_string()))?;
    let id = id.reveal().chars().take(32).collect::<String>();
    let folder = root(config)?.join(&id);
    // What guests gave is nobody else's, whatever modes files have.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).await.map_err(unwritten)?;
    fs::write(folder.join(OWNER), &caller.token.name).await.map_err(unwritten)?;
    Ok((id, folder))
}

/// A new folder for what a run makes, if files have not taken all of their room.
async fn make_room(config: &ServeConfig, clock: &Clock, caller: &Caller) -> Result<PathBuf, Refusal> {
    let (id, folder) = make_folder(config, clock, caller).await?;
    let taken = used(config, &HashMap::from([(id, 0)])).await?;
    if taken < config.max_files {
        return Ok(folder);
    }
    // If it stays, it is removed when its time has come.
    let _ = fs::remove_dir_all(&folder).await;
    let problem =
        format!("files have {taken} bytes, and serve.max_files lets them have {}", config.max_files);
    let hint = "remove some with DELETE /api/v1/files/ID, or wait for serve.file_ttl";
    Err(Refusal::new(ErrorKind::StorageFailed, problem).with_hint(hint))
}

/// The folder to which a run writes.
pub(super) fn folder_of(operation: &Operation) -> Option<&Path> {
    match operation {
        Operation::Pull(spec) => Some(&spec.destination),
        Operation::Screenshot(spec) => Some(&spec.folder),
        Operation::Console(spec) => spec.folder.as_deref(),
        Operation::Scenario(scenario) => scenario.places().map(|places| places.folder.as_path()),
        _ => None,
    }
}

fn root(config: &ServeConfig) -> Result<PathBuf, Refusal> {
    let root = config.files();
    root.map_err(|error| Refusal::new(ErrorKind::StorageFailed, error.to_string()))
}

/// Removes folders in which nothing was written, and of which nothing was used, for as long as files are kept. What cannot be removed
/// is tried again with the next file.
async fn sweep(config: &ServeConfig, clock: &Clock) {
    let now = clock.steady();
    let (Ok(root), ttl) = (root(config), config.file_ttl) else { return };
    let Ok(mut folders) = fs::read_dir(&root).await else { return };
    while let Ok(Some(folder)) = folders.next_entry().await {
        let path = folder.path();
        // A run writes for as long as it goes on.
        let last = tokio::task::spawn_blocking(move || changed(&path)).await;
        if last.is_ok_and(|last| last.is_some_and(|last| is_older(last, now, ttl))) {
            let _ = fs::remove_dir_all(folder.path()).await;
        }
    }
}

/// When something was written in a folder last.
fn changed(path: &Path) -> Option<SystemTime> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let own = metadata.modified().ok()?;
    let inside = match metadata.is_dir() {
        true => std::fs::read_dir(path).ok()?.flatten().filter_map(|entry| changed(&entry.path())).max(),
        false => None,
    };
    inside.max(Some(own))
}

/// A file that is used again is kept from now on.
fn touch(folder: &Path) {
    let touched = std::fs::File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(%error, folder = %folder.display(), "the time of a file's use is not kept");
    }
}

fn is_older(made: SystemTime, now: SystemTime, than: Duration) -> bool {
    // A time in the future is that of a clock that was set.
    now.duration_since(made).is_ok_and(|age| age > than)
}

/// The bytes of all files, but for those in the folders `except`.
pub(super) async fn used(config: &ServeConfig, except: &HashMap<String, u64>) -> Result<u64, Refusal> {
    let root = root(config)?;
    let except: Vec<_> = except.keys().map(|id| root.join(id)).collect();
    let counted = tokio::task::spawn_blocking(move || {
        fn size(folder: &Path, except: &[PathBuf]) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
                .filter(|(path, _)| !except.contains(path))
                .map(|(path, metadata)| if metadata.is_dir() { size(&path, &[]) } else { metadata.len() })
                .sum()
        }
        size(&root, &except)
    });
    counted.await.map_err(|_| Refusal::new(ErrorKind::StorageFailed, "the files cannot be counted"))
}

/// The folder of this id, if it is the caller's, or the caller may see those of others.
pub(super) async fn own_folder(config: &ServeConfig, caller: &Caller, id: &str) -> Result<PathBuf, Refusal> {
    let nothing = || Refusal::nothing("there is no such file");
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(nothing());
    }
    let folder = root(config)?.join(id);
    let owner = fs::read_to_string(folder.join(OWNER)).await.map_err(|_| nothing())?;
    let token = &caller.token;
    let may_see = owner == token.name || token.role == atp_api::serve::Role::Admin && token.is_whole();
    if may_see { Ok(folder) } else { Err(nothing()) }
}

/// Whether a name is one of a file in a folder, and not that of its owner's file.
pub(super) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && name != OWNER
        && !name.contains('\0')
}

/// Puts files of the service in the place of those that a client names: the source of a push is the id of a file that was
/// sent; what is pulled, and pictures, go to a new folder.
pub(crate) async fn localise(
    config: &ServeConfig,
    clock: &Clock,
    caller: &Caller,
    operation: OperationSpec,
) -> Result<OperationSpec, Refusal> {
    Ok(match operation {
        OperationSpec::Push(spec) => {
            permit_transfer(&caller.token)?;
            let id = spec.source.to_str().unwrap_or_default();
            let source = sent(config, caller, id, "operation.source").await?;
            OperationSpec::Push(PushSpec { source, packed: spec.recursive, ..spec })
        }
        OperationSpec::Pull(spec) => {
            permit_transfer(&caller.token)?;
            let destination = make_room(config, clock, caller).await?;
            OperationSpec::Pull(PullSpec { destination, separate: true, packed: spec.recursive, ..spec })
        }
        OperationSpec::Screenshot(spec) => {
            permit_verb(&caller.token, &Operation::Screenshot(spec.clone()))?;
            let folder = make_room(config, clock, caller).await?;
            OperationSpec::Screenshot(ScreenshotSpec { folder, ..spec })
        }
        // Who reads the lines needs no file.
        OperationSpec::Console(spec) if spec.folder.is_some() || !spec.lines => {
            permit_verb(&caller.token, &Operation::Console(spec.clone()))?;
            let folder = make_room(config, clock, caller).await?;
            OperationSpec::Console(ConsoleSpec { folder: Some(folder), ..spec })
        }
        operation => operation,
    })
}

/// Where the steps of a scenario read and write files: those that they push were sent, under these ids; what they make goes to a
/// new folder.
pub(crate) async fn places(
    config: &ServeConfig,
    clock: &Clock,
    caller: &Caller,
    scenario: &Scenario,
    files: &BTreeMap<String, String>,
) -> Result<FilePlaces, Refusal> {
    const FIELD: &str = "operation.files";
    // Of a file whose name depends on the VM it is seen when the step needs it.
    if let Some(path) = scenario.pushed(None).into_iter().flatten().find(|path| !files.contains_key(path)) {
        let refusal = Refusal::field(FIELD, format!("names no file for {path:?}, which a step pushes"));
        return Err(refusal.with_hint("send the file with POST /api/v1/files, and give its id by this path"));
    }
    let mut known = BTreeMap::new();
    for (path, id) in files {
        known.insert(path.clone(), sent(config, caller, id, FIELD).await?);
    }
    let folder = make_room(config, clock, caller).await?;
    Ok(FilePlaces { sent: known, folder })
}

/// The file that a client has sent under an id.
async fn sent(config: &ServeConfig, caller: &Caller, id: &str, field: &str) -> Result<PathBuf, Refusal> {
    let folder = own_folder(config, caller, id).await.map_err(|_| {
        let refusal = Refusal::field(field, "expected the id of a file that was sent");
        refusal.with_hint("send the file with POST /api/v1/files first")
    })?;
    touch(&folder);
    only_file(&folder, field).await
}

async fn only_file(folder: &Path, field: &str) -> Result<PathBuf, Refusal> {
    let mut entries = fs::read_dir(folder).await.map_err(unwritten)?;
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name() != OWNER {
            return Ok(entry.path());
        }
    }
    Err(Refusal::field(field, "the file was not sent to its end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_one_file() {
        for (name, is) in [
            ("a", true),
            ("a b.tar.gz", true),
            (".bashrc", true),
            ("", false),
            (".", false),
            ("..", false),
            (".owner", false),
            ("a/b", false),
            ("/a", false),
            ("a/", false),
        ] {
            assert_eq!(is_plain(name), is, "{name}");
        }
    }
}
