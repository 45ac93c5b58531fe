//! A manager that follows a file: real files, in real time, since the kernel reports the changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atp_settings::{Kind, Schema, Sources};
use atp_transport::{
    Event, EventStream, Fleet, HostInfo, TransportConfig, TransportError, TransportEvent, TransportManager,
};

/// Far longer than the kernel takes to report a change.
const PATIENCE: Duration = Duration::from_secs(30);

const ONE: &str = "[hosts.h1]\nuri = \"test:///default\"\n";
const TWO: &str = "[transport.pool]\nmax_connections_per_host = 3\n[hosts.h1]\nuri = \"test:///default\"\n\
                   weight = 5\n[hosts.h2]\nuri = \"test:///default\"\n";

/// A folder of the test's own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("atp-follow-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn ids(manager: &TransportManager) -> Vec<String> {
    manager.hosts().into_iter().map(|HostInfo { id, .. }| id).collect()
}

/// The next event about the configuration.
async fn next(events: &mut EventStream) -> Arc<Event> {
    let next = async {
        loop {
            let event = events.recv().await.unwrap();
            if let TransportEvent::ConfigurationApplied { .. } | TransportEvent::ConfigurationRefused { .. } =
                event.what
            {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

async fn refused(events: &mut EventStream) -> String {
    match &next(events).await.what {
        TransportEvent::ConfigurationRefused { problems } => problems.join("\n"),
        other => panic!("{other:?}"),
    }
}

async fn applied(events: &mut EventStream) {
    let event = next(events).await;
    assert!(matches!(event.what, TransportEvent::ConfigurationApplied { .. }), "{event:?}");
}

#[tokio::test]
async fn the_fleet_follows_its_file_and_keeps_the_last_valid_version() {
    let folder = Folder::new("changes");
    let file = folder.file("fleet.toml");
    fs::write(&file, ONE).unwrap();
    let manager = TransportManager::new(TransportConfig::default());
    let mut events = manager.events();
    let following = manager.follow(&file).unwrap();
    applied(&mut events).await;
    assert_eq!(ids(&manager), ["h1"]);

    // Written in place.
    fs::write(&file, TWO).unwrap();
    applied(&mut events).await;
    assert_eq!(ids(&manager), ["h1", "h2"]);
    assert_eq!((manager.hosts()[0].weight, manager.config().pool.max_connections_per_host), (5, 3));

    // An invalid file changes nothing. The reason names the line.
    let name = file.display().to_string();
    for (text, problem) in [
        ("[hosts.h1]\nurl = 'x'\n", format!("{name}:2: unknown key `hosts.h1.url`")),
        ("[hosts.h1]\nuri = 'not a uri'\n", "in `hosts.h1`: host h1: ".to_owned()),
        ("", format!("{name}: defines no host")),
    ] {
        fs::write(&file, text).unwrap();
        let refused = refused(&mut events).await;
        assert!(refused.starts_with(&problem), "{refused}");
        assert_eq!(ids(&manager), ["h1", "h2"]);
    }
    fs::remove_file(&file).unwrap();
    assert!(refused(&mut events).await.contains("cannot be read"));
    assert_eq!(ids(&manager), ["h1", "h2"]);

    // Replaced by another file.
    fs::write(folder.file("new"), ONE).unwrap();
    fs::rename(folder.file("new"), &file).unwrap();
    applied(&mut events).await;
    assert_eq!(ids(&manager), ["h1"]);

    // The follower is dropped; the thread that reads the file has ended when this returns.
    drop(following);
    fs::write(&file, TWO).unwrap();
    assert_eq!(ids(&manager), ["h1"]);
}

#[tokio::test]
async fn a_file_with_settings_of_the_command_line_is_followed() {
    const EXAMPLE: &str = include_str!("../../../configs/atp.toml");
    let folder = Folder::new("command-line");
    let file = folder.file("config.toml");
    let top = "output = 'json'\nparallel = 8\ntimeout = '5s'\nmax_failures = '25%'\n";
    fs::write(&file, format!("{top}[hosts.a]\nuri = 'test:///default'\n")).unwrap();
    let manager = TransportManager::new(TransportConfig::default());
    let _following = manager.follow(&file).unwrap();
    assert_eq!(manager.hosts().len(), 1);
    // The top-level keys of the example, which has every setting, are known here; a misspelt one is not.
    for line in EXAMPLE.lines().take_while(|line| !line.trim_start_matches('#').starts_with('[')) {
        let setting = line.trim_start_matches('#');
        if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) {
            let text = format!("{setting}\n[hosts.a]\nuri = 'test:///default'\n");
            assert!(Fleet::from_toml("x", &text).is_ok(), "{setting}");
        }
    }
    assert!(Fleet::from_toml("x", "timeuot = '5s'\n[hosts.a]\nuri = 'test:///default'\n").is_err());
}

#[tokio::test]
async fn a_program_s_own_settings_in_the_same_file_are_known_and_checked() {
    let folder = Folder::new("own-settings");
    let file = folder.file("fleet.toml");
    let write = |own: &str| fs::write(&file, format!("{ONE}[own]\n{own}\n")).unwrap();
    let own = Schema::section([("listen", Schema::Value(Kind::Text))]);
    let sources = Sources::file(&file).with_schema(Schema::section([("own", own)]));
    write("listen = '127.0.0.1:80'");
    let manager = TransportManager::new(TransportConfig::default());
    let mut events = manager.events();
    assert!(manager.follow(&file).unwrap_err().to_string().contains("unknown key `own`"));
    let _following = manager.follow(sources).unwrap();
    applied(&mut events).await;
    write("lisen = '127.0.0.1:80'");
    let refused = refused(&mut events).await;
    assert!(refused.ends_with(":4: unknown key `own.lisen`"), "{refused}");
}

#[tokio::test]
async fn saving_a_file_keeps_its_hosts_and_deleting_it_removes_them() {
    let folder = Folder::new("several");
    let (one, two) = (folder.file("one.toml"), folder.file("two.toml"));
    fs::write(&one, ONE).unwrap();
    fs::write(&two, "[hosts.h2]\nuri = \"test:///default\"\n").unwrap();
    let manager = TransportManager::new(TransportConfig::default());
    let mut events = manager.events();
    let _following = manager.follow(Sources::files([one, two.clone()])).unwrap();
    applied(&mut events).await;

    // As an editor does that keeps the former version.
    fs::rename(&two, folder.file("two.toml~")).unwrap();
    fs::write(&two, "[hosts.h2]\nuri = \"test:///default\"\nweight = 5\n").unwrap();
    let TransportEvent::ConfigurationApplied { changes } = &next(&mut events).await.what else { panic!() };
    assert!(changes.removed.is_empty(), "{changes:?}");
    assert_eq!(ids(&manager), ["h1", "h2"]);
    assert_eq!(manager.hosts()[1].weight, 5);

    fs::remove_file(&two).unwrap();
    applied(&mut events).await;
    assert_eq!(ids(&manager), ["h1"]);
}

#[tokio::test]
async fn a_symbolic_link_may_be_changed() {
    let folder = Folder::new("link");
    fs::write(folder.file("one"), ONE).unwrap();
    fs::write(folder.file("two"), TWO).unwrap();
    let link = folder.file("fleet.toml");
    symlink("one", &link).unwrap();
    let manager = TransportManager::new(TransportConfig::default());
    let mut events = manager.events();
    let _following = manager.follow(&link).unwrap();
    applied(&mut events).await;
    symlink("two", folder.file("turned")).unwrap();
    fs::rename(folder.file("turned"), &link).unwrap();
    applied(&mut events).await;
    assert_eq!(ids(&manager), ["h1", "h2"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_not_followed() {
    let folder = Folder::new("bad");
    let manager = TransportManager::new(TransportConfig::default());
    for (name, text, problem) in [("none", None, "cannot be read"), ("bad", Some("hosts = 3"), "`hosts`")] {
        let file = folder.file(name);
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let error = manager.follow(&file).unwrap_err();
        let TransportError::Config(config) = &error else { panic!("{error:?}") };
        assert!(config.to_string().contains(problem), "{config}");
    }
    let error = manager.follow(folder.file("no/such/folder/fleet.toml")).unwrap_err();
    assert!(error.to_string().contains("cannot be watched"), "{error}");
}
