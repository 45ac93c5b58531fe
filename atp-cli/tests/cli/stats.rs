//! `stats` and `journal show`, on libvirt's test driver and on a simulated fleet.

use atp_fleet::FleetOptions;
use serde_json::Value;

use crate::atp::{DEMO, Home, simulated};

#[test]
fn a_driver_that_counts_little_is_measured_as_far_as_it_does() {
    let home = Home::new();
    let run = home.run(["--host", DEMO, "stats", "test", "--interval", "5s", "-o", "jsonl"]).exits(0);
    let round: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&round["vms"][0]["vm"], &round["vms"][0]["state"]), (&"test".into(), &"running".into()));
    assert!(round["vms"][0].get("stale").is_none(), "{round}");
}

#[test]
fn each_interval_has_its_rows_and_a_missing_vm_is_told() {
    let options = FleetOptions { hosts: 2, vms: 2, ..FleetOptions::default() };
    let (_fleet, home, settings, _runtime) = simulated(options, "");
    let run = |args: &[&str]| home.run(["--config", &settings, "stats"].iter().chain(args));
    let measured = run(&["*", "--interval", "500ms", "--count", "3", "-o", "csv"]).exits(0).stdout;
    assert_eq!(measured.lines().count(), 1 + 3 * 4, "{measured}");
    let run = run(&["h1/nosuch", "--interval", "500ms"]).exits(1);
    assert_eq!(run.says(&["no VM is named 'h1/nosuch'"]).stdout, "");
}

#[test]
fn options_of_runs_and_useless_intervals_are_refused() {
    let home = Home::new();
    home.run(["--host", DEMO, "stats", "*", "--dry-run"]).exits(2).says(&["--dry-run"]);
    home.run(["--host", DEMO, "stats", "*", "--interval", "1ms"]).exits(2).says(&["at least 100 ms"]);
    home.run(["--host", DEMO, "stats", "*", "-o", "name"]).exits(2).says(&["not name"]);
}

#[test]
fn a_journal_is_shown_whole_and_cut_off() {
    let home = Home::new();
    let journal = home.path("j").display().to_string();
    home.run(["--host", DEMO, "vm", "suspend", "test", "--yes", "--journal", &journal]).exits(0);
    let run = home.run(["journal", "show", &journal]).exits(0);
    assert!(
        run.stdout.starts_with("vm-suspend begun ") && run.stdout.ends_with("\n1 succeeded\n"),
        "{run:#?}"
    );
    let run = home.run(["journal", "show", &journal, "-o", "json"]).exits(0);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["targets"][0]["outcome"]["effect"], "done", "{report}");
    let bytes = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &bytes[..bytes.len() - 10]).unwrap();
    let run = home.run(["journal", "show", &journal]).exits(0).says(&["is cut off"]);
    assert!(run.stdout.ends_with("\n1 started without an outcome\n"), "{run:#?}");
    home.run(["journal", "show", "/nosuch"]).exits(2).says(&["/nosuch cannot be read"]);
}
