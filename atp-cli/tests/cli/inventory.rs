//! `host add` and `host remove`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::atp::Home;

#[test]
fn a_host_is_added_used_and_removed() {
    let home = Home::new();
    home.run(["host", "add", "demo", "test:///default", "--group", "lab", "--label", "arch=x86"])
        .exits(0)
        .without_data()
        .says(&["host demo added to ", ".config/atp/config.toml"]);
    home.run(["vm", "list", "@lab/", "--label", "arch=x86"]).exits(0);
    let again =
        ["host", "add", "demo", "test:///default", "--group", "lab", "--label", "arch=x86", "-o", "json"];
    assert_eq!(home.run(again).exits(0).outcomes()[0]["status"], "unchanged");
    home.run(["host", "add", "demo", "test:///default", "--group", "rack"])
        .exits(2)
        .says(&["its groups are lab, not rack"]);
    home.run(["host", "remove", "demo"]).exits(0).says(&["host demo removed from "]);
    assert_eq!(fs::read_to_string(home.path(".config/atp/config.toml")).unwrap(), "");
}

#[test]
fn what_a_person_wrote_stays() {
    let home = Home::new();
    let text = "# mine\n[hosts.b] # first\nuri = 'test:///default'\n\n# last\n";
    let file = home.write("atp.toml", text);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let config = file.to_str().unwrap();
    home.run(["--config", config, "host", "add", "a", "test:///other"]).exits(0);
    let changed = fs::read_to_string(&file).unwrap();
    assert_eq!(changed.replace("\n[hosts.a]\nuri = \"test:///other\"\n", ""), text);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    home.run(["--config", config, "host", "remove", "a"]).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_comment_on_all_hosts_outlives_the_first_of_them() {
    let home = Home::new();
    let file = home.write("atp.toml", "# my hosts\n\n[hosts.b]\nuri = 'test:///default'\n");
    home.run(["--config", file.to_str().unwrap(), "host", "remove", "b"]).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), "# my hosts");
}

#[test]
fn a_file_that_is_named_is_made() {
    let home = Home::new();
    home.run(["--config", "new/atp.toml", "host", "add", "demo", "test:///default"]).exits(0);
    home.run(["--config", "new/atp.toml", "vm", "list"]).exits(0);
    home.run(["--config", "missing.toml", "host", "remove", "demo"]).exits(2).says(&["missing.toml"]);
}

#[test]
fn what_is_there_already_is_unchanged_or_an_error() {
    let home = Home::new();
    let file = home.write(".config/atp/config.toml", "[hosts.demo]\nuri = \"test:///default\"\n");
    let run = home.run(["host", "add", "demo", "test:///default", "-o", "json"]).exits(0);
    assert_eq!(run.outcomes()[0]["status"], "unchanged");
    for more in [["--group", "lab"], ["--label", "arch=x86"]] {
        home.run(["host", "add", "demo", "test:///default"].iter().chain(&more))
            .exits(2)
            .says(&["already defined", "are none, not "]);
    }
    home.run(["host", "add", "demo", "test:///other"]).exits(2).without_data().says(&[
        "the host demo is already defined: its URI is test:///default, not test:///other",
        &format!("{}:2", file.display()),
        "atp host remove demo",
    ]);
    home.run(["host", "remove", "other"]).exits(2).without_data().says(&["defines no host other"]);
    home.run(["--host", "x=test:///default", "host", "remove", "x"])
        .exits(2)
        .says(&["it is defined by --host"]);
}

#[test]
fn a_dry_run_writes_nothing() {
    let home = Home::new();
    let run = home.run(["--dry-run", "host", "add", "demo", "test:///default", "-o", "json"]).exits(0);
    let outcome = &run.outcomes()[0];
    assert_eq!((&outcome["op"], &outcome["status"]), (&json!("host-add"), &json!("skipped")));
    let file = outcome["data"]["file"].as_str().unwrap();
    assert!(!Path::new(file).exists(), "{file}");
}

#[test]
fn what_cannot_be_used_is_not_written() {
    let home = Home::new();
    home.run(["host", "add", "bad", "nonsense"]).exits(2).without_data().says(&["a libvirt URI looks like"]);
    home.run(["host", "add", "b d", "test:///default"]).exits(2);
    for group in ["x/y", ""] {
        home.run(["host", "add", "g", "test:///default", "--group", group])
            .exits(2)
            .says(&["--group", "a selector @NAME"]);
    }
    let run = home
        .run(["host", "add", "h", "qemu+ssh://me:hunter2@h/system"])
        .exits(2)
        .says(&["contains a password"]);
    assert!(!run.stderr.contains("hunter2"), "{run:#?}");
    home.run(["--config", "/proc/atp.toml", "host", "add", "demo", "test:///default"])
        .exits(2)
        .says(&["/proc/atp.toml", "hint:"]);
    home.run(["host", "list"]);
}
