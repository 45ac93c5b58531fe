//! A manager that follows a file: when the file changes, so does the fleet.

use std::fs;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ConfigError, ConfigProblem};
use crate::connection::connector::Connector;
use crate::error::TransportError;
use crate::fleet::Fleet;
use crate::manager::TransportManager;
use crate::observe::events::TransportEvent;

/// A manager follows a file for as long as this is held; see [`TransportManager::follow`].
#[derive(Debug)]
#[must_use = "a manager follows a file only for as long as this is held"]
pub struct Following {
    _watcher: RecommendedWatcher,
    _task: AbortOnDropHandle<()>,
}

impl<C: Connector> TransportManager<C> {
    /// Reads a [`Fleet`] from a file, [applies](Self::apply) it, and does so again whenever the file changes.
    ///
    /// A change that cannot be used changes nothing: the fleet stays as it was, and a
    /// [`ConfigurationRefused`](TransportEvent::ConfigurationRefused) says why. The same goes for a file that has lost
    /// its `hosts` section, as one that is just being written anew has, and for one that is gone. The file may be
    /// written in place, replaced by another, or be a symbolic link that is turned elsewhere.
    ///
    /// # Errors
    /// [`TransportError::Config`] when the file cannot be used now, or its folder cannot be watched.
    ///
    /// Must be called within a tokio runtime. Blocks while it reads the file for the first time; later a thread does.
    pub fn follow(&self, file: impl Into<PathBuf>) -> Result<Following, TransportError> {
        let file = file.into();
        // Watched before it is read for the first time, so that no change falls in between.
        let (texts, read_again) = watch::channel(None);
        let watcher = watch(&file, texts).map_err(|error| cannot_watch(&file, &error))?;
        let text = read(&file)?;
        self.apply(parse(&file, &text)?)?;
        let task = tokio::spawn(follow(self.clone(), file, text, read_again));
        Ok(Following { _watcher: watcher, _task: AbortOnDropHandle::new(task) })
    }
}

/// Applies what the file says whenever that has changed.
async fn follow<C: Connector>(
    manager: TransportManager<C>,
    file: PathBuf,
    mut last: String,
    mut read_again: watch::Receiver<Option<Result<String, ConfigError>>>,
) {
    // A file that cannot be read is reported once, and not again with each change in its folder.
    let mut unreadable = None;
    // Ends with the watcher.
    while read_again.changed().await.is_ok() {
        let fleet = match read_again.borrow_and_update().clone() {
            None => continue,
            Some(Ok(text)) => {
                unreadable = None;
                if text == last {
                    // Something else in its folder changed.
                    continue;
                }
                let fleet = parse(&file, &text);
                last = text;
                fleet
            }
            Some(Err(error)) if unreadable.as_ref() == Some(&error) => continue,
            Some(Err(error)) => {
                unreadable = Some(error.clone());
                Err(error)
            }
        };
        match fleet.map(|fleet| manager.apply(fleet)) {
            Ok(Ok(changes)) => tracing::info!(file = %file.display(), ?changes, "the fleet follows its file"),
            // The manager has emitted that already.
            Ok(Err(error)) => {
                tracing::warn!(file = %file.display(), %error, "a changed fleet cannot be used")
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "a changed fleet cannot be used");
                let problems = error.problems.iter().map(ToString::to_string).collect();
                manager.emit_for_all(TransportEvent::ConfigurationRefused { problems });
            }
        }
    }
}

/// Watches the folder a file is in, for the file itself may be replaced by another, and reads the file when it may
/// have changed.
fn watch(
    file: &Path,
    texts: watch::Sender<Option<Result<String, ConfigError>>>,
) -> notify::Result<RecommendedWatcher> {
    let watched = file.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error may mean that changes were lost, so the file is looked at.
        if event.map_or(true, |event| may_be_complete(&event)) {
            texts.send_replace(Some(read(&watched)));
        }
    })?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Whether a file may be whole after this: not while it is still being written.
fn may_be_complete(event: &notify::Event) -> bool {
    // Some events were lost.
    if event.need_rescan() {
        return true;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_) => true,
        // A symbolic link is made, and never written.
        EventKind::Create(_) => event.paths.iter().any(|path| path.is_symlink()),
        _ => false,
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|error| problem(file, format!("cannot be read: {error}")))
}

/// A file without hosts is one that is not whole yet, more likely than a fleet that has none left.
fn parse(file: &Path, text: &str) -> Result<Fleet, ConfigError> {
    let fleet = Fleet::from_toml(&file.display().to_string(), text)?;
    if fleet.hosts.is_empty() {
        return Err(problem(file, "defines no host".to_owned()));
    }
    Ok(fleet)
}

fn cannot_watch(file: &Path, error: &notify::Error) -> ConfigError {
    problem(file, format!("its folder cannot be watched: {error}"))
}

fn problem(file: &Path, problem: String) -> ConfigError {
    let origin = Some(file.display().to_string());
    ConfigError { problems: vec![ConfigProblem::new("", origin, problem)] }
}
