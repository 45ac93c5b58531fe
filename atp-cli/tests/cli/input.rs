//! `key`, `type`, `mouse`, `screenshot`: checks that need no VM.

use crate::atp::{DEMO, Home};

#[test]
fn what_cannot_be_pressed_typed_or_done_is_refused_before_anything_is() {
    let home = Home::new();
    for (args, said) in [
        (&["key", "test", "--", "ctrl-alt-dle"][..], &["no key \"dle\""][..]),
        (&["key", "test", "--", "entr"], &["did you mean \"enter\"?"]),
        (&["key", "test", "--hold", "0s", "--", "a"], &["at least 1ms"]),
        (&["key", "test", "--hold", "1h", "--", "a"], &["--hold 1h leaves no time within --timeout 1m"]),
        (
            &["mouse", "test", "--hold", "5s", "--timeout", "5s", "--", "click"],
            &["--hold 5s", "--timeout 5s"],
        ),
        (&["type", "test", "--hold", "2m", "--", "a"], &["--hold 2m"]),
        (&["screenshot", "test", "-d", "x", "--screen", "x"], &["expected a whole number"]),
        (&["type", "test", "--", "naïve"], &["no key for 'ï'", "character 3", "--layout"]),
        (&["type", "test", "--layout", "qwerty", "--", "a"], &["us", "de"]),
        (&["mouse", "test", "--", "hover", "1", "2"], &["move X Y", "atp mouse --help"]),
        (&["mouse", "test", "--", "move", "120%", "0"], &["not a coordinate"]),
        (&["screenshot", "test"], &["--directory"]),
    ] {
        let run = home.run([&["--host", DEMO][..], args].concat());
        run.exits(2).without_data().says(said);
    }
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let home = Home::new();
    for args in [
        &["key", "test", "--", "ctrl-alt-del"][..],
        &["type", "test", "--enter", "--", "hello", "world"],
        &["mouse", "test", "--", "scroll", "-3"],
        &["screenshot", "test", "-d", "shots"],
    ] {
        let run = home.run([&["--host", DEMO, "--dry-run"][..], args].concat()).exits(0);
        assert!(run.stdout.contains(args[0]), "{run:#?}");
    }
    assert!(!home.path("shots").exists());
}

#[test]
fn a_hypervisor_without_a_monitor_is_an_error() {
    let home = Home::new();
    let run = home.run(["--host", DEMO, "-o", "json", "key", "test", "--", "a"]).exits(1);
    let outcome = &run.outcomes()[0];
    assert_eq!((&outcome["effect"], &outcome["error"]["kind"]), (&"none".into(), &"not-supported".into()));
}
