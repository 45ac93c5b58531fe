//! The forms of the data on stdout, and JUnit files.

use std::fs;

use crate::atp::{DEMO, Home, demo};

#[test]
fn csv_has_a_header_and_the_data_s_own_columns() {
    let run = demo(&["vm", "list", "-o", "csv"]).exits(0);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "host,vm,uuid,op,status,effect,attempts,duration_ms,error_kind,error_message,\
         state,id,vcpus,memory_kib,max_memory_kib,reserved_by,reserved_until_ms"
    );
    assert!(lines[1].starts_with("demo,test,") && lines[1].contains(",vm-list,ok,none,"), "{run:#?}");
    assert!(lines[1].ends_with(",running,1,2,2097152,8388608,,"), "{run:#?}");
    assert_eq!(lines.len(), 2);

    let run = demo(&["host", "list", "-o", "csv"]).exits(0);
    assert!(run.stdout.contains("uri,address,groups,labels,weight,engine\ndemo,,,host-list,ok,"), "{run:#?}");
    let run = demo(&["config", "show", "-o", "csv"]).exits(0);
    assert!(run.stdout.starts_with("key,value,origin\n") && run.stdout.contains("\nparallel,64,default\n"));
}

#[test]
fn every_column_of_csv_is_on_the_page() {
    const PAGE: &str = include_str!("../../../docs/cli.md");
    let (from, to) = (PAGE.find("### Columns of CSV").unwrap(), PAGE.find("### JUnit").unwrap());
    let home = Home::new();
    let file = home.write("file", "x");
    let scenario = home.write("x.yaml", "name: x\ntargets: test\nsteps:\n  - wait: agent\n");
    let (file, scenario) = (file.to_str().unwrap(), scenario.to_str().unwrap());
    for command in [
        &["host", "list"][..],
        &["host", "check"],
        &["doctor"],
        &["vm", "list"],
        &["vm", "info", "test"],
        &["vm", "destroy", "test"],
        &["exec", "test", "--", "true"],
        &["cp", file, "test:/tmp/"],
        &["cp", "test:/etc/hostname", file],
        &["wait", "test", "--for", "agent"],
        &["qmp", "test", "--", "query-status"],
        &["qga", "test", "--", "guest-ping"],
        &["run", scenario],
        &["key", "test", "--", "a"],
        &["type", "test", "--", "a"],
        &["mouse", "test", "--", "click"],
        &["screenshot", "test", "-d", "shots"],
    ] {
        let run = home.run([&["--host", DEMO, "--dry-run", "-o", "csv"], command].concat()).exits(0);
        let header = run.stdout.lines().next().unwrap();
        for column in header.split(',') {
            assert!(PAGE[from..to].contains(&format!("`{column}`")), "{command:?}: {column}");
        }
    }
}

#[test]
fn names_are_selectors_that_other_calls_take() {
    let home = Home::new();
    let names = ["a\u{9b}31mb", "c d*", "[x]", "plain"];
    let host = home.host("h1", &names);
    let run = home.run(["--host", &host, "vm", "list", "-o", "name"]).exits(0);
    assert_eq!(run.stdout, "h1/\\[x]\nh1//^a\\x{9b}31mb$/\nh1/c d\\*\nh1/plain\n");
    for (line, name) in run.stdout.lines().zip(["[x]", "a\u{9b}31mb", "c d*", "plain"]) {
        let again = home.run(["--host", &host, "vm", "list", line, "-o", "json"]).exits(0);
        let found: Vec<_> = again.outcomes().iter().map(|outcome| outcome["vm"].clone()).collect();
        assert_eq!(found, [name]);
    }
    assert_eq!(demo(&["host", "list", "-o", "name"]).exits(0).stdout, "demo\n");
    // What failed is no name for another call to take.
    let run = demo(&["vm", "info", "test", "nosuch", "-o", "name"]).exits(1).says(&["vm-not-found"]);
    assert_eq!(run.stdout, "demo/test\n");
    // In a dry run it is what would be worked on.
    assert_eq!(demo(&["--dry-run", "vm", "destroy", "*", "-o", "name"]).exits(0).stdout, "demo/test\n");
}

#[test]
fn junit_is_written_beside_any_form() {
    let home = Home::new();
    let file =
        home.write("report.xml", "what was there before, and longer than anything that will be written\n");
    let path = file.to_str().unwrap();
    for form in ["table", "json", "jsonl", "csv", "name"] {
        let run =
            home.run(["--host", DEMO, "vm", "info", "test", "nosuch", "-o", form, "--junit", path]).exits(1);
        assert!(!run.stdout.contains("<testsuite"), "{run:#?}");
        let text = fs::read_to_string(&file).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let suite = document.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
        assert_eq!(suite.attribute("name"), Some("vm-info"));
        assert_eq!((suite.attribute("tests"), suite.attribute("failures")), (Some("2"), Some("1")));
        let failure = document.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert_eq!(failure.attribute("type"), Some("vm-not-found"));
    }
}

#[test]
fn a_junit_file_is_unchanged_if_there_is_no_run() {
    let home = Home::new();
    let host = home.host("h1", &["a", "b"]);
    let (file, journal) = (home.write("report.xml", "before"), home.write("run.journal", "begun"));
    let (file_path, journal) = (file.to_str().unwrap(), journal.to_str().unwrap());
    let args = ["--host", &host, "--junit", file_path, "vm", "destroy", "*"];
    for (more, said) in [(&[][..], "--yes"), (&["--yes", "--journal", journal], "exists already")] {
        home.run(args.iter().chain(more)).exits(2).without_data().says(&[said]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    }
}

#[test]
fn a_junit_file_that_cannot_be_written_stops_everything_before_it_starts() {
    demo(&["vm", "destroy", "test", "--junit", "/nonexistent/report.xml"]).exits(2).without_data().says(&[
        "--junit /nonexistent/report.xml",
        "nothing was done",
        "No such file",
    ]);
    demo(&["vm", "list", "--junit", "/dev/full"]).exits(2).without_data().says(&["No space left"]);
}
