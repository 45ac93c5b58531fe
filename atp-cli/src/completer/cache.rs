//! VM names for completion, cached for a short time: pressing the key twice asks the hosts once.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atp_transport::{ExecuteOptions, HostInfo, TransportManager};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::time::Instant;

use super::Vms;
use crate::settings::Settings;

/// How long cached names are valid.
const FRESH: Duration = Duration::from_secs(60);

/// Maximum wait for hosts.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The cache file, below the user's cache folder.
const FILE: &str = "atp/vms.json";

/// The answer of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// A host with another URI is another host, even under the same id.
    uri: String,
    /// Seconds since 1970.
    at: u64,
    names: Vec<String>,
}

type Entries = BTreeMap<String, Entry>;

/// The VMs of these hosts: from the cache if it is fresh, else from the hosts that answer in time.
pub(super) fn vms(hosts: &[HostInfo], settings: &Settings) -> Vms {
    let file = file();
    let mut entries = file.as_deref().map(read).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    entries.retain(|_, entry| is_fresh(entry, now));
    let unknown: Vec<_> = hosts
        .iter()
        .filter(|host| entries.get(&host.id).is_none_or(|entry| entry.uri != key(host)))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        for (id, names) in ask(&unknown, settings) {
            let Some(host) = unknown.iter().find(|host| host.id == id) else { continue };
            entries.insert(id, Entry { uri: key(host), at: now, names });
        }
        if let Some(file) = file {
            // If it fails, the next completion asks again.
            let _ = write(&file, &entries);
        }
    }
    let is_wanted = |id: &String| hosts.iter().any(|host| &host.id == id);
    entries.into_iter().filter(|(id, _)| is_wanted(id)).map(|(id, entry)| (id, entry.names)).collect()
}

fn is_fresh(entry: &Entry, now: u64) -> bool {
    // An entry from the future, after the clock was set back, is not fresh.
    (entry.at..=entry.at.saturating_add(FRESH.as_secs())).contains(&now)
}

/// Identifies a host's URI without storing secrets that it may contain.
fn key(host: &HostInfo) -> String {
    crate::settings::mask_uri(&host.effective_uri())
}

/// Lists hosts, each until the wait ends. A host that does not answer is cached without VMs, so that it is not waited
/// for each time.
fn ask(hosts: &[HostInfo], settings: &Settings) -> Vms {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vms::new();
    };
    let manager = TransportManager::new(settings.transport.clone());
    let listings = runtime.block_on(async {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        let mut asked = tokio::task::JoinSet::new();
        for host in hosts {
            // A host that cannot be used has no VMs to offer.
            let _ = manager.add_host(host.clone()).await;
            let (manager, id) = (manager.clone(), host.id.clone());
            asked.spawn(async move {
                let listing = manager.execute_on_host_with(
                    &id,
                    ExecuteOptions::by(deadline),
                    |connection| async move { connection.list_domains().await },
                );
                let domains = listing.await.unwrap_or_default();
                (id, domains.into_iter().map(|domain| domain.name).collect())
            });
        }
        asked.join_all().await
    });
    runtime.shutdown_background();
    listings.into_iter().collect()
}

fn file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join(FILE))
}

fn read(file: &Path) -> Entries {
    fs::read(file).map(|text| parse(&text)).unwrap_or_default()
}

/// A file that is no valid cache is an empty cache.
fn parse(text: &[u8]) -> Entries {
    serde_json::from_slice(text).unwrap_or_default()
}

/// Replaces the file in one step. Only the owner may read it: VM names are private.
fn write(file: &Path, entries: &Entries) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(&serde_json::to_vec(entries)?)?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_fresh_for_a_minute() {
        let entry = Entry { uri: String::new(), at: 1000, names: Vec::new() };
        for (now, fresh) in [(999, false), (1000, true), (1060, true), (1061, false)] {
            assert_eq!(is_fresh(&entry, now), fresh, "{now}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_file_says_no_entry_lasts_longer_than_it_may(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            at in prop_oneof![any::<u64>(), Just(u64::MAX), 0..200_u64],
            name in any::<String>(),
            now in prop_oneof![any::<u64>(), 0..200_u64],
        ) {
            parse(&bytes);
            let text = serde_json::json!({"h1": {"uri": "u", "at": at, "names": [name]}}).to_string();
            for (_, entry) in parse(text.as_bytes()) {
                prop_assert_eq!(&entry.names, std::slice::from_ref(&name));
                let lasts = is_fresh(&entry, now);
                prop_assert_eq!(lasts, now.checked_sub(at).is_some_and(|age| age <= FRESH.as_secs()));
            }
            // A file that is cut off anywhere is no cache.
            let cut = text.len() / 2;
            prop_assert!(parse(&text.as_bytes()[..cut]).is_empty());
        }
    }

    #[test]
    fn a_written_cache_is_read_and_a_broken_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("atp/vms.json");
        let entry = Entry { uri: "u".into(), at: 1, names: vec!["a".into()] };
        let entries = Entries::from([("h1".to_owned(), entry)]);
        write(&file, &entries).unwrap();
        assert_eq!(read(&file), entries);
        fs::write(&file, "{").unwrap();
        assert!(read(&file).is_empty());
        assert!(read(&folder.path().join("none")).is_empty());
    }
}
