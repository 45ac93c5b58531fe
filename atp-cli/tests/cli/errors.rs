//! Hosts that cannot be reached, and what cannot be done on the test driver: kinds, hints and exit codes.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::atp::{DEMO, Home, Run, demo};

/// A host at whose port nothing listens; none of those that the system hands out, which another test may be given.
const DEAD: &str = "dead=qemu+tcp://127.0.0.1:1/system";

#[test]
fn a_name_that_does_not_resolve() {
    let home = Home::new();
    // No name begins so: it is refused without asking a name server, which might keep us waiting.
    let run =
        home.run(["--host", "dead=qemu+tcp://-nosuch.invalid/system", "vm", "list", "-o", "json"]).exits(1);
    let outcome = &run.outcomes()[0];
    assert_eq!(
        (&outcome["host"], &outcome["vm"], &outcome["status"]),
        (&json!("dead"), &json!(null), &json!("unreachable"))
    );
    assert_eq!(outcome["error"]["kind"], "name-not-resolved");
    assert_eq!(outcome["effect"], "none");
}

#[test]
fn a_port_that_refuses_next_to_a_host_that_works() {
    let run = Home::new().run(["--host", DEMO, "--host", DEAD, "vm", "list"]).exits(1).says(&[
        "error: dead unreachable (connection-refused)",
        "hint:",
        "2 targets: 1 ok, 1 unreachable",
    ]);
    assert!(
        run.stdout.contains("demo  test  running") && run.stdout.contains("dead  -     unreachable"),
        "{run:#?}"
    );
}

#[test]
fn a_port_that_refuses_gets_a_hint_that_fits_the_transport() {
    let home = Home::new();
    for (transport, word) in [("tcp", "virtproxyd-tcp.socket"), ("tls", "virtproxyd-tls.socket")] {
        let host = format!("dead=qemu+{transport}://127.0.0.1:1/system");
        home.run(["--host", &host, "vm", "list"]).exits(1).says(&["(connection-refused)", word]);
    }
    // Where the socket of a daemon of this machine is missing, no port is spoken of.
    let run = home.run(["--host", "dead=qemu+unix:///system?socket=/nonexistent", "vm", "list"]).exits(1);
    assert!(run.stderr.contains("its socket") && !run.stderr.contains("virtproxyd"), "{run:#?}");
}

#[test]
fn a_dead_host_weighs_more_than_that_nothing_matches() {
    let run =
        Home::new().run(["--host", DEMO, "--host", DEAD, "vm", "list", "nosuch-*", "-o", "json"]).exits(1);
    let statuses: Vec<_> = run.outcomes().iter().map(|outcome| outcome["status"].clone()).collect();
    assert_eq!(statuses, ["unreachable"]);
}

#[test]
fn a_literal_vm_on_a_dead_host_is_named() {
    let run = Home::new().run(["--host", DEAD, "exec", "dead/web-1", "-o", "json", "--", "true"]).exits(1);
    assert_eq!(run.outcomes()[0]["vm"], "web-1");
    assert_eq!(run.outcomes()[0]["attempts"], 0);
}

#[test]
fn a_host_no_selector_can_match_is_not_contacted() {
    Home::new().run(["--host", DEMO, "--host", DEAD, "vm", "list", "demo/*"]).exits(0);
}

#[test]
fn a_host_that_never_answers_costs_its_timeout_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("silent=qemu+tcp://{}/system", listener.local_addr().unwrap());
    let started = Instant::now();
    let run = Home::new()
        .run(["--host", DEMO, "--host", &silent, "vm", "list", "--timeout", "10s", "-o", "json"])
        .exits(1);
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
    let statuses: Vec<_> = run.outcomes().iter().map(|outcome| outcome["status"].clone()).collect();
    assert_eq!(statuses, ["ok", "unreachable"]);
}

#[test]
fn a_host_that_never_answers_leaves_the_others_half_of_the_time_for_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("silent=qemu+tcp://{}/system", listener.local_addr().unwrap());
    for command in [&["vm", "list"][..], &["vm", "suspend", "*"], &["doctor"]] {
        let args =
            [&["--host", DEMO, "--host", &silent, "--deadline", "20s", "-o", "json"][..], command].concat();
        let run = Home::new().run(args);
        let outcomes = run.outcomes();
        let status = |field: &str, name: &str| {
            outcomes.iter().find(|outcome| outcome[field] == name).map(|outcome| outcome["status"].clone())
        };
        let failed_without_agent = if command == ["doctor"] { "failed" } else { "ok" };
        assert_eq!(status("vm", "test"), Some(json!(failed_without_agent)), "{run:#?}");
        assert_eq!(status("host", "silent"), Some(json!("unreachable")), "{run:#?}");
        run.exits(1);
    }
}

#[test]
fn an_invalid_uri_is_an_error_before_any_work() {
    let home = Home::new();
    for uri in ["foo", "qemu+tcp://h:99999/system", "qemu+smoke://h/system", "qemu+ssh://me:hunter2@[/system"]
    {
        let run = home
            .run(["--host", DEMO, "--host", &format!("bad={uri}"), "vm", "list"])
            .exits(2)
            .without_data()
            .says(&["host bad", "a libvirt URI looks like qemu+tcp://HOST/system"]);
        assert!(!run.stderr.contains("hunter2"), "{run:#?}");
    }
    let run =
        home.run(["--host", "a=foo", "--host", "b=bar", "vm", "list"]).exits(2).says(&["host a", "host b"]);
    assert!(run.stderr.contains("\"foo\"") && run.stderr.contains("\"bar\""), "{run:#?}");
}

#[test]
fn the_test_driver_has_neither_monitor_nor_agent() {
    for command in [
        &["exec", "test", "--", "uname"][..],
        &["qmp", "test", "--", "query-status"],
        &["qga", "test", "--", "guest-ping"],
    ] {
        let run = demo(command).exits(1).without_data().says(&["error: demo/test failed (", "hint:"]);
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        let outcome = &demo(&[&["-o", "json"], command].concat()).exits(1).outcomes()[0];
        assert_eq!((&outcome["op"], &outcome["status"]), (&json!(command[0]), &json!("failed")));
        assert_eq!(outcome["data"], json!(null));
        for field in ["kind", "message", "hint", "retryable", "libvirt", "causes"] {
            assert!(outcome["error"].as_object().unwrap().contains_key(field), "{field}");
        }
    }
}

#[test]
fn a_missing_input_file_is_an_error_before_any_work() {
    demo(&["exec", "test", "--stdin", "/nonexistent", "--", "cat"])
        .exits(2)
        .without_data()
        .says(&["--stdin /nonexistent", "caused by: No such file"]);
}

#[test]
fn without_any_host_this_machine_s_daemon_is_used_or_asked_for() {
    let home = Home::new();
    // Nothing is connected to, and so it does not matter who answers.
    let run = home.run(["host", "list"]).exits(0).says(&["no host is configured", "atp host add ID URI"]);
    assert!(run.stdout.contains("local") && run.stdout.contains("qemu:///system"), "{run:#?}");
    let mut command = home.atp(["vm", "list"]);
    let run = Run::of(command.env("XDG_CONFIG_HOME", home.path("conf")));
    if run.status.code() == Some(2) {
        let file = home.path("conf/atp/config.toml");
        run.without_data().says(&[
            "there is no host",
            "qemu:///system",
            "--host demo=test:///default",
            &format!("add a host to {}: atp host add ID URI", file.display()),
        ]);
    }
}

#[test]
fn a_system_without_threads_is_an_error() {
    // The limit does not hold for root. Somebody else may not have the way to the binary, or the right to run it, but a
    // copy that is open. Nothing else is of this user, whose processes count.
    let limited = "install --mode=755 \"$0\" atp; exec 3<atp; \
                   [ \"$(id -u)\" = 0 ] && as=\"setpriv --reuid=65533 --clear-groups\"; \
                   exec prlimit --nproc=1 $as /proc/self/fd/3 \"$@\"";
    let home = Home::new();
    let mut command = home.command("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_atp"), "--host", DEMO, "vm", "list"]);
    command.env("HOME", "/nonexistent");
    Run::of(&mut command).exits(2).without_data().says(&["too few threads", "ulimit -u"]);
}

#[test]
fn an_inventory_that_is_empty_is_not_filled_by_guessing() {
    let home = Home::new();
    let file = home.write("empty.toml", "timeout = \"5s\"\n");
    for command in [&["vm", "list"][..], &["host", "list"], &["exec", "*", "--", "true"]] {
        home.run(["--config", file.to_str().unwrap()].iter().chain(command)).exits(2).without_data().says(&[
            "the inventory is empty",
            "empty.toml",
            "[hosts.node7]",
        ]);
    }
}

#[test]
fn a_listing_of_many_hosts_ends_at_the_deadline_with_the_hosts_that_answer() {
    let home = Home::new();
    let listeners: Vec<_> = (0..10).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let silent = |(n, listener): (usize, &TcpListener)| {
        format!("dead{n}=qemu+tcp://{}/system", listener.local_addr().unwrap())
    };
    let dead = listeners.iter().enumerate().map(silent);
    let hosts: Vec<_> = (0..90).map(|n| format!("live{n}=test:///default")).chain(dead).collect();
    let mut args: Vec<_> = hosts.iter().flat_map(|host| ["--host", host]).collect();
    args.extend(["vm", "list", "--timeout", "20s", "-o", "json"]);
    let started = Instant::now();
    let run = home.run(args).exits(1);
    assert!(started.elapsed() < Duration::from_secs(100), "{:?}", started.elapsed());
    let outcomes = run.outcomes();
    let count = |status: &str| outcomes.iter().filter(|outcome| outcome["status"] == status).count();
    assert_eq!((count("ok"), count("unreachable"), outcomes.len()), (90, 10, 100));
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_connected_to() {
    for (args, texts) in [
        (&["--cwd", "etc", "--", "pwd"][..], &["'etc'", "--cwd", "absolute path in the guest"][..]),
        (&["--spool=tmp", "--", "pwd"], &["'tmp'", "--spool", "absolute path in the guest"]),
        (&["--", ""], &["the first word after `--` is empty"]),
        (&["--timeout", "0s", "--", "true"], &["--timeout", "longer than 0"]),
        (&["--timeout", "5", "--", "true"], &["--timeout", "with a unit"]),
        (&["--spool", "/root", "--", "true"], &["--spool=/root"]),
        (&["uname", "-r"], &["atp exec SEL -- CMD"]),
    ] {
        let run = Home::new().run(["--host", DEAD, "exec", "dead/vm"].iter().chain(args));
        run.exits(2).without_data().says(texts);
    }
    demo(&["key", "test", "--", "enter", "--hold", "10s"])
        .exits(2)
        .says(&["'--hold'", "put options before it"]);
}

#[test]
fn what_a_filter_takes_away_was_matched() {
    for args in
        [&["vm", "list", "--state", "shut-off"][..], &["vm", "info", "demo/test", "--state", "shut-off"]]
    {
        let run = demo(args).exits(4).says(&["the selectors match 1 VM", "--state shut-off"]);
        assert!(!run.stderr.contains("nothing matches"), "{run:#?}");
    }
    demo(&["vm", "list", "te*", "--exclude", "test"]).exits(4).says(&["--exclude 'test'"]);
    demo(&["vm", "list", "nosuch-*", "--exclude", "test"]).exits(4).says(&["nothing matches 'nosuch-*'"]);
}

#[test]
fn verbs_of_one_vm_and_reservations_end_as_others_do_when_nothing_matches() {
    let home = Home::new();
    for words in [&["vm", "info"][..], &["channel"], &["reserve"]] {
        let run = |vm: &str, hosts: &[&str]| {
            let further: &[&str] = match words[0] {
                "channel" => &["org.example.x"],
                "reserve" => &["--for", "1h", "--owner", "a", "--file", "reservations"],
                _ => &[],
            };
            home.run([hosts, words, &[vm], further].concat())
        };
        run("nosuch", &["--host", DEMO]).exits(1).says(&["no VM"]);
        run("nosuch-*", &["--host", DEMO]).exits(4).says(&["nothing matches 'nosuch-*'"]);
        run("x", &["--host", "gone=qemu+unix:///system?socket=/nonexistent"]).exits(1).says(&["gone"]);
        run("nohost/x", &["--host", DEMO]).exits(2).says(&["nohost"]);
    }
}

#[test]
fn a_wait_that_is_too_short_says_what_was_seen() {
    demo(&["wait", "test", "--for", "state=paused", "--timeout", "100ms"])
        .exits(1)
        .says(&["the deadline passed before the VM was in the state \"paused\": it is running"]);
}

#[test]
fn a_copy_says_which_path_is_wrong() {
    let home = Home::new();
    home.write("in.txt", "x");
    home.run(["--host", DEMO, "cp", "in.txt", "demo/test:rel"])
        .exits(2)
        .says(&["a path in guests must be absolute", "demo/test:/rel"]);
    home.run(["--host", DEMO, "cp", "nofile", "demo/test:/tmp/x"])
        .exits(2)
        .says(&["nofile cannot be copied", "hint: check the path on this machine\n"]);
    home.run(["--host", DEMO, "cp", "demo/test:/etc/hostname", "-"]).exits(2).says(&["-- cat"]);
    home.run(["--host", DEMO, "cp", "demo/test:/etc/hostname", "folder/"]).exits(1);
    assert!(!home.path("-").exists() && !home.path("folder").exists());
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let home = Home::new();
    home.run(["--host", DEMO, "exec", "test", "--dry-run", "--", "sh", "-c", "echo a"])
        .exits(0)
        .says(&["exec would run: sh -c 'echo a'"]);
    let text = "name: x\ntargets: test\nsteps:\n  - {name: up, wait: agent}\nteardown:\n  - vm: info\n";
    home.write("x.yaml", text);
    home.run(["--host", DEMO, "run", "x.yaml", "--dry-run"])
        .exits(0)
        .says(&["step 1: up (wait)", "teardown 1: "]);
}

#[test]
fn every_message_of_a_json_log_is_flat() {
    let run = demo(&["--log-format", "json", "-v", "vm", "info", "test"]).exits(0);
    let lines: Vec<serde_json::Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let finished = lines.iter().find(|line| line["message"] == "finished").unwrap();
    assert_eq!((&finished["host"], &finished["vm"]), (&json!("demo"), &json!("test")));
}
