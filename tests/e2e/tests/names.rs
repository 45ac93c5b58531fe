//! A VM with any name that libvirt allows.

use std::fs;
use std::path::PathBuf;

use atp_e2e::bed;

/// Quotes, a colon, brackets, braces, an asterisk, a comma, a character of two bytes, and a control sequence in one
/// character.
const NAME: &str = "odd \"x\":[1],{a,b}* 'é'\u{9b}31m";

#[test]
fn a_vm_with_any_name_can_be_used() {
    let bed = bed();
    let guest = bed.host("h2").unwrap().boot_guest(NAME).unwrap();

    // Other commands accept the name as a listing shows it.
    let listed = bed.atp(&["vm", "list", "h2/", "-o", "name"]).run();
    let listed = listed.exits_with(0).stdout();
    let selector = listed.lines().find(|line| !line.starts_with("h2/vm")).unwrap();
    assert!(listed.lines().count() == 3 && !selector.contains('\u{9b}'), "{listed}");

    let name = format!("h2/{NAME}");
    for (args, effect) in [
        (&["wait", selector, "--for", "agent"][..], "none"),
        (&["vm", "info", selector], "none"),
        (&["exec", selector, "--", "true"], "done"),
        (&["qmp", selector, "--", "query-status"], "done"),
        (&["vm", "suspend", selector, "--wait"], "done"),
        (&["vm", "resume", selector, "--wait"], "done"),
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(0).brief(), [format!("{name} ok {effect}")], "{args:?}");
        assert_eq!(run.outcome(&name).uuid.as_deref(), Some(guest.uuid()));
    }

    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("names-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let [sent, back, journal, junit] = ["sent", "back", "run.journal", "report.xml"]
        .map(|name| folder.join(name).to_string_lossy().into_owned());
    fs::write(&sent, "here and there").unwrap();
    let there = format!("{selector}:/tmp/there");
    bed.run(&["cp", &sent, &there]).exits_with(0);
    bed.run(&["cp", &there, &back]).exits_with(0);
    assert_eq!(fs::read(&sent).unwrap(), fs::read(&back).unwrap());

    let exec = ["exec", selector, "--", "rm", "/tmp/there"];
    bed.run(&[&["--journal", &journal, "--junit", &junit][..], &exec].concat()).exits_with(0);
    let resumed = bed.run(&[&["--resume", &journal][..], &exec].concat());
    assert!(resumed.exits_with(0).stderr.contains("nothing left to do"), "{}", resumed.stderr);
    assert!(fs::read_to_string(&junit).unwrap().contains("tests=\"1\""));

    // Control characters are escaped on the way to people.
    let table = bed.atp(&["-v", "exec", selector, "--", "false"]).run();
    table.exits_with(1);
    for text in [table.stdout(), table.stderr.clone()] {
        assert!(text.contains("\\u{9b}31m") && !text.contains('\u{9b}'), "{text}");
    }
    fs::remove_dir_all(folder).unwrap();
}
