//! The modules of one crate, and the file that defines what a path names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};
use std::{fs, io};

use super::text::{Names, Path};

/// How many imports of imports are followed: a circle of renames must not be followed without end.
const MOST_REEXPORTS: usize = 8;

/// The modules of one crate that have files of their own, by their paths from the crate's root.
#[derive(Debug, Default)]
pub(super) struct Modules {
    modules: BTreeMap<Path, Module>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    names: Names,
    /// The paths from the crate's root of the names that are in scope. An import that is not public is one too, since
    /// child modules may use it.
    scope: BTreeMap<String, Path>,
}

impl Modules {
    /// Reads the source files below a folder, without those that are for tests only.
    pub(super) fn read(sources: &FilePath) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        collect(sources, &Path::new(), &mut files)?;
        let test_only: BTreeSet<Path> = files
            .iter()
            .flat_map(|(module, (_, names))| names.test_modules.iter().map(|name| child(module, name)))
            .collect();
        files.retain(|module, _| {
            let is_test = (1..=module.len()).any(|length| test_only.contains(&module[..length]));
            !is_test && !module.iter().any(|name| name == "tests")
        });
        let known: BTreeSet<Path> = files.keys().cloned().collect();
        let modules = files.into_iter().map(|(module, (file, names))| {
            let scope = names.imports.iter().filter_map(|(name, path)| {
                Some((name.clone(), absolute(&module, path, |path| known.contains(path))?))
            });
            let scope = scope.collect();
            (module, Module { file, scope, names })
        });
        Ok(Self { modules: modules.collect() })
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    /// Calls `found` with each file and each call in it that looks for something in the words of a message.
    pub(super) fn for_each_reading(&self, mut found: impl FnMut(&FilePath, &str)) {
        for module in self.modules.values() {
            module.names.readings.iter().for_each(|reading| found(&module.file, reading));
        }
    }

    /// Calls `found` with each file that names something of another file, that other file, and the name.
    /// A module and the modules below it are one thing in several files: what they name of each other does not count.
    pub(super) fn for_each_import(&self, mut found: impl FnMut(&FilePath, &FilePath, &str)) {
        for (module, own) in &self.modules {
            let imported = own.scope.values().cloned();
            let named = own.names.paths.iter().filter_map(|path| self.resolve(module, own, path));
            for path in imported.chain(named) {
                let Some((target, name)) = self.defining(path) else { continue };
                if !target.starts_with(module) && !module.starts_with(target) {
                    found(&own.file, &self.modules[target].file, &name);
                }
            }
        }
    }

    /// The path from the crate's root of what `module` calls by `path`. None if it is of another crate.
    fn resolve(&self, module: &Path, own: &Module, path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        match own.scope.get(first) {
            Some(imported) => Some([imported, rest].concat()),
            None => absolute(module, path, |path| self.modules.contains_key(path)),
        }
    }

    /// The module that defines what a path names, and the name it has there. Re-exports are followed.
    fn defining(&self, mut path: Path) -> Option<(&Path, String)> {
        for _ in 0..MOST_REEXPORTS {
            let length = (0..=path.len()).rev().find(|&length| self.modules.contains_key(&path[..length]))?;
            let (module, own) = self.modules.get_key_value(&path[..length])?;
            match path.get(length).map(|name| (name, own.scope.get(name))) {
                Some((_, Some(source))) if *source != path => {
                    path = [source, &path[length + 1..]].concat();
                }
                Some((name, _)) => return Some((module, name.clone())),
                None => return Some((module, path.last().cloned().unwrap_or_default())),
            }
        }
        None
    }
}

/// Reads the source files below a folder, each with the path of its module.
fn collect(folder: &FilePath, module: &Path, files: &mut BTreeMap<Path, (PathBuf, Names)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if file.is_dir() {
            collect(&file, &child(module, &name), files)?;
        } else if file.extension().is_some_and(|extension| extension == "rs") {
            let is_root = module.is_empty() && ["lib", "main"].contains(&name.as_str());
            let module = if is_root || name == "mod" { module.clone() } else { child(module, &name) };
            // The program of a package that has a library as well is a crate of its own, and names only the library.
            if name == "main" && files.contains_key(&module) {
                continue;
            }
            let names = Names::read(&fs::read_to_string(&file)?);
            let names = names.map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
            files.insert(module, (file, names));
        }
    }
    Ok(())
}

fn child(module: &Path, name: &str) -> Path {
    [&module[..], &[name.to_owned()]].concat()
}

/// The path from the crate's root of what `module` calls by `path`. A path that begins with neither `crate`, `super`
/// nor `self` begins with a child module or is of another crate: that has no path here.
fn absolute(module: &Path, path: &[String], is_module: impl Fn(&Path) -> bool) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let supers = path.iter().take_while(|name| *name == "super").count();
            let base = &module[..module.len().checked_sub(supers)?];
            Some([base, &path[supers..]].concat())
        }
        name => is_module(&child(module, name)).then(|| [module, path].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::tests::Tree;

    /// The imports among files of these names and texts, as `from -> to: name`.
    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::new(files);
        let shown = |file: &FilePath| tree.name_of(file);
        let mut found = BTreeSet::new();
        Modules::read(tree.folder()).unwrap().for_each_import(|from, to, name| {
            found.insert(format!("{} -> {}: {name}", shown(from), shown(to)));
        });
        found.into_iter().collect()
    }

    #[test]
    fn a_path_leads_to_the_file_of_its_longest_module() {
        for (a, expected) in [
            ("use crate::b::B;", "a.rs -> b.rs: B"),
            ("use super::b;", "a.rs -> b.rs: b"),
            ("use crate::b::Kind::Good;", "a.rs -> b.rs: Kind"),
            ("use crate::b::*;", "a.rs -> b.rs: *"),
            ("fn f() -> crate::b::c::C {}", "a.rs -> b/c.rs: C"),
            ("use crate::{\n    b::{c::{self as x}},\n};", "a.rs -> b/c.rs: c"),
        ] {
            assert_eq!(
                imports(&[("lib.rs", ""), ("a.rs", a), ("b.rs", ""), ("b/c.rs", "")]),
                [expected],
                "{a}"
            );
        }
    }

    #[test]
    fn a_name_in_scope_stands_for_its_path() {
        let files =
            [("lib.rs", ""), ("a.rs", "use crate::b; fn f() { b::c::d() }"), ("b.rs", ""), ("b/c.rs", "")];
        assert_eq!(imports(&files), ["a.rs -> b.rs: b", "a.rs -> b/c.rs: d"]);
    }

    #[test]
    fn reexports_are_followed_to_the_file_that_defines() {
        for (lib, p) in [
            ("pub use p::Y;", "pub(crate) use x::X as Y;"),
            ("use p::x::X as Y;", ""),
            ("pub use self::p::Y;", "pub use self::x::{X as Y};"),
        ] {
            let files = [("lib.rs", lib), ("p/mod.rs", p), ("p/x.rs", ""), ("a.rs", "use crate::Y;")];
            assert_eq!(imports(&files), ["a.rs -> p/x.rs: X"], "{lib} {p}");
        }
        // Names that stand for each other do not compile; they must not hang the check.
        let _ = imports(&[("lib.rs", ""), ("a.rs", "use crate::b::X;"), ("b.rs", "use crate::a::X;")]);
    }

    #[test]
    fn families_other_crates_and_tests_do_not_count() {
        let files = [
            ("lib.rs", "mod a; #[cfg(test)] mod fixture; use a::b::B;"),
            ("main.rs", "use other::a;"),
            ("a/mod.rs", "mod b; use b::c::C; use other::fixture::D; #[cfg(test)] mod tests;"),
            ("a/b.rs", "use super::A; use crate::E; #[cfg(test)] mod tests { use crate::z; }"),
            ("a/b/c.rs", "use super::super::A; fn f() { std::z::f() }"),
            ("a/tests.rs", "use crate::z;"),
            ("fixture.rs", "use crate::z;"),
            ("z.rs", ""),
        ];
        assert!(imports(&files).is_empty(), "{:?}", imports(&files));
    }
}
