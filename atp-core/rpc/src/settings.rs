//! libvirt's own settings for clients: `libvirt.conf`, and where such files are.

use std::future::pending;
use std::io::Read;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::connect_error::ConnectFailure;
use crate::uri::{Uri, UriError};

/// The most of a `libvirt.conf` that is read, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The URI that a text means: itself, or what it is an alias of. None at all is that of `LIBVIRT_DEFAULT_URI`, of
/// `uri_default` in `libvirt.conf`, or whatever the daemon of this machine offers.
pub(crate) async fn resolve(text: &str) -> Result<Uri, ConnectFailure> {
    let given = match text {
        "" => std::env::var("LIBVIRT_DEFAULT_URI").unwrap_or_default(),
        text => text.to_owned(),
    };
    // A text with a colon is no alias; without the file there are none.
    if given.contains(':') {
        return Ok(given.parse()?);
    }
    match Uri::in_libvirt_conf(
        &reading(settings).await?,
        Some(given.as_str()).filter(|alias| !alias.is_empty()),
    ) {
        Some(uri) => Ok(uri.parse()?),
        None if given.is_empty() => Ok(Uri::local()),
        None => Err(UriError::Form.into()),
    }
}

impl Uri {
    /// What an alias stands for in the text of a `libvirt.conf`; without an alias the URI that is to be used by default.
    pub fn in_libvirt_conf<'a>(settings: &'a str, alias: Option<&str>) -> Option<&'a str> {
        match alias {
            Some(alias) => uri_alias(settings, alias),
            None => uri_default(settings),
        }
    }
}

/// What a name stands for in `libvirt.conf` (`uri_aliases`); none if it is no name there.
///
/// # Errors
/// The file cannot be read.
pub fn alias(name: &str) -> Result<Option<String>, ConnectFailure> {
    Ok(uri_alias(&settings()?, name).map(str::to_owned))
}

/// The URI of those who name none: as `LIBVIRT_DEFAULT_URI` says, or `uri_default` in `libvirt.conf`.
///
/// # Errors
/// The file cannot be read.
pub fn default_uri() -> Result<Option<String>, ConnectFailure> {
    match std::env::var("LIBVIRT_DEFAULT_URI") {
        Ok(uri) if !uri.is_empty() => Ok(Some(uri)),
        _ => Ok(uri_default(&settings()?).map(str::to_owned)),
    }
}

/// The text of `libvirt.conf`; empty if there is none.
fn settings() -> Result<String, ConnectFailure> {
    match file("libvirt.conf") {
        Some(path) => read(&path, MAX_FILE),
        None => Ok(String::new()),
    }
}

/// How much of a kind is under way at once, for all hosts. A file system, or a server, that does not answer keeps a thread of the
/// runtime's, which has 512 by default, for longer than its connect waits: the rest is left for others.
const MOST: usize = 64;
static READING: Semaphore = Semaphore::const_new(MOST);
#[cfg(feature = "gssapi")]
static ASKING: Semaphore = Semaphore::const_new(MOST);

/// Does what reads files on a thread for blocking work: one that hangs must not hold up the tasks of a runtime. It counts among those
/// under way until it ends, also if this future is dropped before.
pub(crate) async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ConnectFailure> + Send + 'static,
) -> Result<T, ConnectFailure> {
    apart(&READING, read).await
}

/// The same for what asks other servers, so that they do not hold up what reads files.
#[cfg(feature = "gssapi")]
pub(crate) async fn asking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, ConnectFailure> + Send + 'static,
) -> Result<T, ConnectFailure> {
    apart(&ASKING, ask).await
}

async fn apart<T: Send + 'static>(
    under_way: &'static Semaphore,
    work: impl FnOnce() -> Result<T, ConnectFailure> + Send + 'static,
) -> Result<T, ConnectFailure> {
    let permit = under_way.acquire().await;
    let work = move || {
        let _until_it_ends = permit;
        work()
    };
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is being shut down, and so this is dropped.
            Err(_) => pending().await,
        },
    }
}

/// The file of that name: the user's own, if there is one, else the system's; root has no other than that.
pub(crate) fn file(name: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let own = own.filter(|_| !geteuid().is_root()).map(|folder| folder.join("libvirt").join(name));
    let system = Path::new("/etc/libvirt").join(name);
    own.into_iter().chain([system]).find(|path| path.exists())
}

/// The text of a file of a bounded size.
pub(crate) fn read(path: &Path, most: u64) -> Result<String, ConnectFailure> {
    let mut text = String::new();
    let reading = std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    match reading {
        Ok(_) => Ok(text),
        Err(error) => Err(ConnectFailure::File { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// The value of `uri_default = "…"`.
fn uri_default(settings: &str) -> Option<&str> {
    lines(settings).find_map(|line| {
        let value = line.strip_prefix("uri_default")?.trim_start().strip_prefix('=')?;
        quoted(value).next()
    })
}

/// What an alias of `uri_aliases = [ "alias=uri", … ]` stands for.
fn uri_alias<'a>(settings: &'a str, alias: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in lines(settings) {
        inside |= line.starts_with("uri_aliases");
        if inside {
            let pairs = quoted(line).filter_map(|pair| pair.split_once('='));
            if let Some((_, uri)) = pairs.into_iter().find(|(name, _)| *name == alias) {
                return Some(uri);
            }
            inside = !line.ends_with(']');
        }
    }
    None
}

fn lines(settings: &str) -> impl Iterator<Item = &str> {
    settings.lines().map(str::trim).filter(|line| !line.starts_with('#'))
}

/// The quoted words of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split(['"', '\'']).skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::OnceLock;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SETTINGS: &str = "# uri_default = \"no\"\nuri_aliases = [\n  \"hail=qemu+ssh://root@hail/system?a=b\",\n  \
                            \"snow=qemu:///system\",\n]\nuri_default = \"test:///default\"\n";

    #[tokio::test]
    async fn reads_that_hang_leave_threads_to_others() {
        static ENDS: OnceLock<()> = OnceLock::new();
        // More than the runtime has threads, each given up at once.
        for _ in 0..600 {
            let hanging = || {
                ENDS.wait();
                Ok(())
            };
            tokio::select! {
                biased;
                _ = reading(hanging) => panic!("it hangs"),
                () = ready(()) => {}
            }
        }
        let other = timeout(Duration::from_secs(30), spawn_blocking(|| ())).await;
        ENDS.set(()).unwrap();
        other.expect("a thread is free").unwrap();
    }

    #[test]
    fn aliases_and_the_default() {
        assert_eq!(uri_alias(SETTINGS, "hail"), Some("qemu+ssh://root@hail/system?a=b"));
        assert_eq!(uri_alias(SETTINGS, "snow"), Some("qemu:///system"));
        assert_eq!(uri_alias(SETTINGS, "rain"), None);
        assert_eq!(uri_alias("uri_aliases = [ \"a=b:///\" ]", "a"), Some("b:///"));
        assert_eq!(uri_default(SETTINGS), Some("test:///default"));
        assert_eq!(uri_default("x = 1"), None);
    }
}
