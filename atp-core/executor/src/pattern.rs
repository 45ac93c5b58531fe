//! One part of a selector, compiled: a literal, a glob, or a regular expression on a name.
//!
//! Globs are translated into regular expressions, so that matching takes linear time whatever the pattern.

use regex::Regex;

/// A compiled pattern for a name. Matching is case-sensitive and, for literals and globs, of the whole name.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// Exactly this name.
    Literal(String),
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
    /// Compiles a glob: `*` any characters, `?` one, `[a-z]` one of a class, `[!a-z]` one outside it, `{a,b}`
    /// alternatives, `\` takes the next character literally.
    pub(crate) fn glob(text: &str) -> Result<Pattern, PatternError> {
        Glob::new(text).compile()
    }

    /// Compiles a regular expression that may match anywhere in a name.
    pub(crate) fn regex(text: &str) -> Result<Pattern, PatternError> {
        Regex::new(text).map(Pattern::Regex).map_err(|error| {
            // The crate draws the expression with a marker below it; its last line is the reason.
            let message = error.to_string();
            let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            PatternError::new(0, format!("a regular expression ({reason})"))
        })
    }

    /// Whether the name matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Literal(literal) => literal == name,
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }

    /// The one name this can match, if it is a literal.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self {
            Pattern::Literal(literal) => Some(literal),
            Pattern::Regex(_) => None,
        }
    }
}

/// A glob on its way to a regular expression.
struct Glob {
    chars: Vec<char>,
    at: usize,
    /// Where each `{` that is still open stands.
    open: Vec<usize>,
    /// The name, for as long as nothing but literal characters was seen.
    literal: Option<String>,
    regex: String,
}

impl Glob {
    fn new(text: &str) -> Self {
        Glob {
            chars: text.chars().collect(),
            at: 0,
            open: Vec::new(),
            literal: Some(String::new()),
            regex: String::from(r"(?s)\A"),
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.get(self.at).copied();
        self.at += usize::from(next.is_some());
        next
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn compile(mut self) -> Result<Pattern, PatternError> {
        while let Some(c) = self.next() {
            match c {
                '*' => self.wildcard(".*"),
                '?' => self.wildcard("."),
                '[' => self.class()?,
                '{' => {
                    self.open.push(self.at - 1);
                    self.wildcard("(?:");
                }
                '}' if self.open.pop().is_some() => self.wildcard(")"),
                '}' => {
                    return Err(PatternError::new(
                        self.at - 1,
                        r"a '{' before this '}' (or '\}' for the character itself)",
                    ));
                }
                ',' if !self.open.is_empty() => self.wildcard("|"),
                '\\' => {
                    let c = self.escaped()?;
                    self.character(c);
                }
                c => self.character(c),
            }
        }
        if let Some(&at) = self.open.last() {
            return Err(PatternError::new(at, r"a '}' to close this '{' (or '\{' for the character itself)"));
        }
        if let Some(literal) = self.literal {
            return Ok(Pattern::Literal(literal));
        }
        self.regex.push_str(r"\z");
        // What is left to go wrong is nesting or size beyond what the matcher takes.
        Regex::new(&self.regex)
            .map(Pattern::Regex)
            .map_err(|_| PatternError::new(0, "a shorter or simpler pattern"))
    }

    fn wildcard(&mut self, regex: &str) {
        self.literal = None;
        self.regex.push_str(regex);
    }

    fn character(&mut self, c: char) {
        if let Some(literal) = &mut self.literal {
            literal.push(c);
        }
        push_escaped(&mut self.regex, c);
    }

    /// The character after a `\` that was just read.
    fn escaped(&mut self) -> Result<char, PatternError> {
        let at = self.at;
        self.next().ok_or_else(|| PatternError::new(at, r"a character after '\'"))
    }

    /// The class whose `[` was just read.
    fn class(&mut self) -> Result<(), PatternError> {
        let open = self.at - 1;
        let unclosed =
            || PatternError::new(open, r"a ']' to close this '[' (or '\[' for the character itself)");
        self.wildcard("[");
        if matches!(self.peek(), Some('!' | '^')) {
            self.at += 1;
            self.regex.push('^');
        }
        let mut first = true;
        loop {
            let start = self.at;
            let low = match self.next().ok_or_else(unclosed)? {
                ']' if !first => break,
                '\\' => self.escaped()?,
                c => c,
            };
            first = false;
            push_escaped(&mut self.regex, low);
            // A '-' before the closing ']' is itself.
            if self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|&c| c != ']') {
                self.at += 1;
                let high = match self.next().ok_or_else(unclosed)? {
                    '\\' => self.escaped()?,
                    c => c,
                };
                if high < low {
                    return Err(PatternError::new(
                        start,
                        format!("a range from low to high, not {low}-{high}"),
                    ));
                }
                self.regex.push('-');
                push_escaped(&mut self.regex, high);
            }
        }
        self.regex.push(']');
        Ok(())
    }
}

/// Appends a character so that it stands for itself, inside a class or outside.
fn push_escaped(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
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

    #[test]
    fn a_pattern_without_wildcards_is_a_literal() {
        assert_eq!(Pattern::glob("web-1.x").unwrap().literal(), Some("web-1.x"));
        assert_eq!(Pattern::glob(r"web\*\[1\]\\").unwrap().literal(), Some(r"web*[1]\"));
        assert_eq!(Pattern::glob("a]").unwrap().literal(), Some("a]"));
        assert_eq!(Pattern::glob("web-?").unwrap().literal(), None);
        assert_eq!(Pattern::glob("{a}").unwrap().literal(), None);
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
