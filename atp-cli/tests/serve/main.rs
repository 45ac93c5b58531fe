//! `atp serve` as an administrator meets it: the real binary, a socket that plays systemd, signals, files that change, a full
//! disk, and load.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test that calls it")]

mod bed;
mod disk;
mod load;
#[cfg(feature = "otel")]
mod traces;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use bed::Bed;

#[test]
fn systemd_is_told_of_the_start_the_life_the_reload_and_the_end() {
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    let mut served = bed.serve();
    served.tells("READY=1");
    served.tells("WATCHDOG=1");
    assert_eq!(served.get("/readyz", "").0, 200);
    served.signal("HUP");
    let reloading = served.tells("RELOADING=1");
    let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    served.tells("READY=1");
    served.says("the settings were read again");
    assert_eq!(served.get("/api/v1/session", &token).0, 200);
    assert!(served.end("TERM").success());
}

#[test]
fn tokens_are_added_listed_and_removed_while_the_service_runs() {
    let bed = Bed::new();
    let mut served = bed.serve();
    served.says("there is no token yet");
    let token = bed.token(&["ci", "--role", "operator", "--selector", "h1/", "--verbs", "exec,vm-info"]);
    served.get_until("/api/v1/session", &token, 200);
    let session: Value = serde_json::from_str(&served.get("/api/v1/session", &token).1).unwrap();
    assert_eq!((&session["name"], &session["role"]), (&"ci".into(), &"operator".into()));
    let listed = bed.atp(&["serve", "token", "list"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.starts_with("NAME")
            && listed.contains("operator  h1/  exec,vm-info")
            && !listed.contains(&token[4..]),
        "{listed}"
    );
    let csv = bed.atp(&["-o", "csv", "serve", "token", "list"]).output().unwrap();
    let csv = String::from_utf8(csv.stdout).unwrap();
    assert!(csv.contains("ci,operator,h1/,\"exec,vm-info\","), "{csv}");
    let json = bed.atp(&["-o", "json", "serve", "token", "list"]).output().unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["name"], "ci");
    let wrong =
        bed.atp(&["serve", "token", "add", "x", "--role", "viewer", "--verbs", "dance"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("vm-info"), "{wrong:?}");
    assert!(bed.atp(&["serve", "token", "remove", "ci"]).status().unwrap().success());
    served.get_until("/api/v1/session", &token, 401);
    let text = served.seen.join("\n");
    assert!(!text.contains(&token[4..]), "{text}");
}

#[test]
fn a_bad_file_is_told_and_changes_nothing() {
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    let mut served = bed.serve();
    bed.settings("requests_per_second = \"many\"");
    served.signal("HUP");
    served.says("serve.requests_per_second");
    served.says("the settings stay as they were");
    served.tells("READY=1");
    // In one step: a file that is read while it is empty is one without tokens.
    let beside = bed.path("state/new.toml");
    fs::write(&beside, "not tokens").unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&beside, bed.path("state/tokens.toml")).unwrap();
    served.says("the tokens stay as they were");
    assert_eq!(served.get("/api/v1/session", &token).0, 200);
    bed.settings("read_only = true\nlisten = \"127.0.0.1:1\"");
    let settings = fs::read_to_string(bed.path("fleet.toml")).unwrap();
    fs::write(bed.path("fleet.toml"), settings.replacen("listen = \"127.0.0.1:0\"\n", "", 1)).unwrap();
    served.signal("HUP");
    served.says("serve.listen has changed");
    served.says("the settings were read again");
    let session: Value = serde_json::from_str(&served.get("/api/v1/session", &token).1).unwrap();
    assert_eq!(session["read_only"], true);
}

#[test]
fn hosts_come_and_go_with_the_file() {
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "viewer"]);
    let served = bed.serve();
    let text = fs::read_to_string(bed.path("fleet.toml")).unwrap();
    let uri = bed.fleet.host(1).unwrap().uri();
    fs::write(bed.path("next.toml"), format!("{text}\n[hosts.added]\nuri = \"{uri}\"\n")).unwrap();
    fs::rename(bed.path("next.toml"), bed.path("fleet.toml")).unwrap();
    served.get_until("/api/v1/hosts/added", &token, 200);
    assert!(served.end("INT").success());
}

#[test]
fn an_address_that_others_reach_needs_tls_or_a_word() {
    let bed = Bed::new();
    let refused = bed.atp(&["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in ["0.0.0.0", "serve.tls_cert", "serve.insecure_listen"] {
        assert!(text.contains(part), "{text}");
    }
    let refused = bed.atp(&["serve", "--listen", "somewhere"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("127.0.0.1:9440"), "{refused:?}");
    let refused = bed.atp(&["serve", "--dry-run"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--dry-run"), "{refused:?}");
}
