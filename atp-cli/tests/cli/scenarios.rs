//! `atp run`, as far as no guest is needed.

use crate::atp::{DEMO, Home};

const LOOK: &str = "name: look\nvariables: {vm_name: test}\ntargets: demo/${vm_name}\nsteps:\n  - vm: info\n  \
                    - assert: {state: running}\nteardown:\n  - vm: info\n";

#[test]
fn a_scenario_is_run_and_shown() {
    let home = Home::new();
    let file = home.write("look.yaml", LOOK);
    let file = file.to_str().unwrap();
    let run = home.run(["--host", DEMO, "run", file]).exits(0);
    let row: Vec<_> = run.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..9], ["demo", "test", "ok", "2", "of", "2", "1", "of", "1"], "{run:#?}");

    let none = home.run(["--host", DEMO, "run", file, "--set", "vm_name=nosuch*"]);
    none.exits(4).without_data().says(&["nothing matches 'demo/nosuch*'"]);
    let paused = home.write("paused.yaml", &LOOK.replace("steps:", "state: paused\nexclude: other\nsteps:"));
    let left = home.run(["--host", DEMO, "run", paused.to_str().unwrap()]);
    left.exits(4)
        .without_data()
        .says(&["the filters of the file: state paused, exclude 'other'", "--set NAME=VALUE"]);
    let dry = home.run(["--host", DEMO, "-o", "json", "run", file, "--dry-run"]).exits(0);
    assert_eq!(dry.outcomes()[0]["status"], "skipped");
}

#[test]
fn errors_of_a_file_have_a_position() {
    let home = Home::new();
    let file = home.write("wrong.yaml", &LOOK.replace("steps:", "stpes:"));
    let file = file.to_str().unwrap();
    let run = home.run(["--host", DEMO, "run", file]);
    run.exits(2)
        .without_data()
        .says(&["wrong.yaml:4:1: a scenario has no key \"stpes\"", "did you mean \"steps\"?"]);

    let file = home.write("look.yaml", LOOK);
    let file = file.to_str().unwrap();
    home.run(["--host", DEMO, "run", file, "--set", "vmname=x"])
        .exits(2)
        .says(&["no variable", "\"vm_name\""]);
    home.run(["--host", DEMO, "run", file, "--set", "x"]).exits(2).says(&["NAME=VALUE"]);
    home.run(["--host", DEMO, "run", "/nonexistent.yaml"]).exits(2).says(&["cannot be read"]);
}
