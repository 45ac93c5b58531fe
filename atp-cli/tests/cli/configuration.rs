//! `config show`, `config check`, and settings that cannot be used.

use serde_json::Value;

use crate::atp::{Home, Run};

/// The value and origin of a setting in `config show -o json`.
fn setting(run: &Run, key: &str) -> (Value, String) {
    let found =
        run.outcomes().into_iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    (found["value"].clone(), found["origin"].as_str().unwrap().to_owned())
}

#[test]
fn every_value_has_its_origin() {
    let home = Home::new();
    let file = home.write(
        ".config/atp/config.toml",
        "parallel = 7\ntimeout = \"9s\"\n[transport]\ncall_timeout = \"3s\"\n",
    );
    let mut command = home.atp(["config", "show", "-o", "json", "--parallel", "8"]);
    command.env("ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST", "2");
    let run = Run::of(&mut command).exits(0);
    assert_eq!(setting(&run, "parallel"), (8.into(), "--parallel".to_owned()));
    assert_eq!(setting(&run, "timeout"), ("9s".into(), format!("{}:2", file.display())));
    assert_eq!(setting(&run, "transport.call_timeout"), ("3s".into(), format!("{}:4", file.display())));
    assert_eq!(
        setting(&run, "transport.pool.max_connections_per_host"),
        (2.into(), "ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST".to_owned())
    );
    assert_eq!(setting(&run, "transport.pool.min_connections_per_host"), (0.into(), "default".to_owned()));
    assert_eq!(setting(&run, "output"), ("json".into(), "--output".to_owned()));
}

#[test]
fn the_table_is_key_value_origin() {
    let run = Home::new().run(["config", "show"]).exits(0);
    let mut lines = run.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["KEY", "VALUE", "ORIGIN"]);
    assert!(lines.any(|line| line == ["parallel", "64", "default"]), "{run:#?}");
}

#[test]
fn no_password_is_ever_shown() {
    let home = Home::new();
    home.write(
        ".config/atp/config.toml",
        "[hosts.a]\nuri = \"qemu+ssh://me:hunter2@nosuchhost.invalid/system\"\n",
    );
    for args in [
        &["config", "show"][..],
        &["config", "show", "-o", "json"],
        &["config", "check"],
        &["host", "list"],
        &["-vv", "host", "check", "--timeout", "2s"],
    ] {
        let run = home.run(args);
        assert!(!run.stdout.contains("hunter2") && !run.stderr.contains("hunter2"), "{run:#?}");
    }
}

#[test]
fn settings_take_effect() {
    let home = Home::new();
    home.write(".config/atp/config.toml", "output = \"json\"\n[hosts.demo]\nuri = \"test:///default\"\n");
    assert_eq!(home.run(["vm", "list"]).exits(0).outcomes().len(), 1);
    let run = Run::of(home.atp(["vm", "list"]).env("ATP_OUTPUT", "table")).exits(0);
    assert!(run.stdout.starts_with("HOST"), "{run:#?}");
}

#[test]
fn a_valid_file_is_reported_as_valid() {
    let home = Home::new();
    let file = home.write("atp.toml", "[hosts.demo]\nuri = \"test:///default\"\n");
    let file = file.to_str().unwrap();
    let run = home.run(["--config", file, "config", "check"]).exits(0);
    assert_eq!(run.stdout, format!("ok: {file} read, 1 host defined\n"));
    let run = home.run(["--config", file, "config", "check", "-o", "json"]).exits(0);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap()["hosts"][0], "demo");
    home.run(["config", "check"]).exits(0);
}

#[test]
fn an_unknown_key_is_an_error_of_every_command() {
    let home = Home::new();
    let file = home.write(
        "atp.toml",
        "[transport.pool]\nmax_conections_per_host = 3\n[hosts.demo]\nuri = \"test:///default\"\n",
    );
    for command in [&["config", "check"][..], &["config", "show"], &["vm", "list"]] {
        home.run(["--config", file.to_str().unwrap()].iter().chain(command)).exits(2).without_data().says(&[
            "atp.toml:2",
            "unknown key `transport.pool.max_conections_per_host`",
            "did you mean `max_connections_per_host`?",
        ]);
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let home = Home::new();
    let file = home.write(
        "atp.toml",
        "timeout = 30\n[transport.pool]\nmax_connections_per_host = 0\n[hosts.bad]\nurl = \"test:///default\"\n",
    );
    home.run(["--config", file.to_str().unwrap(), "config", "check"]).exits(2).without_data().says(&[
        "atp.toml:1: `timeout` is 30; expected a duration",
        "atp.toml:3: `transport.pool.max_connections_per_host`",
        "atp.toml:5: unknown key `hosts.bad.url`",
    ]);
}

#[test]
fn a_bad_uri_in_a_file_is_found_by_check() {
    let home = Home::new();
    let file = home.write("atp.toml", "[hosts.bad]\nuri = \"qemu+tcp//h/system\"\n");
    home.run(["--config", file.to_str().unwrap(), "config", "check"]).exits(2).says(&[
        "atp.toml:2",
        "host bad",
        "qemu+tcp//h/system",
        "a libvirt URI looks like",
    ]);
}

#[test]
fn variables_are_checked_like_files() {
    let home = Home::new();
    Run::of(home.atp(["config", "check"]).env("ATP_TIMEOUT", "soon"))
        .exits(2)
        .says(&["ATP_TIMEOUT", "duration"]);
    Run::of(home.atp(["config", "check"]).env("ATP_TRANSPORT__POOL__MAX_CONECTIONS_PER_HOST", "3"))
        .exits(2)
        .says(&["ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST"]);
}

#[test]
fn a_file_that_is_no_toml_or_not_there() {
    let home = Home::new();
    let file = home.write("atp.toml", "timeout = \"5s\"\nparallel =\n");
    home.run(["--config", file.to_str().unwrap(), "config", "check"]).exits(2).says(&["atp.toml:2"]);
    home.run(["--config", "missing.toml", "config", "check"])
        .exits(2)
        .says(&["missing.toml", "No such file"]);
}

#[test]
fn nothing_is_read_from_the_current_folder() {
    let home = Home::new();
    for name in ["atp.toml", "config.toml", "atp/config.toml", ".atp.toml"] {
        home.write(name, "parallel = 3\n");
    }
    let run = Run::of(home.atp(["config", "show", "-o", "json"]).env("XDG_CONFIG_HOME", ".")).exits(0);
    assert_eq!(setting(&run, "parallel").1, "default");
}

#[test]
fn a_check_warns_of_passwords_that_cannot_be_had_and_says_where_it_looked() {
    let home = Home::new();
    let run = home.run(["config", "check"]).exits(0);
    if run.stdout.contains("no file") {
        assert!(run.stdout.contains(".config/atp/config.toml"), "{run:#?}");
    }
    let text = "[hosts.a]\nuri = \"test:///default\"\nauth = { password_file = \"/nonexistent/x\" }\n\
                [hosts.b]\nuri = \"test:///default\"\nauth = { password_env = \"NO_SUCH_VARIABLE\" }\n";
    let file = home.write("atp.toml", text);
    home.run(["--config", file.to_str().unwrap(), "config", "check"]).exits(0).says(&[
        "warning: /nonexistent/x, the password_file of host a: No such file",
        "the host b",
        "NO_SUCH_VARIABLE, which is not set",
    ]);
    home.run(["--config", file.to_str().unwrap(), "doctor"])
        .exits(1)
        .says(&["with the password as its first line"]);
}

#[test]
fn problems_are_in_the_order_of_the_lines() {
    let home = Home::new();
    let file = home.write(
        "atp.toml",
        "zzz = 1\ntimeout = 5\n[transport]\nno = 1\n[hosts.a]\nbad = 1\n\n\n[hosts.b]\nlate = 1\n",
    );
    let run = home.run(["--config", file.to_str().unwrap(), "vm", "list"]).exits(2);
    let places: Vec<_> =
        [1, 2, 4, 6, 10].iter().map(|line| run.stderr.find(&format!("atp.toml:{line}:"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {run:#?}");
}
