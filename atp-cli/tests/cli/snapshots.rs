//! Help texts, tables and errors, letter by letter. After a change that is meant:
//! `INSTA_UPDATE=always cargo test -p atp-cli --test cli snapshots`, and read the difference.

use insta::assert_snapshot;

use crate::atp::{DEMO, Home, Run};

/// The help of a command, without the options that all commands have.
fn help(command: &str) -> String {
    let run = Home::new().run(command.split(' ').chain(["--help"])).exits(0);
    let (own, shared) = run.stdout.split_once("Global options:").unwrap();
    let examples = shared.find("Examples:").unwrap();
    format!("{own}[…]\n\n{}", &shared[examples..])
}

/// What a run wrote, without what differs from run to run.
fn told(home: &Home, run: &Run) -> String {
    let home = home.path("").display().to_string();
    let text = format!("{}--- stderr ---\n{}", run.stdout, run.stderr);
    let text = text.replace(&home, "HOME/");
    // The time a run took ends its last line.
    match text.rfind(" in ").filter(|_| text.ends_with(" s\n")) {
        Some(at) => format!("{} in TIME\n", &text[..at]),
        None => text,
    }
}

fn snapshot(args: &[&str]) -> String {
    let home = Home::new();
    let hosts = [
        home.host("h1", &["web-1", "web-2"]),
        home.host("h2", &["db\u{9b}31m"]),
        "dead=qemu+unix:///system?socket=/nonexistent".to_owned(),
    ];
    let hosts: Vec<_> = hosts.iter().flat_map(|host| ["--host", host]).collect();
    let run = home.run([&hosts[..], args].concat());
    format!("exit code {}\n--- stdout ---\n{}", run.status.code().unwrap(), told(&home, &run))
}

#[test]
fn help_texts() {
    for command in [
        "host list",
        "host check",
        "host add",
        "host remove",
        "vm list",
        "vm info",
        "vm start",
        "vm shutdown",
        "vm destroy",
        "exec",
        "cp",
        "wait",
        "qmp",
        "qga",
        "run",
        "key",
        "type",
        "mouse",
        "screenshot",
        "console",
        "attach",
        "channel",
        "events",
        "stats",
        "top",
        "journal show",
        "reserve",
        "release",
        "doctor",
        "config show",
        "config check",
        "completions",
        "man",
    ] {
        assert_snapshot!(format!("help {command}").replace(' ', "-"), help(command));
    }
}

#[test]
fn tables() {
    for (name, args) in [
        ("listing", &["vm", "list"][..]),
        ("details", &["vm", "info", "h1/web-1"]),
        ("change", &["vm", "suspend", "h1/", "--yes"]),
        ("unchanged", &["vm", "start", "web-*"]),
        ("dry-run", &["vm", "destroy", "*", "--dry-run"]),
        ("names", &["vm", "list", "-o", "name"]),
        ("hosts", &["host", "list"]),
    ] {
        // How long a target took differs from run to run.
        let text = snapshot(args);
        let mut lines: Vec<_> = text.lines().map(without_times).collect();
        if name == "hosts" {
            // How wide the column of URIs is depends on where the test's files are.
            let squeezed = |line: String| line.split_whitespace().collect::<Vec<_>>().join("  ");
            lines = lines.into_iter().map(squeezed).collect();
        }
        assert_snapshot!(format!("table-{name}"), lines.join("\n"));
    }
}

/// A row that ends with a time in milliseconds, without it.
fn without_times(line: &str) -> String {
    match line.strip_suffix(" ms").and_then(|line| Some(line.rsplit_once(' ')?.0)) {
        Some(line) => format!("{} TIME", line.trim_end()),
        None => line.to_owned(),
    }
}

#[test]
fn errors() {
    for (name, args) in [
        ("not-found", &["vm", "info", "nosuch", "h1/none"][..]),
        ("nothing", &["vm", "list", "h1/nosuch-*"]),
        ("unreachable", &["exec", "*", "--", "true"]),
        ("consent", &["vm", "destroy", "h1/"]),
        ("unknown-host", &["vm", "list", "h9/x"]),
        ("unknown-group", &["vm", "list", "@lab/"]),
        ("selector", &["vm", "list", "web["]),
        ("duration", &["vm", "list", "--timeout", "30"]),
        ("command", &["vm", "destory", "x"]),
        ("host-add", &["host", "add", "x", "nonsense"]),
    ] {
        assert_snapshot!(format!("error-{name}"), snapshot(args));
    }
    let home = Home::new();
    let file = home.write("atp.toml", "timeout = 30\n[hosts.a]\nurl = \"test:///default\"\n");
    let run = home.run(["--config", file.to_str().unwrap(), "--host", DEMO, "vm", "list"]).exits(2);
    assert_snapshot!("error-settings", told(&home, &run));
}
