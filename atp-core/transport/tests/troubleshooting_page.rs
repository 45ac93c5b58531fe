//! The page about hosts that cannot be reached has a section for each kind that connecting can end with.

use atp_api::ErrorKind;

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

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
