//! Other Debian releases, installed in folders of the cache, for their libvirt and QEMU.
//!
//! A folder is made once, under a lock, and cached under a hash of the recipe. The daemons are run from there by
//! `daemon.sh`.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache;
use crate::command::run;
use crate::error::{Error, Result};
use crate::libvirt::Libvirt;
use crate::session;

const INSTALL: &str = include_str!("release.sh");
const MODULAR: &str = include_str!("modular.sh");

/// For a download of some 150 MB over a slow line, and its installation on a busy machine.
const INSTALL_DEADLINE: Duration = Duration::from_secs(1800);
/// For questions to apt about what it knows.
const LOCAL_DEADLINE: Duration = Duration::from_secs(60);

/// A Debian release in the cache.
#[derive(Debug)]
pub(crate) struct Release {
    /// The folder with its files.
    pub(crate) root: PathBuf,
    /// The folder with its virtqemud and virtproxyd, if its libvirt is a modular one.
    pub(crate) modular: Option<PathBuf>,
}

/// Finds the release of a libvirt in the cache, or installs it, with the programs of a modular one. `None` for the
/// machine's own libvirt.
pub(crate) fn ensure(libvirt: Libvirt) -> Result<Option<Release>> {
    let Some(suite) = libvirt.suite() else { return Ok(None) };
    // An archive that lacks a release, or its sources, says so in words that do not name it.
    let run = |script, name, arguments: &[&OsStr]| {
        run_script(script, name, arguments).map_err(|error| Error::Release {
            suite: suite.to_owned(),
            mirror: mirror().unwrap_or_default(),
            source: Box::new(error),
        })
    };
    let root = made(&format!("release-{suite}"), INSTALL, |folder| {
        run(INSTALL, "release.sh", &[suite.as_ref(), folder.as_ref(), mirror()?.as_ref()])
    })?;
    let modular = libvirt.is_modular().then(|| {
        made(&format!("modular-{suite}"), MODULAR, |folder| {
            run(MODULAR, "modular.sh", &[root.as_ref(), folder.as_ref()])
        })
    });
    Ok(Some(Release { root, modular: modular.transpose()? }))
}

/// The folder of the cache with this name and a hash of its recipe. It is made if it does not exist, under a lock.
fn made(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache::folder()?;
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    let finished = cache.join(format!("{name}-{:016x}", hasher.finish()));
    if finished.is_dir() {
        return Ok(finished);
    }
    let _lock = cache::lock(&cache.join(format!("{name}.lock")))?;
    if finished.is_dir() {
        return Ok(finished);
    }
    // This process holds the lock, so a folder of this name was left by one that was interrupted.
    let building = cache.join(format!("{name}.building"));
    remove(&building)?;
    if let Err(error) = make(&building) {
        // It is removed later if this fails.
        let _ = remove(&building);
        return Err(error);
    }
    fs::rename(&building, &finished).map_err(Error::io(format!("making {}", finished.display())))?;
    Ok(finished)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Runs a script in a mount namespace, so that what it mounts is gone when it ends.
fn run_script(script: &str, name: &str, arguments: &[&OsStr]) -> Result<()> {
    let mut command = Command::new("unshare");
    // An error shows the command line, in which the script would be too long to read.
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", r#"eval "$SCRIPT""#, name])
        .args(arguments);
    run(command.env("SCRIPT", script).env("PATH", session::PATH), INSTALL_DEADLINE).map(drop)
}

/// The archive from which this machine's apt installs the release that it runs.
fn mirror() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").map_err(Error::io("reading /etc/os-release"))?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.map(|name| name.trim_matches('"')).unwrap_or("stable");
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]);
    let targets = run(&mut targets, LOCAL_DEADLINE)?;
    archive_of(&targets, codename).map(str::to_owned).ok_or_else(|| {
        Error::State(format!(
            "the apt sources of this machine have no archive of Debian's release {codename}"
        ))
    })
}

/// The first archive with the release and the component `main`, of lines with archive, release and component.
fn archive_of<'a>(targets: &'a str, release: &str) -> Option<&'a str> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let archive = words.next()?;
        (words.next() == Some(release) && words.next() == Some("main")).then_some(archive)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_that_of_the_release_itself() {
        let targets = "http://a.test/other stable main\nhttp://b.test/debian bookworm-updates main\n\
                       http://c.test/debian bookworm contrib\nhttp://d.test/debian bookworm main\n";
        assert_eq!(archive_of(targets, "bookworm"), Some("http://d.test/debian"));
        assert_eq!(archive_of(targets, "trixie"), None);
    }
}
