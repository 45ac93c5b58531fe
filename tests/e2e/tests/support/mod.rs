//! Shared by tests of the library: managers of the bed's hosts, their settings, and common work.

mod load;
mod terminal;

use std::fs;
use std::time::Duration;

use atp_e2e::{Bed, Resources, becomes};
use atp_testbed::Guest;
use atp_transport::{ExecuteOptions, HostInfo, LibvirtConnection, Result, TransportConfig, TransportManager};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use load::Load;
pub(crate) use terminal::Terminal;

/// The hosts of the bed.
pub(crate) const IDS: [&str; 3] = ["h1", "h2", "h3"];
/// A monitor command that any VM answers.
pub(crate) const QUERY_STATUS: &str = r#"{"execute":"query-status"}"#;

/// Settings for tests that break connections: fast reconnects, and idle threads that soon end.
pub(crate) fn quick() -> TransportConfig {
    let mut config = TransportConfig { connect_timeout: Duration::from_secs(3), ..atp_e2e::config() };
    config.reconnect.initial_delay = Duration::from_millis(200);
    config.reconnect.max_delay = Duration::from_secs(1);
    config.calls.thread_idle_timeout = Duration::from_millis(500);
    config
}

/// As [`quick`], with fast detection of silence.
pub(crate) fn attentive() -> TransportConfig {
    let mut config = quick();
    config.keepalive.interval = Duration::from_secs(1);
    config.keepalive.count = 2;
    config
}

/// A manager of the hosts of the bed.
pub(crate) async fn manager(bed: &Bed, config: TransportConfig) -> TransportManager {
    let manager = TransportManager::new(config);
    for host in bed.hosts() {
        manager.add_host(HostInfo::from_uri(host.id(), host.uri())).await.unwrap();
    }
    manager
}

pub(crate) fn in_seconds(seconds: u64) -> ExecuteOptions {
    ExecuteOptions::by(Instant::now() + Duration::from_secs(seconds))
}

pub(crate) fn vm(bed: &Bed, host: &str, name: &str) -> Uuid {
    bed.host(host).unwrap().guest(name).unwrap().uuid().parse().unwrap()
}

/// Work of one call.
pub(crate) async fn hostname(connection: LibvirtConnection) -> Result<String> {
    connection.hostname().await
}

/// Asks a VM's monitor for the VM's status.
pub(crate) async fn query_status(
    manager: &TransportManager,
    host: &str,
    vm: Uuid,
    seconds: u64,
) -> Result<String> {
    let work =
        |connection: LibvirtConnection| async move { connection.monitor_command(vm, QUERY_STATUS).await };
    manager.execute_on_host_with(host, in_seconds(seconds), work).await
}

/// Waits until managers that were dropped have released everything.
#[track_caller]
pub(crate) fn nothing_is_held(limit: Duration) {
    becomes("resources in use", limit, Resources::NONE, Resources::now);
}

/// A guest of `h1`, shut off, whose definition was changed.
pub(crate) fn changed_guest(bed: &Bed, name: &str, change: impl FnOnce(String) -> String) -> Guest {
    let h1 = bed.host("h1").unwrap();
    let guest = h1.define_guest(name).unwrap();
    let changed = change(h1.virsh(&["dumpxml", "--inactive", name]).unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), changed).unwrap();
    h1.virsh(&["define", file.path().to_str().unwrap()]).unwrap();
    guest
}

/// The text without its part from `begin` to the next `end`.
pub(crate) fn without(text: &str, begin: &str, end: &str) -> String {
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    [before, after].concat()
}
