//! What a source file names: its `use` declarations, and the paths in its code.

use proc_macro2::{Delimiter, Group, LexError, TokenStream, TokenTree};

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
    /// Calls that look for something in the words of a message: `message.contains("x")`.
    pub(super) readings: Vec<String>,
    /// The child modules declared with `#[cfg(test)] mod name;`: their files are for tests only.
    pub(super) test_modules: Vec<String>,
}

impl Names {
    /// Reads a source file. Items that are compiled for tests only do not count.
    pub(super) fn read(text: &str) -> Result<Self, LexError> {
        let mut names = Self::default();
        names.add(text.parse()?);
        Ok(names)
    }

    fn add(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = &tokens[..];
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                TokenTree::Group(group) if is_test_only(group) => {
                    let item = rest.iter().position(|token| is_punct(token, ';') || is_block(token));
                    let (item, after) = rest.split_at(item.unwrap_or(rest.len()));
                    rest = after.get(1..).unwrap_or_default();
                    if let [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] = item
                        && keyword == "mod"
                        && after.first().is_some_and(|end| is_punct(end, ';'))
                    {
                        self.test_modules.push(name.to_string());
                    }
                }
                TokenTree::Group(group) => self.add(group.stream()),
                // `use<…>` in a type is no declaration.
                TokenTree::Ident(word)
                    if word == "use" && !rest.first().is_some_and(|it| is_punct(it, '<')) =>
                {
                    let end = rest.iter().position(|token| is_punct(token, ';')).unwrap_or(rest.len());
                    self.imports.extend(imports(&[], &rest[..end]));
                    rest = &rest[end..];
                }
                TokenTree::Ident(word) => {
                    let mut path = vec![word.to_string()];
                    while let [one, two, TokenTree::Ident(name), after @ ..] = rest
                        && is_punct(one, ':')
                        && is_punct(two, ':')
                    {
                        path.push(name.to_string());
                        rest = after;
                    }
                    self.readings.extend(reading(path.last().map_or("", String::as_str), rest));
                    if path.len() > 1 {
                        self.paths.push(path);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

/// What holds the words of another program, by the names that the code has for it.
const MESSAGES: [&str; 5] = ["message", "desc", "said", "reason", "words"];

/// How words are looked for.
const LOOKS: [&str; 7] =
    ["contains", "starts_with", "ends_with", "split_once", "strip_prefix", "strip_suffix", "find"];

/// The call that follows a name, if it looks for something in a message.
fn reading(name: &str, after: &[TokenTree]) -> Option<String> {
    let [dot, TokenTree::Ident(method), TokenTree::Group(arguments), ..] = after else { return None };
    let looks = MESSAGES.contains(&name) && LOOKS.iter().any(|look| method == look);
    // A sentence with its translations.
    let is_phrase = method == "is_in";
    let is_call = is_punct(dot, '.') && arguments.delimiter() == Delimiter::Parenthesis;
    (is_call && (looks || is_phrase)).then(|| format!("{name}.{method}({})", arguments.stream()))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_block(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// Whether this is the attribute of an item that is compiled for tests only.
fn is_test_only(group: &Group) -> bool {
    let text: String = group.to_string().split_whitespace().collect();
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test,")
}

/// The names that a declaration, or the list in its braces, brings into scope below `prefix`.
fn imports(prefix: &[String], list: &[TokenTree]) -> Vec<Import> {
    let mut imports = Vec::new();
    for tree in list.split(|token| is_punct(token, ',')) {
        let (mut path, mut name) = (prefix.to_vec(), None);
        let mut tokens = tree.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => name = tokens.next().map(ToString::to_string),
                // The prefix itself.
                TokenTree::Ident(word) if word == "self" && !prefix.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(below) => {
                    let below: Vec<TokenTree> = below.stream().into_iter().collect();
                    imports.extend(self::imports(&path, &below));
                    path.clear();
                }
                token if is_punct(token, '*') => path.push("*".to_owned()),
                _ => {}
            }
        }
        // A list may end with a comma, after which there is nothing.
        if let Some(name) = name.or_else(|| path.last().cloned()).filter(|_| !tree.is_empty()) {
            imports.push((name, path));
        }
    }
    imports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let names = Names::read(text).unwrap();
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
    fn calls_that_look_into_a_message_are_read() {
        let names = Names::read(
            "fn f(e: E) { if e.message.contains(\"a b\") || X::GONE.is_in(m) || list.contains(&y) { said.len(); } }
            #[cfg(test)] mod tests { fn g() { message.contains(\"c\") } }",
        );
        assert_eq!(names.unwrap().readings, ["message.contains(\"a b\")", "GONE.is_in(m)"]);
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
        let names = Names::read("#[cfg(test)]\nmod a;\nmod b;\n#[cfg(test)]\nmod c { fn d(); }").unwrap();
        assert_eq!(names.test_modules, ["a"]);
    }
}
