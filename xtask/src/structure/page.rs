//! What `docs/architecture.md` names: every crate of the workspace, and only files and folders that exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use crate::{Result, cargo};

const PAGE: &str = "docs/architecture.md";

/// The endings of words that name a file or a folder.
const ENDINGS: [&str; 6] = [".json", ".md", ".py", ".rs", ".toml", "/"];

/// The members of the workspace that the page lacks, and the paths on it that lead nowhere.
pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let page = fs::read_to_string(root.join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let mut paths = BTreeSet::new();
    add_paths(root, "", &mut paths).map_err(|error| format!("cannot list {}: {error}", root.display()))?;
    Ok(missing(&page, &cargo::members()?, &paths))
}

/// Adds the files and folders below `folder`, with a slash in front, and one behind folders.
fn add_paths(root: &Path, folder: &str, paths: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder.trim_start_matches('/')))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name == "target" || name == ".git" {
            continue;
        }
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            add_paths(root, &path, paths)?;
            paths.insert(path + "/");
        } else {
            paths.insert(path);
        }
    }
    Ok(())
}

fn missing(page: &str, members: &[String], paths: &BTreeSet<String>) -> Vec<String> {
    let unnamed = members.iter().filter(|member| !page.contains(&format!("`{member}`")));
    let unnamed = unnamed.map(|member| format!("{PAGE}: no row for {member}"));
    let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || "._-/:<>".contains(c)));
    // `test:///` and `<verb>.rs` are no paths.
    let named = words.filter(|word| {
        word.len() > 1 && !word.contains([':', '<']) && ENDINGS.iter().any(|ending| word.ends_with(ending))
    });
    let named: BTreeSet<&str> = named.collect();
    let leads_nowhere = |word: &&str| {
        let end = format!("/{}", word.trim_start_matches('/'));
        !paths.iter().any(|path| path.ends_with(&end))
    };
    unnamed.chain(named.into_iter().filter(leads_nowhere).map(|word| format!("{PAGE}: no {word}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_without_a_row_and_paths_that_lead_nowhere_are_problems() {
        let page = "`core/api`: `api/src/kind.rs`, old.rs, [more](other.md#part), `src/`, gone/, I/O, `test:///`, `<verb>.rs`";
        let paths = ["/core/api/src/kind.rs", "/core/api/src/", "/docs/another.md", "/src/gold.rs"];
        let paths = paths.map(str::to_owned).into();
        let members = ["core/api", "core/new"].map(str::to_owned);
        let expected = ["no row for core/new", "no gone/", "no old.rs", "no other.md"];
        assert_eq!(missing(page, &members, &paths), expected.map(|problem| format!("{PAGE}: {problem}")));
    }
}
