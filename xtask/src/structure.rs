//! `cargo xtask structure`: no files of a crate import each other in a circle.
//!
//! Files in a circle cannot be read, tested or moved one without the other, and mostly show a type that is in the wrong
//! place. A module and the modules below it are one thing in several files, and may import each other.
//!
//! The check reads `use` declarations and paths, and follows re-exports to the file that defines what is named. Test
//! modules and files that only tests have do not count.
//!
//! `docs/architecture.md` is checked too: see [`page`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use modules::Modules;

use crate::{Result, cargo};

mod modules;
mod page;
mod text;
mod words;

/// An import that closes a circle and is there all the same: the file that imports, the file it imports from, and the
/// reason. One that closes no circle is an error too, so that the list never outlasts what it is for.
type Exception = (&'static str, &'static str, &'static str);

const EXCEPTIONS: &[Exception] = &[
    (
        "atp-core/transport/src/pool/lease.rs",
        "atp-core/transport/src/pool/shared.rs",
        "a lease goes back to the pool that lent it, and the pool makes leases",
    ),
    (
        "tests/testbed/src/guest.rs",
        "tests/testbed/src/host.rs",
        "a guest is controlled through its host, and a host has guests",
    ),
];

/// The files that each file imports from, with the names it takes from them.
type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Prints each circle with what its files import from each other, each place where words decide, and what is wrong with the page
/// on the architecture, and fails if there is a circle, such a place without a reason, or a fault of the page.
pub(crate) fn run() -> Result<ExitCode> {
    let root = cargo::root();
    let mut imports = Imports::new();
    let mut files = 0;
    for member in cargo::members()? {
        files += add_imports(&root, &root.join(member).join("src"), &mut imports)?;
    }
    let mut problems = problems(&imports, EXCEPTIONS);
    problems.extend(words::problems(&words::readings(&root)?, words::REASONS));
    problems.extend(page::problems(&root)?);
    for problem in &problems {
        println!("{problem}");
    }
    for (file, calls, reason) in words::REASONS {
        println!("words: {file}: {}: {reason}", calls.join(", "));
    }
    println!("{files} files, {} problems, {} exceptions", problems.len(), EXCEPTIONS.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Adds the imports of the crate whose sources these are, and says how many files it has.
fn add_imports(root: &Path, sources: &Path, imports: &mut Imports) -> Result<usize> {
    let modules =
        Modules::read(sources).map_err(|error| format!("cannot read {}: {error}", sources.display()))?;
    let shown = |file: &Path| file.strip_prefix(root).unwrap_or(file).display().to_string();
    modules.for_each_import(|from, to, name| {
        imports.entry(shown(from)).or_default().entry(shown(to)).or_default().insert(name.to_owned());
    });
    Ok(modules.len())
}

/// The circles that are left without the exceptions, and the exceptions that no circle needs.
fn problems(imports: &Imports, exceptions: &[Exception]) -> Vec<String> {
    let left = without(imports, exceptions.iter());
    let mut problems: Vec<String> = circles(&left).iter().map(|circle| shown(&left, circle)).collect();
    for exception in exceptions {
        let (from, to, _) = exception;
        let others = without(imports, exceptions.iter().filter(|other| *other != exception));
        let is_needed = circles(&others).iter().any(|circle| circle.contains(*from) && circle.contains(*to))
            && others.get(*from).is_some_and(|imported| imported.contains_key(*to));
        if !is_needed {
            problems.push(format!("exception: {from} -> {to} closes no circle (any more): remove it"));
        }
    }
    problems
}

fn without<'a>(imports: &Imports, exceptions: impl Iterator<Item = &'a Exception>) -> Imports {
    let mut left = imports.clone();
    for (from, to, _) in exceptions {
        if let Some(imported) = left.get_mut(*from) {
            imported.remove(*to);
        }
    }
    left
}

/// The sets of files in which each leads to each other.
fn circles(imports: &Imports) -> BTreeSet<BTreeSet<&str>> {
    let reachable: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|file| (file.as_str(), reachable(imports, file))).collect();
    let leads_to = |from: &str, to: &str| reachable.get(from).is_some_and(|files| files.contains(to));
    let files = imports.keys().map(String::as_str);
    let circle_of = |file| reachable[file].iter().copied().filter(|other| leads_to(other, file)).collect();
    files.filter(|file| leads_to(file, file)).map(circle_of).collect()
}

/// The files that one leads to; itself only if a circle does.
fn reachable<'a>(imports: &'a Imports, file: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![file];
    while let Some(from) = open.pop() {
        for to in imports.get(from).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(to.as_str()) {
                open.push(to);
            }
        }
    }
    found
}

/// A line with the files, and one for each import.
fn shown(imports: &Imports, circle: &BTreeSet<&str>) -> String {
    let mut text = format!("circle: {}", circle.iter().copied().collect::<Vec<_>>().join(", "));
    for from in circle {
        for (to, names) in
            imports.get(*from).into_iter().flatten().filter(|(to, _)| circle.contains(to.as_str()))
        {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text.push_str(&format!("\n    {from} -> {to}: {}", names.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::{env, fs, process};

    use super::*;

    /// Source files in a folder of their own, which is removed at the end.
    pub(super) struct Tree(PathBuf);

    impl Tree {
        pub(super) fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let tree = Self(env::temp_dir().join(format!("xtask-structure-{}-{count}", process::id())));
            for (name, text) in files {
                let file = tree.0.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            tree
        }

        pub(super) fn folder(&self) -> &Path {
            &self.0
        }

        pub(super) fn name_of(&self, file: &Path) -> String {
            file.strip_prefix(&self.0).unwrap().display().to_string()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn check(files: &[(&str, &str)], exceptions: &[Exception]) -> Vec<String> {
        let tree = Tree::new(files);
        let mut imports = Imports::new();
        assert_eq!(add_imports(tree.folder(), tree.folder(), &mut imports), Ok(files.len()));
        problems(&imports, exceptions)
    }

    const PAIR: [(&str, &str); 3] = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::{B, C};"),
        ("b.rs", "fn f(a: &super::a::A) {}"),
    ];

    #[test]
    fn a_pair_is_shown_with_the_names_each_way() {
        let expected = "circle: a.rs, b.rs\n    a.rs -> b.rs: B, C\n    b.rs -> a.rs: A";
        assert_eq!(check(&PAIR, &[]), [expected]);
    }

    #[test]
    fn a_circle_through_a_third_file_is_found_and_what_hangs_on_it_is_not() {
        let files = [
            ("lib.rs", ""),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c::C; use crate::below;"),
            ("c.rs", "use crate::a::A;"),
            ("above.rs", "use crate::a::A;"),
            ("below.rs", ""),
        ];
        let found = check(&files, &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("circle: a.rs, b.rs, c.rs\n"), "{}", found[0]);
    }

    #[test]
    fn siblings_may_not_import_each_other_and_parents_and_children_may() {
        let family = [("a/mod.rs", "use b::B; use c::C;"), ("a/b.rs", "use super::A; use super::c::C;")];
        assert!(check(&[&family[..], &[("a/c.rs", "use super::A;")]].concat(), &[]).is_empty());
        assert_eq!(check(&[&family[..], &[("a/c.rs", "use super::b::B;")]].concat(), &[]).len(), 1);
    }

    #[test]
    fn an_exception_lets_a_circle_pass_and_is_refused_once_there_is_none() {
        let exception = ("b.rs", "a.rs", "a reason");
        assert!(check(&PAIR, &[exception]).is_empty());
        let stale = "exception: b.rs -> a.rs closes no circle (any more): remove it";
        assert_eq!(check(&PAIR[..2], &[exception]), [stale]);
        // The second is of no use beside the first.
        assert_eq!(check(&PAIR, &[exception, ("a.rs", "b.rs", "another")]).len(), 2);
        assert_eq!(check(&PAIR, &[exception, ("b.rs", "lib.rs", "none such")]).len(), 1);
    }
}
