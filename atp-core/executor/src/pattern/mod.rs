//! One part of a selector, compiled: names, a glob, or a regular expression on a name.
//!
//! Globs are translated into regular expressions, so that matching takes linear time for every pattern. A pattern made
//! of characters and numbers alone (`web-[1-100]`) stands for the names that it spells out, as for `clush`, `pdsh` and
//! Ansible: each of them is looked for, and one that is missed can be reported.

mod numbers;
mod parser;
mod token;

use regex::Regex;

use self::parser::Parser;
use self::token::{Token, count, expand, names_numbers, push_regex, too_many};

/// The most names that the numbers of a pattern may stand for: more than a fleet has, and few enough to hold in memory.
pub(crate) const MAX_NAMES: u64 = 100_000;

/// A compiled pattern for a name. Matching is case-sensitive and, for names and globs, of the whole name.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// Exactly these names, sorted.
    Names(Vec<String>),
    /// A glob or a regular expression.
    Regex(Regex),
}

/// Where in a pattern something is wrong, and what would have been right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatternError {
    /// Offset in characters from the start of the pattern.
    pub(crate) offset: usize,
    /// What was expected there.
    pub(crate) expected: String,
}

impl PatternError {
    fn new(offset: usize, expected: impl Into<String>) -> Self {
        PatternError { offset, expected: expected.into() }
    }
}

impl Pattern {
    /// Exactly this name.
    pub(crate) fn name(name: impl Into<String>) -> Pattern {
        Pattern::Names(vec![name.into()])
    }

    /// Compiles a glob: `*` any characters, `?` one, `[a-z]` one of a class, `[!a-z]` one outside it, `[1-100]`, `[01-20]`,
    /// `[1:100]`, `[1,3,7-9]` and `{1..100}` numbers, `{a,b}` alternatives, `\` takes the next character literally.
    ///
    /// Brackets that hold numbers of several digits, or a list, are numbers; of single digits, class and numbers are the same.
    /// What can be read either way is an error that shows both.
    pub(crate) fn glob(text: &str) -> Result<Pattern, PatternError> {
        let tokens = Parser::new(text).parse()?;
        if tokens.iter().all(|token| matches!(token, Token::Char(_))) || names_numbers(&tokens) {
            match count(&tokens) {
                None => {}
                Some(..=MAX_NAMES) => {
                    let mut names = expand(&tokens);
                    names.sort_unstable();
                    names.dedup();
                    return Ok(Pattern::Names(names));
                }
                Some(count) => return Err(too_many(0, count)),
            }
        }
        let mut regex = String::from(r"(?s)\A");
        push_regex(&tokens, &mut regex);
        regex.push_str(r"\z");
        // What is left to go wrong is size beyond what the matcher takes.
        Regex::new(&regex)
            .map(Pattern::Regex)
            .map_err(|_| PatternError::new(0, "a shorter or simpler pattern"))
    }

    /// Compiles a regular expression that may match anywhere in a name.
    pub(crate) fn regex(text: &str) -> Result<Pattern, PatternError> {
        compiled(text)
            .map(Pattern::Regex)
            .map_err(|reason| PatternError::new(0, format!("a regular expression ({reason})")))
    }

    /// Whether the name matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Names(names) => names.binary_search_by(|known| known.as_str().cmp(name)).is_ok(),
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }

    /// The names that it spells out, none if it is a glob or a regular expression.
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Pattern::Names(names) => names,
            Pattern::Regex(_) => &[],
        }
    }
}

/// A regular expression, or why it is none.
pub(crate) fn compiled(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        // The crate draws the expression with a marker below it; its last line is the reason.
        let message = error.to_string();
        message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::glob(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_takes_any_characters() {
        for name in ["", "a", "web.1", "[x]", "a b", "é", "line\nbreak"] {
            assert!(matches("*", name), "{name:?}");
        }
        assert!(matches("web-*", "web-"));
        assert!(matches("*.db.*", "a.db.b"));
        assert!(!matches("web-*", "Web-1"));
        assert!(!matches("web-*", "my-web-1"));
    }

    #[test]
    fn a_question_mark_takes_one_character() {
        assert!(matches("vm?", "vmé"));
        assert!(!matches("vm?", "vm"));
        assert!(!matches("vm?", "vm10"));
    }

    #[test]
    fn classes() {
        assert!(matches("vm[0-9]", "vm7"));
        assert!(!matches("vm[0-9]", "vmx"));
        assert!(matches("vm[!0-9]", "vmx"));
        assert!(!matches("vm[^0-9]", "vm7"));
        assert!(matches("[]a]", "]"));
        assert!(matches("[a-]", "-"));
        assert!(matches(r"[\]&&~~.]", "&"));
        assert!(matches("[[:x]", ":"));
        assert!(!matches("[a&&b]", "c"));
        assert!(matches("[a&&b]", "a"));
    }

    #[test]
    fn alternatives() {
        assert!(matches("{web,db}-?", "db-1"));
        assert!(!matches("{web,db}-?", "app-1"));
        assert!(matches("a{,b{c,d}}", "a"));
        assert!(matches("a{,b{c,d}}", "abd"));
        assert!(!matches("{a,b}", "ab"));
        assert!(matches("a,b", "a,b"));
    }

    fn names(pattern: &str) -> Vec<String> {
        Pattern::glob(pattern).unwrap_or_else(|error| panic!("{pattern}: {error:?}")).names().to_vec()
    }

    #[test]
    fn a_pattern_without_wildcards_is_a_name() {
        assert_eq!(names("web-1.x"), ["web-1.x"]);
        assert_eq!(names(r"web\*\[1\]\\"), [r"web*[1]\"]);
        assert_eq!(names("a]"), ["a]"]);
        assert!(names("web-?").is_empty());
        assert!(names("{a}").is_empty());
        assert!(names("{web,db}").is_empty());
    }

    #[test]
    fn numbers_in_brackets_are_names_as_for_clush_pdsh_and_ansible() {
        let hundred: Vec<String> = (1..=100).map(|number| format!("web-{number}")).collect();
        for pattern in ["web-[1-100]", "web-[1:100]", "web-{1..100}", "web-{100..1}", "web-[1-50,51-100]"] {
            let mut names = names(pattern);
            names.sort_by_key(|name| (name.len(), name.clone()));
            assert_eq!(names, hundred, "{pattern}");
            for (name, is_one) in
                [("web-10", true), ("web-100", true), ("web-0", false), ("web-07", false), ("web-101", false)]
            {
                assert_eq!(matches(pattern, name), is_one, "{pattern} {name}");
            }
        }
        assert_eq!(names("web-[10-11]"), ["web-10", "web-11"]);
        assert_eq!(names("n[08-11]x"), ["n08x", "n09x", "n10x", "n11x"]);
        assert_eq!(names("n{08..10}"), ["n08", "n09", "n10"]);
        assert_eq!(names("n[1,3,7-9]"), ["n1", "n3", "n7", "n8", "n9"]);
        assert_eq!(names("n[1-10/4]"), ["n1", "n5", "n9"]);
        assert_eq!(names("n[1:10:4]"), ["n1", "n5", "n9"]);
        assert_eq!(names("n{1..10..4}"), ["n1", "n5", "n9"]);
        assert_eq!(names("r[1-2]n[10-11]"), ["r1n10", "r1n11", "r2n10", "r2n11"]);
        assert_eq!(names("{web,db}[9-10]"), ["db10", "db9", "web10", "web9"]);
        assert_eq!(names("[1-2,2-3]"), ["1", "2", "3"]);
    }

    #[test]
    fn numbers_beside_wildcards_are_a_glob() {
        assert!(names("web-[1-100]*").is_empty());
        assert!(matches("web-[1-100]-*", "web-57-a"));
        assert!(!matches("web-[1-100]-*", "web-101-a"));
        assert!(!matches("web-[1-100]-*", "web-0-a"));
        assert!(matches("web-[01-20]?", "web-07x"));
        assert!(!matches("web-[01-20]?", "web-7x"));
        assert!(matches("*-{1..12}", "a-12"));
    }

    #[test]
    fn single_digits_and_letters_in_brackets_stay_a_class() {
        for pattern in [
            "vm[1-3]",
            "vm[7]",
            "vm[!0-9]",
            "vm[!12]",
            "vm[abc]",
            "vm[a-c,x]",
            "vm[-1]",
            "vm[1-]",
            r"vm[\12]",
        ] {
            assert!(names(pattern).is_empty(), "{pattern}");
        }
        assert!(matches("vm[1-3]", "vm2") && !matches("vm[1-3]", "vm4"));
        assert!(matches(r"vm[\12]", "vm2") && !matches(r"vm[\12]", "vm12"));
        assert!(matches(r"vm[1-\35]", "vm5") && !matches(r"vm[1-\35]", "vm4"));
        for pattern in ["vm[a:f]", "vm{a..f}", "vm{f..a}"] {
            assert!(
                matches(pattern, "vmc") && !matches(pattern, "vm:") && !matches(pattern, "vmg"),
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_has_two_meanings_is_refused_with_both_and_how_to_write_each() {
        for (pattern, offset, one, other) in [
            ("web-[12]", 4, "the number 12 (write it without brackets)", "write [1,2]"),
            ("web-[web,db]", 4, "write {web,db}", r"write [\web,db]"),
            ("n[!1-10]", 2, "exclude [1-10]", r"write [!\1-10]"),
            ("n[a1-10]", 1, "write alternatives", r"write [\a1-10]"),
            ("n[1-10,a]", 1, "write alternatives", r"write [\1-10,a]"),
            ("n[01-100]", 2, "write 001-100", "as in [01-99,100-120]"),
            ("n{1..3,7}", 2, "as in [1-3,7]", r"write '\.'"),
        ] {
            let error = Pattern::glob(pattern).unwrap_err();
            assert!(
                error.expected.contains(one) && error.expected.contains(other),
                "{pattern}: {}",
                error.expected
            );
            assert_eq!(error.offset, offset, "{pattern}");
        }
        for written in [
            "web-12",
            "web-[1,2]",
            "web-{web,db}",
            r"web-[\web,db]",
            "n{[1-10],a}",
            r"n[\a1-10]",
            r"n[!\1-10]",
            r"n{1\..3,7}",
        ] {
            assert!(Pattern::glob(written).is_ok(), "{written}");
        }
    }

    #[test]
    fn numbers_without_end_are_refused_by_the_bound() {
        for pattern in [
            "w[1-999999999]",
            "w{1..999999999}",
            "w[0-999999999999999999,0-999999999999999999]*",
            "[1-999][1-999]",
            "{a,b}[1-100000]",
        ] {
            let error = Pattern::glob(pattern).unwrap_err();
            assert!(error.expected.contains("at most 100000 names"), "{pattern}: {}", error.expected);
        }
        assert_eq!(names("w[1-100000]").len(), 100_000);
        let error = Pattern::glob("w[1-12345678901234567890]").unwrap_err();
        assert!(error.expected.contains("at most 18 digits"), "{}", error.expected);
        // As many numbers beside a wildcard.
        assert!(matches("w[1-100000]*", "w99999"));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (pattern, offset, expected) in [
            ("web-[0-9", 4, "a ']'"),
            ("web-[", 4, "a ']'"),
            ("{a,b", 0, "a '}'"),
            ("a}", 1, "a '{'"),
            ("é\\", 2, "a character after"),
            ("[z-a]", 1, "a range from low to high"),
            ("[20-1]", 1, "a range from low to high"),
            ("n{a..}", 2, "a sequence as {1..100}"),
            ("n{foo..bar}", 2, "a sequence as {1..100}"),
        ] {
            let error = Pattern::glob(pattern).unwrap_err();
            assert_eq!(error.offset, offset, "{pattern}");
            assert!(error.expected.contains(expected), "{pattern}: {}", error.expected);
        }
        assert!(Pattern::regex("(a").unwrap_err().expected.contains("unclosed group"));
    }

    #[test]
    fn a_regular_expression_is_unanchored() {
        assert!(Pattern::regex("b-[0-9]+").unwrap().matches("web-12x"));
        assert!(!Pattern::regex("^b").unwrap().matches("web"));
    }

    #[test]
    fn absurd_nesting_is_an_error_not_a_crash() {
        let deep = format!("{}a{}", "{".repeat(10_000), "}".repeat(10_000));
        assert!(Pattern::glob(&deep).is_err());
    }
}
