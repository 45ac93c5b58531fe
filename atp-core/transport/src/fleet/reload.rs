//! A manager that follows a file: when the file changes, so does the fleet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_settings::Sources;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::spec::Fleet;
use crate::config::{ConfigError, ConfigProblem};
use crate::connection::connector::Connector;
use crate::error::TransportError;
use crate::manager::TransportManager;
use crate::observe::events::TransportEvent;

/// How long a file that has vanished, or has lost hosts, counts as being saved: an editor may move it away, or empty it, before
/// it writes the new one. That takes milliseconds, and longer in a folder on a slow network.
const SETTLE: Duration = Duration::from_secs(2);

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
    /// A file that vanishes, or loses hosts, may only be being saved. Such a change is applied after two seconds, unless
    /// the file is whole again by then. Of [several files](Sources::files), which need not exist, one whose folder does not exist when this is called is read now and with every change of
    /// another file, and its own changes are not noticed.
    ///
    /// Values that the sources lack are the library's defaults, and not those of the command line, which has its own for pools;
    /// see [`Sources::with_defaults`].
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
        let first = read(&sources);
        self.apply(first.fleet.clone()?)?;
        let task = tokio::spawn(follow(self.clone(), name(&sources), first, read_again));
        Ok(Following { _watcher: watcher, _task: AbortOnDropHandle::new(task) })
    }
}

/// What the sources said when they were read.
#[derive(Debug, Clone, PartialEq)]
struct Read {
    /// The fleet, or why it cannot be used.
    fleet: Result<Fleet, ConfigError>,
    /// The files that were there.
    files: Vec<PathBuf>,
}

impl Read {
    /// Whether every file and host is there that was there before. Of sources that cannot be used it is not known.
    fn has_all_of(&self, before: &Read) -> bool {
        let (Ok(now), Ok(then)) = (&self.fleet, &before.fleet) else { return true };
        let hosts: BTreeSet<_> = now.hosts.iter().map(|host| &host.id).collect();
        then.hosts.iter().all(|host| hosts.contains(&host.id))
            && before.files.iter().all(|file| self.files.contains(file))
    }
}

/// Applies what the files say whenever that has changed.
async fn follow<C: Connector>(
    manager: TransportManager<C>,
    name: String,
    first: Read,
    mut read_again: watch::Receiver<Option<Read>>,
) {
    let (mut last, mut applied) = (first.clone(), first);
    // Ends with the watcher.
    while read_again.changed().await.is_ok() {
        let Some(read) = settled(&applied, &mut read_again).await else { continue };
        if read.fleet == last.fleet {
            // Something else in a folder changed.
            continue;
        }
        last = read;
        match last.fleet.clone().map(|fleet| manager.apply(fleet)) {
            Ok(Ok(changes)) => {
                tracing::info!(file = name, %changes, "the fleet follows its file");
                applied = last.clone();
            }
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

/// Takes what was read last. If a file or a host is missing that was there before, waits until it is there again, but not
/// for longer than [`SETTLE`].
async fn settled(before: &Read, read_again: &mut watch::Receiver<Option<Read>>) -> Option<Read> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let read = read_again.borrow_and_update().clone()?;
        // An error is that the watcher is gone, with which the task ends.
        if read.has_all_of(before) || !matches!(timeout_at(deadline, read_again.changed()).await, Ok(Ok(())))
        {
            return Some(read);
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
    let (fleet, files) = Fleet::load_with_files(sources);
    let fleet = fleet.and_then(|fleet| match fleet.hosts.is_empty() {
        true => Err(problem(sources, "defines no host".to_owned())),
        false => Ok(fleet),
    });
    Read { fleet, files }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(files: &[&str], hosts: &[&str]) -> Read {
        let host = |id: &&str| format!("[hosts.{id}]\nuri = 'test:///default'\n");
        let fleet = Fleet::from_toml("x", &hosts.iter().map(host).collect::<String>());
        Read { fleet, files: files.iter().map(PathBuf::from).collect() }
    }

    async fn is_settled_late(saving: Read) {
        let before = read_of(&["a", "b"], &["h1", "h2"]);
        let whole = read_of(&["a", "b"], &["h1", "h2", "h3"]);
        let (fleets, mut read_again) = watch::channel(Some(saving.clone()));
        let began = Instant::now();
        let saved = async {
            tokio::time::sleep(SETTLE / 2).await;
            fleets.send_replace(Some(saving.clone()));
            tokio::time::sleep(SETTLE / 4).await;
            fleets.send_replace(Some(whole.clone()));
        };
        let (read, ()) = tokio::join!(settled(&before, &mut read_again), saved);
        assert_eq!((read, began.elapsed()), (Some(whole.clone()), SETTLE / 4 * 3));

        // A change by which nothing goes is taken at once, ...
        let began = Instant::now();
        fleets.send_replace(Some(whole.clone()));
        assert_eq!(settled(&before, &mut read_again).await, Some(whole));
        assert_eq!(began.elapsed(), Duration::ZERO);

        // ... and what stays away is gone.
        fleets.send_replace(Some(saving.clone()));
        assert_eq!(settled(&before, &mut read_again).await, Some(saving));
        assert_eq!(began.elapsed(), SETTLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_away_or_empty_for_a_moment_keeps_its_hosts() {
        is_settled_late(read_of(&["a"], &["h1"])).await;
        is_settled_late(read_of(&["a", "b"], &["h1"])).await;
        // A file may have settings for all hosts, and no host.
        is_settled_late(read_of(&["a"], &["h1", "h2"])).await;
    }
}
