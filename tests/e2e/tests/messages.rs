//! The messages of `atp` for errors in the request or in the inventory: each has its own message, hint and exit code.

use std::fs;
use std::path::PathBuf;

use atp_e2e::{Atp, bed};

#[test]
fn reasons_why_hosts_cannot_be_reached_are_distinguished() {
    for (uri, kind, said) in [
        (
            "qemu+tcp://no-such-host.invalid/system",
            "name-not-resolved",
            "cannot resolve no-such-host.invalid",
        ),
        ("qemu+tcp://127.0.0.1:1/system", "connection-refused", "127.0.0.1:1 refuses connections"),
        ("qemu+unix:///system?socket=/nonexistent/socket", "connection-refused", "/nonexistent/socket"),
    ] {
        let host = format!("x={uri}");
        let atp = || {
            let atp = Atp::new(&["--host", &host, "exec", "*", "--", "true"]);
            // The pauses between attempts, which grow, do not matter here.
            atp.env("ATP_TRANSPORT__RECONNECT__MAX_DELAY", "100ms")
                .env("ATP_TRANSPORT__RECONNECT__INITIAL_DELAY", "100ms")
        };
        let run = atp().output("json").run();
        run.exits_with(1);
        assert_eq!(run.brief(), [format!("x unreachable none {kind}")]);
        let outcome = run.outcome("x");
        assert_eq!((outcome.vm.as_ref(), outcome.attempts), (None, 0));
        let failure = outcome.failure();
        assert!(failure.retryable && failure.hint.is_some(), "{failure:?}");
        assert!(failure.causes.iter().any(|cause| cause.contains(said)), "{failure:?}");

        // The same on stderr, for people.
        let table = atp().run();
        table.exits_with(1);
        assert_eq!(table.stdout(), "");
        for part in
            [&format!("error: x unreachable ({kind})"), said, "\nhint: ", "1 target: 1 unreachable in "]
        {
            assert!(table.stderr.contains(part), "no {part:?} in:\n{}", table.stderr);
        }
    }
}

#[test]
fn invalid_requests_are_refused_before_anything_is_done() {
    let bed = bed();
    let empty = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("empty.toml");
    fs::write(&empty, "# no hosts\n").unwrap();
    let misspelt = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("misspelt.toml");
    fs::write(&misspelt, "[transport]\nconect_timeout = \"3s\"\n").unwrap();
    let h1 = format!("h1={}", bed.host("h1").unwrap().uri());
    let (empty, misspelt, h1) = (empty.to_str().unwrap(), misspelt.to_str().unwrap(), h1.as_str());

    for (args, said) in [
        (vec!["--host", "x=nonsense", "vm", "list"], "\"nonsense\" is not valid"),
        (vec!["--host", "x=qemu+pigeon://h/system", "vm", "list"], "pigeon"),
        (vec!["--host", "nonsense", "vm", "list"], "ID=URI"),
        (vec!["--config", empty, "vm", "list"], "the inventory is empty"),
        (vec!["--config", "/nonexistent.toml", "vm", "list"], "/nonexistent.toml"),
        (vec!["--config", misspelt, "vm", "list"], "connect_timeout"),
        (vec!["--host", h1, "exec", "h9/*", "--", "true"], "the host \"h9\", which is not in the inventory"),
        (vec!["--host", h1, "exec", "@lab/", "--", "true"], "the group \"lab\", which no host is in"),
        (vec!["--host", h1, "exec", "vm[1", "--", "true"], "vm[1"),
        (vec!["--host", h1, "exec", "vm1"], "CMD"),
        (vec!["--host", h1, "exec", "--", "true"], "SEL"),
        (vec!["--host", h1, "--timeout", "soon", "vm", "list"], "soon"),
        (vec!["--host", h1, "exec", "--stdin", "/nonexistent", "vm1", "--", "true"], "/nonexistent"),
        (vec!["--host", h1, "qmp", "vm1", "--", "query-status", "oops"], "oops"),
        (vec!["--host", h1, "vm", "destory", "vm1"], "destory"),
    ] {
        let run = Atp::new(&args).run();
        run.exits_with(2);
        assert_eq!(run.stdout(), "", "{args:?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains(said), "{args:?}:\n{}", run.stderr);
    }
}

#[test]
fn selectors_that_match_nothing() {
    let bed = bed();
    let globs = bed.atp(&["exec", "web-*", "h1/x?", "--", "true"]).run();
    globs.exits_with(4);
    assert_eq!(globs.stdout(), "");
    assert!(globs.stderr.contains("nothing matches 'web-*' 'h1/x?'"), "{}", globs.stderr);
    assert!(globs.stderr.contains("hint: "), "{}", globs.stderr);
    let globs = bed.run(&["exec", "web-*", "--", "true"]);
    globs.exits_with(4);
    assert_eq!(globs.outcomes(), []);

    let literals = bed.run(&["exec", "web-1", "h1/web-2", "--", "true"]);
    literals.exits_with(1);
    assert_eq!(literals.brief(), ["h1/web-2 failed none vm-not-found", "web-1 failed none vm-not-found"]);

    // The existing targets are done nevertheless.
    let mixed = bed.run(&["exec", "web-*", "h1/web-2", "h1/vm1", "--", "true"]);
    mixed.exits_with(1);
    assert_eq!(mixed.brief(), ["h1/vm1 ok done", "h1/web-2 failed none vm-not-found"]);
}

#[test]
fn the_test_driver_needs_no_daemon() {
    let run = Atp::new(&["--host", "demo=test:///default", "vm", "list"]).output("json").run();
    assert_eq!(run.exits_with(0).brief(), ["demo/test ok none"]);
    let exec =
        Atp::new(&["--host", "demo=test:///default", "exec", "test", "--", "true"]).output("json").run();
    assert_eq!(exec.exits_with(1).brief(), ["demo/test failed none not-supported"]);
}
