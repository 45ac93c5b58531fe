//! The page of situations from the field names tests: they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/field.md");

/// Adds the names of the functions in the Rust files below a folder.
fn add_functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            // Of a build in the crate's own folder.
            if !path.ends_with("target") {
                add_functions(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let line = line.strip_prefix("async ").unwrap_or(line);
                line.strip_prefix("fn ")?.split_once('(').map(|(name, _)| name.to_owned())
            });
            names.extend(functions);
        }
    }
}

#[test]
fn every_situation_has_a_setup_an_answer_and_a_test_that_exists() {
    let mut functions = BTreeSet::new();
    for folder in ["atp-core", "atp-cli", "tests"] {
        add_functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut functions);
    }
    let mut situations = 0;
    for row in PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| situation ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [situation, setup, answer, tests] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!situation.is_empty() && !setup.is_empty() && !answer.is_empty(), "{row}");
        let named: Vec<&str> = tests.split(", ").map(|test| test.trim_matches('`')).collect();
        let missing: Vec<_> = named.iter().filter(|name| !functions.contains(**name)).collect();
        assert!(missing.is_empty(), "{situation}: there is no test {missing:?}");
        situations += 1;
    }
    assert!(situations > 60, "the page is not read as it is written: {situations}");
}
