//! The text of a source file: code without comments, literals and tests; its `use` declarations; the paths in it.

/// The names of a path, in order: `crate::pool::Lease` has three.
pub(super) type Path = Vec<String>;

/// A name that a `use` declaration brings into scope, and the path it stands for.
pub(super) type Import = (String, Path);

/// What a source file names.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) imports: Vec<Import>,
    /// Paths outside `use` declarations.
    pub(super) paths: Vec<Path>,
}

impl Names {
    /// Reads a source file. Test modules in it do not count.
    pub(super) fn read(text: &str) -> Self {
        let code = without_tests(&bare(text));
        let mut names = Self::default();
        let mut rest = code.as_str();
        while let Some(start) = use_declaration(rest) {
            names.add_paths(&rest[..start]);
            let declaration = &rest[start + "use ".len()..];
            let end = declaration.find(';').unwrap_or(declaration.len());
            names.imports.extend(imports(&declaration[..end]));
            rest = declaration.get(end + 1..).unwrap_or_default();
        }
        names.add_paths(rest);
        names
    }

    fn add_paths(&mut self, code: &str) {
        let mut rest = code;
        while let Some((start, path)) = next_path(rest) {
            if path.contains("::") {
                self.paths.push(segments(path));
            }
            rest = &rest[start + path.len()..];
        }
    }
}

/// The child modules that a file declares with `#[cfg(test)] mod name;`: their files are for tests only.
pub(super) fn test_modules(text: &str) -> Vec<String> {
    let code = bare(text);
    let declared = code.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let item = rest.trim_start().trim_start_matches("pub(crate) ").strip_prefix("mod ")?;
        let (name, _) = item.split_once(';')?;
        name.chars().all(is_word).then(|| name.to_owned())
    });
    declared.collect()
}

/// Replaces each comment and each literal with a space.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match skipped(rest) {
            Some(length) => {
                code.push(' ');
                rest = &rest[length.min(rest.len())..];
            }
            None => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    code
}

/// The length of the comment or literal that the text begins with.
fn skipped(text: &str) -> Option<usize> {
    let to_end_of = |start: usize, end: &str| {
        text.get(start..).and_then(|inner| inner.find(end)).map_or(text.len(), |at| start + at + end.len())
    };
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(to_end_of(2, "*/"));
    }
    if text.starts_with("r\"") || text.starts_with("r#\"") || text.starts_with("r##") {
        let hashes = text[1..].bytes().take_while(|&byte| byte == b'#').count();
        return Some(to_end_of(hashes + 2, &format!("\"{}", "#".repeat(hashes))));
    }
    if text.starts_with('"') {
        return Some(string_length(text));
    }
    let quoted = text.strip_prefix('\'')?;
    // The character after a backslash is part of the literal even if it is a quote.
    if let Some(escape) = quoted.strip_prefix('\\') {
        return Some(escape.get(1..).and_then(|rest| rest.find('\'')).map_or(1, |at| at + 4));
    }
    // A lifetime has no second quote: only its first is skipped.
    let character = quoted.chars().next().filter(|c| quoted[c.len_utf8()..].starts_with('\''));
    Some(character.map_or(1, |c| c.len_utf8() + 2))
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

/// Removes the items that are compiled for tests only.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| rest.find(mark)).min() {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = match (item.find('{'), item.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                block_end(item, brace)
            }
            (_, Some(semicolon)) => semicolon + 1,
            (_, None) => item.len(),
        };
        rest = &item[end..];
    }
    kept + rest
}

/// Where the block ends that opens at `start`.
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

/// Where the next `use` declaration begins.
fn use_declaration(code: &str) -> Option<usize> {
    let mut starts = code.match_indices("use ").map(|(at, _)| at);
    starts.find(|&at| code[..at].chars().next_back().is_none_or(|c| !is_word(c)))
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

/// The names that a declaration (without `use` and `;`) brings into scope.
fn imports(declaration: &str) -> Vec<Import> {
    let text = declaration.trim();
    if let Some((prefix, rest)) = text.split_once('{') {
        let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
        let prefix = segments(prefix);
        let below = split_list(inner).into_iter().flat_map(imports);
        return below.filter_map(|(name, path)| import(Some(name), &prefix, path)).collect();
    }
    match text.split_once(" as ") {
        Some((path, name)) => import(Some(name.trim().to_owned()), &[], segments(path)).into_iter().collect(),
        None => import(None, &[], segments(text)).into_iter().collect(),
    }
}

/// The import of `path` below `prefix`. Without a name of its own, and for `self`, it has the last of the path.
fn import(name: Option<String>, prefix: &[String], mut path: Path) -> Option<Import> {
    if !prefix.is_empty() && path == ["self"] {
        path.clear();
    }
    let path = [prefix, &path].concat();
    let name = name.filter(|name| name != "self").or_else(|| path.last().cloned())?;
    Some((name, path))
}

fn segments(path: &str) -> Path {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Splits at the commas that are in no inner braces.
fn split_list(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = list.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let names = Names::read(text);
        let imports = names.imports.into_iter().map(|(name, path)| (name, path.join("::")));
        (imports.collect(), names.paths.into_iter().map(|path| path.join("::")).collect())
    }

    #[test]
    fn every_form_of_declaration_is_read() {
        let (imports, _) = read(
            "use crate::a::{self, b::{C, D as E},\n    f::*};\npub(crate) use super::g as h; pub use i;
            use crate::j::{self as k};",
        );
        let expected = [
            ("a", "crate::a"),
            ("C", "crate::a::b::C"),
            ("E", "crate::a::b::D"),
            ("*", "crate::a::f::*"),
            ("h", "super::g"),
            ("i", "i"),
            ("k", "crate::j"),
        ];
        assert_eq!(imports, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
    }

    #[test]
    fn paths_in_code_are_read() {
        let (_, paths) = read("fn f<'a>(x: &'a crate::a::B) -> super::C { d::e(x); Vec::<self::F>::new() }");
        assert_eq!(paths, ["crate::a::B", "super::C", "d::e", "self::F"]);
    }

    #[test]
    fn comments_literals_and_tests_hide_nothing_behind_them() {
        for text in [
            "// \" use x::y;\n",
            "/* \" use x::y; */",
            "const S: &str = \"use x::y; \\\" x::y\";",
            "const S: &str = r#\"\" use x::y; \"#;",
            "const C: [char; 3] = ['\"', '\\'', '\\u{22}'];",
            "#[cfg(test)]\nmod tests { use x::y; fn f() { if true { x::y() } } }",
            "#[cfg(test)]\nuse x::y;",
            "#[cfg(all(test, unix))]\nmod tests;",
        ] {
            let (imports, paths) = read(&format!("{text} use crate::z; fn f() {{ crate::w::v() }}"));
            assert_eq!(imports, [("z".to_owned(), "crate::z".to_owned())], "{text}");
            assert_eq!(paths, ["crate::w::v"], "{text}");
        }
        assert_eq!(test_modules("#[cfg(test)]\nmod a;\nmod b;\n#[cfg(test)]\nmod c { fn d(); }"), ["a"]);
    }
}
