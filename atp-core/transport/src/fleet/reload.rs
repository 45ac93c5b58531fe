//! A manager that follows a file: when the file changes, so does the fleet.

use std::collections::BTreeSet;
use std::path::Path;

use atp_settings::Sources;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::spec::Fleet;
use crate::config::{ConfigError, ConfigProblem};
use crate::connection::connector::Connector;
use crate::error::TransportError;
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
    /// Reads a [`Fleet`] from a file, or from other [sources](Sources), [applies](Self::apply) it, and does so again whenever
    /// one of the files changes.
    ///
    /// A change that cannot be used changes nothing: the fleet stays as it was, and a
    /// [`ConfigurationRefused`](TransportEvent::ConfigurationRefused) says why. The same goes for files that have lost
    /// their `hosts` section, as one that is just being written anew has, and for one that is gone and has to be there. A
    /// file may be written in place, replaced by another, or be a symbolic link that is turned elsewhere. What the command
    /// line keeps in the same file is passed over.
    ///
    /// # Errors
    /// [`TransportError::Config`] when the sources cannot be used now, or a file's folder cannot be watched.
    ///
    /// Must be called within a tokio runtime. Blocks while it reads the files for the first time; later a thread does.
    pub fn follow(&self, sources: impl Into<Sources>) -> Result<Following, TransportError> {
        let sources = sources.into();
        // Watched before they are read for the first time, so that no change falls in between.
        let (fleets, read_again) = watch::channel(None);
        let watcher = watch(&sources, fleets).map_err(|error| cannot_watch(&sources, &error))?;
        let fleet = read(&sources)?;
        self.apply(fleet.clone())?;
        let task = tokio::spawn(follow(self.clone(), name(&sources), Ok(fleet), read_again));
        Ok(Following { _watcher: watcher, _task: AbortOnDropHandle::new(task) })
    }
}

/// A fleet as it was read, or why it cannot be used.
type Read = Result<Fleet, ConfigError>;

/// Applies what the files say whenever that has changed.
async fn follow<C: Connector>(
    manager: TransportManager<C>,
    name: String,
    mut last: Read,
    mut read_again: watch::Receiver<Option<Read>>,
) {
    // Ends with the watcher.
    while read_again.changed().await.is_ok() {
        let Some(fleet) = read_again.borrow_and_update().clone() else { continue };
        if fleet == last {
            // Something else in a folder changed.
            continue;
        }
        last = fleet.clone();
        match fleet.map(|fleet| manager.apply(fleet)) {
            Ok(Ok(changes)) => tracing::info!(file = name, ?changes, "the fleet follows its file"),
            // The manager has emitted that already.
            Ok(Err(error)) => tracing::warn!(file = name, %error, "a changed fleet cannot be used"),
            Err(error) => {
                tracing::warn!(file = name, %error, "a changed fleet cannot be used");
                let problems = error.problems.iter().map(ToString::to_string).collect();
                manager.emit_for_all(TransportEvent::ConfigurationRefused { problems });
            }
        }
    }
}

/// Watches the folders that the files are in, for a file itself may be replaced by another, and reads the files when one
/// may have changed.
fn watch(sources: &Sources, fleets: watch::Sender<Option<Read>>) -> notify::Result<RecommendedWatcher> {
    let watched = sources.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error may mean that changes were lost, so the files are looked at.
        if event.map_or(true, |event| may_be_complete(&event)) {
            fleets.send_replace(Some(read(&watched)));
        }
    })?;
    let folder = |file: &Path| {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    };
    let folders: BTreeSet<_> = sources.paths().iter().map(|file| folder(file)).collect();
    // One that need not exist may be in a folder that is not there, and then it is not followed.
    let folders = folders.into_iter().filter(|folder| sources.must_exist() || folder.exists());
    for folder in folders {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
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

/// A fleet without hosts is in a file that is not whole yet, more likely than it has none left.
fn read(sources: &Sources) -> Read {
    let fleet = Fleet::load(sources)?;
    if fleet.hosts.is_empty() {
        return Err(problem(sources, "defines no host".to_owned()));
    }
    Ok(fleet)
}

fn cannot_watch(sources: &Sources, error: &notify::Error) -> ConfigError {
    problem(sources, format!("its folder cannot be watched: {error}"))
}

fn problem(sources: &Sources, problem: String) -> ConfigError {
    ConfigError { problems: vec![ConfigProblem::new("", Some(name(sources)), problem)] }
}

/// What the sources are called in messages: the names of the files.
fn name(sources: &Sources) -> String {
    let names: Vec<_> = sources.paths().iter().map(|file| file.display().to_string()).collect();
    names.join(", ")
}
