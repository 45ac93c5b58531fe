//! `cargo xtask structure`: no two files of a crate import each other, but parent and child modules.
//!
//! Two files that import each other cannot be read, tested or moved one without the other, and mostly show a type that
//! is in the wrong place. A parent module and the modules below it are one thing in several files, and may.
//!
//! The check reads `use` declarations and paths that begin with `crate`, `super` or `self`, and follows re-exports to the file
//! that defines what is named. What stands in test modules does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use crate::{Result, cargo};

/// Pairs of files that import each other all the same, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
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

/// How many re-exports of re-exports are followed.
const MOST_REEXPORTS: usize = 8;

/// A module by the names on the way to it from the crate's root.
type Module = Vec<String>;

/// The files of one crate.
#[derive(Debug, Default)]
struct Crate {
    files: BTreeMap<Module, File>,
}

/// What one file imports.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// All that is named, by its full path.
    named: Vec<Module>,
    /// What is re-exported: the name it has here, and its full path.
    exported: BTreeMap<String, Module>,
}

pub(crate) fn run() -> Result<ExitCode> {
    let root = cargo::root();
    let mut circles = BTreeMap::new();
    let mut files = 0;
    for member in members(&root)? {
        let sources = root.join(&member).join("src");
        let parsed = Crate::read(&root, &sources)
            .map_err(|error| format!("{}: cannot be read: {error}", sources.display()))?;
        files += parsed.files.len();
        circles.extend(parsed.circles());
    }
    let mut failed = false;
    for ((one, other), names) in &circles {
        if !EXCEPTIONS.iter().any(|(first, second, _)| one == first && other == second) {
            println!("{one} and {other} import each other: {}", names.join(", "));
            failed = true;
        }
    }
    for (one, other, _) in EXCEPTIONS {
        if !circles.contains_key(&((*one).to_owned(), (*other).to_owned())) {
            println!("{one} and {other} no longer import each other: take the exception out");
            failed = true;
        }
    }
    println!("structure: {files} files, {} circles, {} of them stated", circles.len(), EXCEPTIONS.len());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The members of the workspace, as its manifest lists them.
fn members(root: &Path) -> Result<Vec<String>> {
    let manifest = root.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
    let list = text.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.ok_or_else(|| format!("{}: no list of members", manifest.display()))?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

impl Crate {
    fn read(root: &Path, sources: &Path) -> io::Result<Crate> {
        let mut texts = BTreeMap::new();
        collect(sources, &mut Vec::new(), &mut texts)?;
        let mut parsed = Crate::default();
        let test_only: BTreeSet<Module> =
            texts.iter().flat_map(|(module, (_, text))| test_modules(module, text)).collect();
        for (module, (path, text)) in &texts {
            let is_test = (1..=module.len()).any(|length| test_only.contains(&module[..length]));
            if is_test || module.iter().any(|name| name == "tests") {
                continue;
            }
            let path = path.strip_prefix(root).unwrap_or(path).to_owned();
            parsed.files.insert(module.clone(), File::parse(path, module, &without_tests(&bare(text))));
        }
        Ok(parsed)
    }

    /// The pairs of files that import each other, with what they name of each other.
    fn circles(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut imports: BTreeMap<(&Module, &Module), BTreeSet<&str>> = BTreeMap::new();
        for (module, file) in &self.files {
            for named in &file.named {
                if let Some(target) = self.defining(named, MOST_REEXPORTS)
                    && !target.starts_with(module)
                    && !module.starts_with(target)
                {
                    let name = named.last().map_or("", String::as_str);
                    imports.entry((module, target)).or_default().insert(name);
                }
            }
        }
        let mut circles = BTreeMap::new();
        for ((one, other), names) in &imports {
            if let Some(back) = imports.get(&(*other, *one))
                && one < other
            {
                let names = names.iter().chain(back).map(|name| (*name).to_owned()).collect();
                circles.insert((self.path(one), self.path(other)), names);
            }
        }
        circles
    }

    fn path(&self, module: &Module) -> String {
        self.files[module].path.display().to_string()
    }

    /// The module whose file defines what a full path names: re-exports are followed.
    fn defining<'a>(&'a self, named: &[String], depth: usize) -> Option<&'a Module> {
        let length = (0..=named.len()).rev().find(|&length| self.files.contains_key(&named[..length]))?;
        let (module, file) = self.files.get_key_value(&named[..length])?;
        match named.get(length).and_then(|name| file.exported.get(name)) {
            Some(source) if depth > 0 => self.defining(source, depth - 1),
            _ => Some(module),
        }
    }
}

/// Reads the sources below a folder, each under the name of its module.
fn collect(
    folder: &Path,
    module: &mut Module,
    texts: &mut BTreeMap<Module, (PathBuf, String)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            module.push(name);
            collect(&path, module, texts)?;
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut module = module.clone();
            if !["lib", "main", "mod"].contains(&name.as_str()) {
                module.push(name);
            }
            texts.insert(module, (path.clone(), fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// The modules with files of their own that a file declares for tests only.
fn test_modules(module: &Module, text: &str) -> Vec<Module> {
    let declared = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().trim_start_matches("pub(crate) ").strip_prefix("mod ")?;
        let (name, _) = rest.split_once(';')?;
        let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_name.then(|| [&module[..], &[name.to_owned()]].concat())
    });
    declared.collect()
}

/// The code without comments, and with nothing in its strings.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r\"") || rest.starts_with("r#") && rest[2..].starts_with(['"', '#']) {
            let hashes = rest[1..].bytes().take_while(|&byte| byte == b'#').count();
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest.get(start..)
                .and_then(|inner| inner.find(&end))
                .map_or(rest.len(), |at| start + at + end.len())
        } else if c == '"' {
            string_length(rest)
        } else if c == '\'' {
            // A character; of a lifetime the quote alone.
            let quoted = rest.get(1..).unwrap_or_default();
            let length = if quoted.starts_with('\\') {
                quoted.get(2..).and_then(|rest| rest.find('\'')).map(|at| at + 4)
            } else {
                None
            };
            let plain = quoted.chars().next().filter(|c| quoted[c.len_utf8()..].starts_with('\''));
            length.or(plain.map(|c| c.len_utf8() + 2)).unwrap_or(1)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[length.min(rest.len())..];
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The code without modules for tests in it.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| rest.find(mark)).min() {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let (brace, semicolon) = (item.find('{'), item.find(';'));
        let end = match (brace, semicolon) {
            (Some(brace), None) => block_end(item, brace),
            (Some(brace), Some(semicolon)) if brace < semicolon => block_end(item, brace),
            (_, Some(semicolon)) => semicolon + 1,
            (None, None) => item.len(),
        };
        rest = &item[end..];
    }
    kept + rest
}

/// Where the block ends that is opened at `start`.
fn block_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

impl File {
    fn parse(path: PathBuf, module: &Module, code: &str) -> File {
        let mut file = File { path, named: Vec::new(), exported: BTreeMap::new() };
        // Declarations first: each ends at its semicolon, whatever braces it has.
        let mut rest = code;
        let mut other = String::new();
        while let Some(at) = find_use(rest) {
            other.push_str(&rest[..at]);
            let declaration = &rest[at + "use ".len()..];
            let end = declaration.find(';').unwrap_or(declaration.len());
            let is_exported = rest[..at].trim_end().ends_with(')') && rest[..at].contains("pub(")
                || rest[..at].trim_end().ends_with("pub");
            for (name, named) in tree(&declaration[..end]) {
                if let Some(named) = absolute(module, &named) {
                    if is_exported {
                        file.exported.insert(name, named);
                    } else {
                        file.named.push(named);
                    }
                }
            }
            rest = declaration.get(end + 1..).unwrap_or_default();
        }
        other.push_str(rest);
        let mut words = other.as_str();
        while let Some((start, word)) = next_path(words) {
            let named: Module = word.split("::").map(|part| part.trim().to_owned()).collect();
            if ["crate", "super", "self"].contains(&named[0].as_str()) && named.len() > 1 {
                file.named.extend(absolute(module, &named));
            }
            words = &words[start + word.len()..];
        }
        file
    }
}

/// Where the next declaration begins.
fn find_use(code: &str) -> Option<usize> {
    let starts = code.match_indices("use ").map(|(at, _)| at);
    let mut starts = starts.filter(|&at| code[..at].chars().next_back().is_none_or(|c| !is_word(c)));
    starts.next()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The next run of names joined by `::`, and where it begins.
fn next_path(code: &str) -> Option<(usize, &str)> {
    let start = code.find(is_word)?;
    let mut end = start;
    loop {
        end += code[end..].find(|c| !is_word(c)).unwrap_or(code.len() - end);
        match code[end..].strip_prefix("::") {
            Some(next) if next.starts_with(is_word) => end += 2,
            _ => return Some((start, &code[start..end])),
        }
    }
}

/// The names that a declaration brings in, each with its path.
fn tree(declaration: &str) -> Vec<(String, Module)> {
    let text = declaration.trim();
    if let Some((prefix, rest)) = text.split_once('{') {
        let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
        let prefix: Module = parts(prefix);
        return split_top(inner)
            .into_iter()
            .flat_map(tree)
            .map(|(name, path)| {
                let path = if path == ["self"] { Vec::new() } else { path };
                (name, [&prefix[..], &path[..]].concat())
            })
            .collect();
    }
    let (path, alias) = match text.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (text, None),
    };
    let path = parts(path);
    match path.last().cloned() {
        Some(last) => vec![(alias.unwrap_or(last), path)],
        None => Vec::new(),
    }
}

fn parts(path: &str) -> Module {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Splits at the commas that are in no inner braces.
fn split_top(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// The full path of what a module calls by `named`; none for what is of another crate or below the module.
fn absolute(module: &Module, named: &[String]) -> Option<Module> {
    let supers = named.iter().take_while(|part| *part == "super").count();
    match named.first()?.as_str() {
        "crate" => Some(named[1..].to_vec()),
        "super" => {
            let base = &module[..module.len().checked_sub(supers)?];
            Some([base, &named[supers..]].concat())
        }
        "self" => Some([&module[..], &named[1..]].concat()),
        // A module of its own, or another crate: the first is looked up, the second is not found.
        _ => Some([&module[..], named].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles among files of these names and texts.
    fn circles(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let folder = std::env::temp_dir().join(format!("atp-structure-{}-{:p}", std::process::id(), files));
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = Crate::read(&folder, &folder).unwrap().circles().into_keys().collect();
        fs::remove_dir_all(folder).unwrap();
        found
    }

    #[test]
    fn files_that_import_each_other_are_found() {
        let pair = [("a.rs".to_owned(), "b.rs".to_owned())];
        for (a, b) in [
            ("use crate::b::B;", "use super::a::A;"),
            ("use crate::{b::{self, B as C}, c};", "fn f() -> crate::a::A { todo() }"),
            ("fn f(x: super::b::B) {}", "use crate::a;"),
        ] {
            assert_eq!(circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]), pair, "{a} {b}");
        }
    }

    #[test]
    fn reexports_are_followed_to_the_file_that_defines() {
        let files = [
            ("lib.rs", "mod p; mod a;"),
            ("p/mod.rs", "mod x; pub(crate) use x::X as Y;"),
            ("p/x.rs", "use crate::a::A;"),
            ("a.rs", "use crate::p::Y;"),
        ];
        assert_eq!(circles(&files), [("a.rs".to_owned(), "p/x.rs".to_owned())]);
    }

    #[test]
    fn parents_and_children_tests_and_comments_do_not_count() {
        for (a, b) in [
            ("use crate::b::B;", "// use crate::a::A;\nconst X: &str = \"use crate::a::A;\";"),
            ("use crate::b::B;", "#[cfg(test)]\nmod tests { use crate::a::A; fn f() { if true {} } }"),
            ("use crate::b::B;", "use other::a::A;"),
        ] {
            assert!(circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]).is_empty(), "{b}");
        }
        let family = [("a/mod.rs", "mod b; use b::B;"), ("a/b.rs", "use super::A; use crate::a::C;")];
        assert!(circles(&family).is_empty());
    }
}
