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
    home.run(["--host", DEMO, "run"]).exits(2);
}

#[test]
fn a_file_that_a_step_needs_and_that_is_not_there_is_found_before_anything_is_done() {
    let home = Home::new();
    home.write("steps/copy.yaml", "- vm: info\n- {cp: {push: '${from}', to: /tmp/x}}\n");
    let file = home.write(
        "copies.yaml",
        "name: copies\nvariables: {from: nope.conf}\ntargets: demo/test\nsteps:\n  - vm: suspend\n  \
         - include: steps/copy.yaml\n",
    );
    let file = file.to_str().unwrap();
    for args in [&["check", file][..], &["run", file, "--dry-run"], &["run", file]] {
        home.run(["--host", DEMO].iter().chain(args))
            .exits(2)
            .without_data()
            .says(&["steps/copy.yaml:2:3: the file nope.conf cannot be read", "check the path"]);
    }
    home.write("there.conf", "");
    home.run(["--host", DEMO, "run", file, "--dry-run", "--set", "from=there.conf"]).exits(0);
    home.run(["check", file, "--set", "from=there.conf"]).exits(0);
}

/// A folder with two scenarios, one of which includes a file.
fn folder(home: &Home) -> String {
    home.write("all/steps/one.yaml", "- {name: look, vm: info}\n");
    home.write(
        "all/a.yaml",
        "name: first\ntargets: demo/test\nsteps:\n  - {include: steps/one.yaml, for_each: {n: [1, 2]}}\n",
    );
    home.write("all/deep/b.yaml", &LOOK.replace("running}", "paused}"));
    home.write("all/notes.txt", "no scenario");
    home.path("all").to_str().unwrap().to_owned()
}

#[test]
fn the_scenarios_of_a_folder_are_run_one_after_the_other_and_reported_together() {
    let home = Home::new();
    let folder = folder(&home);
    let [junit, html] = ["report.xml", "report.html"].map(|name| home.path(name));
    let (junit_path, html_path) = (junit.to_str().unwrap(), html.to_str().unwrap());
    let args = ["--host", DEMO, "-o", "json", "run", &folder, "--junit", junit_path, "--html", html_path];
    let run = home.run(args).exits(1);
    let outcomes = run.outcomes();
    let seen: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome["data"]["scenario"].as_str(), outcome["status"].as_str()))
        .collect();
    assert_eq!(seen, [(Some("first"), Some("ok")), (Some("look"), Some("failed"))]);
    let junit = std::fs::read_to_string(&junit).unwrap();
    let document = roxmltree::Document::parse(&junit).unwrap();
    let suites: Vec<_> = document
        .root_element()
        .children()
        .filter(|node| node.is_element())
        .map(|suite| ["name", "tests", "failures", "skipped"].map(|name| suite.attribute(name).unwrap()))
        .collect();
    assert_eq!(suites, [["first", "2", "0", "0"], ["look", "3", "1", "0"]]);
    let cases = document.descendants().filter(|node| node.has_tag_name("testcase"));
    let names: Vec<_> = cases.map(|case| case.attribute("name").unwrap()).collect();
    assert_eq!(
        names,
        ["step 1: look", "step 2: look", "step 1: vm-info", "step 2: assert", "teardown 1: vm-info"]
    );
    let html = std::fs::read_to_string(&html).unwrap();
    assert!(html.contains("<title>first, look – atp</title>"), "{html}");

    let table = home.run(["--host", DEMO, "run", &folder]).exits(1);
    let headings: Vec<_> = table.stdout.lines().filter(|line| ["first", "look"].contains(line)).collect();
    assert_eq!(headings, ["first", "look"], "{}", table.stdout);
    let journal = home.path("journal");
    home.run(["--host", DEMO, "run", &folder, "--journal", journal.to_str().unwrap()])
        .exits(2)
        .says(&["a journal is of one scenario"]);
    // The variable is in one of the files.
    home.run(["--host", DEMO, "run", &folder, "--set", "vm_name=nosuch*"])
        .exits(4)
        .says(&["nothing matches"]);
}

#[test]
fn a_scenario_that_cannot_be_planned_does_not_hold_up_the_next() {
    let home = Home::new();
    let wrong = home.write("wrong.yaml", &LOOK.replace("demo/", "nosuchhost/"));
    let right = home.write("right.yaml", LOOK);
    let run =
        home.run(["--host", DEMO, "-o", "json", "run", wrong.to_str().unwrap(), right.to_str().unwrap()]);
    let run = run.exits(1).says(&["nosuchhost"]);
    assert_eq!(run.outcomes().len(), 1);
    home.run(["--host", DEMO, "run", wrong.to_str().unwrap(), wrong.to_str().unwrap()])
        .exits(2)
        .without_data();
}

#[test]
fn a_check_reports_all_problems_of_all_files_without_a_host() {
    let home = Home::new();
    let folder = folder(&home);
    let run = home.run(["check", &folder]).exits(0);
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    home.run(["check", &format!("{folder}/steps/one.yaml")])
        .exits(2)
        .says(&["a list of steps, which scenarios include"]);
    home.write("all/steps/one.yaml", "- exce: x\n- vm: explode\n");
    home.write(
        "all/deep/b.yaml",
        &LOOK.replace("- vm: info", "- exec: ${nosuch}").replace("running", "runing"),
    );
    home.run(["check", &folder]).exits(2).without_data().says(&[
        "all/steps/one.yaml:1:3: a step has no key \"exce\"",
        "all/steps/one.yaml:2:7: \"explode\" is not one of start",
        "all/deep/b.yaml:5:11: there is no variable \"nosuch\" here",
        "all/deep/b.yaml:6:21: \"runing\" is not one of",
        "all/deep/b.yaml:8:11: there is no variable \"nosuch\" here",
    ]);
    let json = home.run(["-o", "json", "check", &folder]).exits(2);
    let files: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(files[0]["status"], "failed");
    assert_eq!(files[0]["problems"][1]["line"], 2);
    assert_eq!(files[1]["problems"].as_array().unwrap().len(), 3);
    // What is wrong is found before anything is done.
    home.run(["--host", DEMO, "run", &folder]).exits(2).without_data().says(&["\"explode\"", "\"runing\""]);
}
