//! The page about hosts that cannot be reached has a section for each kind that connecting can end with.

use std::fs;
use std::path::{Path, PathBuf};

use atp_api::ErrorKind;

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

/// The text of the Rust files below a folder, without breaks within strings.
fn code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: PathBuf| match path.is_dir() {
        true => code(&path),
        false => fs::read_to_string(path).unwrap_or_default(),
    };
    let text: String = entries.map(of).collect();
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

#[test]
fn the_words_on_the_page_are_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String = ["src", "../rpc/src"].map(|folder| code(&root.join(folder))).concat();
    let tables = PAGE.lines().filter(|line| line.starts_with("| \""));
    let quoted = tables
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|cell| cell.split('"').skip(1).step_by(2));
    let mut count = 0;
    for words in quoted {
        for part in
            words.split('…').map(|part| part.trim_matches([' ', '\''])).filter(|part| !part.is_empty())
        {
            assert!(code.contains(part), "nothing in the code says {part:?}");
            count += 1;
        }
    }
    assert!(count > 10, "the page is not read as it is written: {count}");
}

#[test]
fn each_kind_of_a_failure_to_connect_has_a_section_and_says_whether_a_retry_helps() {
    let of_connecting = |kind: &&ErrorKind| kind.is_unreachable() || **kind == ErrorKind::AccessDenied;
    let kinds: Vec<_> = ErrorKind::ALL.iter().filter(of_connecting).collect();
    for kind in &kinds {
        assert!(PAGE.contains(&format!("\n## `{kind}`\n")), "no section about {kind}");
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| [`{kind}`]")));
        let row = row.unwrap_or_else(|| panic!("no row about {kind}"));
        let says = if kind.is_retryable() { "| yes |" } else { "| no |" };
        assert!(row.ends_with(says), "{kind}: {row}");
    }
    let sections = PAGE.lines().filter(|line| line.starts_with("## `")).count();
    assert_eq!(sections, kinds.len(), "a section about a kind that connecting does not end with");
}
