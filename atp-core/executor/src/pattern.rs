//! One part of a selector, compiled: names, a glob, or a regular expression on a name.
//!
//! Globs are translated into regular expressions, so that matching takes linear time whatever the pattern. A pattern made
//! of characters and numbers alone (`web-[1-100]`) stands for the names that it spells out, as for `clush`, `pdsh` and
//! Ansible: each of them is looked for, and one that is missed can be reported.

use regex::Regex;

use crate::number_range::NumberRange;

/// The most names that the numbers of a pattern may stand for: more than a fleet has, and few enough to hold in memory.
pub(crate) const MAX_NAMES: u64 = 100_000;

/// The deepest nesting of `{…}`.
const MAX_DEPTH: usize = 32;

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

/// A piece of a glob.
#[derive(Debug, Clone)]
enum Token {
    Char(char),
    /// `*`
    Any,
    /// `?`
    One,
    /// One character of a class, as a regular expression.
    Class(String),
    /// Numbers. Those of single digits in brackets are a class as well, and not meant to spell out names.
    Numbers {
        ranges: Vec<NumberRange>,
        is_class: bool,
    },
    /// `{a,b}`
    Alternatives(Vec<Vec<Token>>),
}

/// Whether numbers that are no class stand among the tokens.
fn names_numbers(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| match token {
        Token::Numbers { is_class, .. } => !is_class,
        Token::Alternatives(alternatives) => alternatives.iter().any(|tokens| names_numbers(tokens)),
        _ => false,
    })
}

/// The number of names that the tokens spell out, at most 2^64 - 1; none if it is unlimited.
fn count(tokens: &[Token]) -> Option<u64> {
    tokens.iter().try_fold(1_u64, |names, token| {
        let of_token = match token {
            Token::Char(_) => 1,
            Token::Numbers { ranges, .. } => in_all(ranges),
            Token::Alternatives(alternatives) => {
                alternatives.iter().try_fold(0_u64, |sum, tokens| Some(sum.saturating_add(count(tokens)?)))?
            }
            Token::Any | Token::One | Token::Class(_) => return None,
        };
        Some(names.saturating_mul(of_token))
    })
}

fn in_all(ranges: &[NumberRange]) -> u64 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(range.count()))
}

/// The names that the tokens spell out, which were counted before.
fn expand(tokens: &[Token]) -> Vec<String> {
    let mut names = vec![String::new()];
    for token in tokens {
        let pieces: Vec<String> = match token {
            Token::Char(c) => {
                names.iter_mut().for_each(|name| name.push(*c));
                continue;
            }
            Token::Numbers { ranges, .. } => ranges.iter().flat_map(NumberRange::names).collect(),
            Token::Alternatives(alternatives) => {
                alternatives.iter().flat_map(|tokens| expand(tokens)).collect()
            }
            Token::Any | Token::One | Token::Class(_) => Vec::new(),
        };
        names =
            names.iter().flat_map(|name| pieces.iter().map(move |piece| format!("{name}{piece}"))).collect();
    }
    names
}

fn push_regex(tokens: &[Token], regex: &mut String) {
    for token in tokens {
        match token {
            Token::Char(c) => push_escaped(regex, *c),
            Token::Any => regex.push_str(".*"),
            Token::One => regex.push('.'),
            Token::Class(class) => regex.push_str(class),
            Token::Numbers { ranges, .. } => {
                let numbers: Vec<String> = ranges.iter().flat_map(NumberRange::names).collect();
                regex.push_str(&format!("(?:{})", numbers.join("|")));
            }
            Token::Alternatives(alternatives) => {
                regex.push_str("(?:");
                for (at, tokens) in alternatives.iter().enumerate() {
                    if at > 0 {
                        regex.push('|');
                    }
                    push_regex(tokens, regex);
                }
                regex.push(')');
            }
        }
    }
}

/// Appends a character as a literal, inside a class or outside.
fn push_escaped(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

fn too_many(offset: usize, count: u64) -> PatternError {
    PatternError::new(offset, format!("numbers that stand for at most {MAX_NAMES} names, not for {count}"))
}

/// A glob that is read.
struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        Parser { chars: text.chars().collect(), at: 0 }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// The text from one place to another.
    fn text(&self, from: usize, to: usize) -> String {
        self.chars.get(from..to).unwrap_or_default().iter().collect()
    }

    fn parse(mut self) -> Result<Vec<Token>, PatternError> {
        let tokens = self.tokens(0)?;
        match self.peek() {
            None => Ok(tokens),
            // Only a brace that nothing opened ends the tokens early.
            Some(_) => {
                Err(PatternError::new(self.at, r"a '{' before this '}' (or '\}' for the character itself)"))
            }
        }
    }

    /// Tokens to the end of the text, or inside braces to the `,` or `}` that ends an alternative, which is left.
    fn tokens(&mut self, depth: usize) -> Result<Vec<Token>, PatternError> {
        let mut tokens = Vec::new();
        while let Some(c) = self.peek() {
            if c == '}' || c == ',' && depth > 0 {
                break;
            }
            self.at += 1;
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                '[' => self.brackets()?,
                '{' => self.braces(depth + 1)?,
                '\\' => Token::Char(self.escaped()?),
                c => Token::Char(c),
            });
        }
        Ok(tokens)
    }

    /// The character after a `\` that was just read.
    fn escaped(&mut self) -> Result<char, PatternError> {
        let at = self.at;
        self.next().ok_or_else(|| PatternError::new(at, r"a character after '\'"))
    }

    /// The content of the braces whose `{` was just read.
    fn braces(&mut self, depth: usize) -> Result<Token, PatternError> {
        let open = self.at - 1;
        if depth > MAX_DEPTH {
            return Err(PatternError::new(open, "a shorter or simpler pattern"));
        }
        let mut alternatives = Vec::new();
        let mut sequence = None;
        loop {
            let start = self.at;
            alternatives.push(self.tokens(depth)?);
            let text = self.text(start, self.at);
            if text.contains("..") && !text.contains(['\\', '{', '[']) {
                sequence = sequence.or(Some((start, text)));
            }
            match self.next() {
                Some(',') => {}
                Some(_) => break,
                None => {
                    let expected = r"a '}' to close this '{' (or '\{' for the character itself)";
                    return Err(PatternError::new(open, expected));
                }
            }
        }
        match sequence {
            None => Ok(Token::Alternatives(alternatives)),
            Some((start, text)) if alternatives.len() == 1 => sequence_of(start, &text),
            Some((start, text)) => Err(PatternError::new(
                start,
                format!(
                    r"one meaning: {text} can be numbers from one to the other (write them with commas in brackets, as in [1-3,7]), \
                      or a name with dots (write '\.' for a dot)"
                ),
            )),
        }
    }

    /// The content of the brackets whose `[` was just read.
    fn brackets(&mut self) -> Result<Token, PatternError> {
        let open = self.at - 1;
        let is_negated = matches!(self.peek(), Some('!' | '^'));
        self.at += usize::from(is_negated);
        let start = self.at;
        loop {
            match self.next() {
                Some(']') if self.at > start + 1 => break,
                Some('\\') => {
                    self.escaped()?;
                }
                Some(_) => {}
                None => {
                    let expected = r"a ']' to close this '[' (or '\[' for the character itself)";
                    return Err(PatternError::new(open, expected));
                }
            }
        }
        let content = self.text(start, self.at - 1);
        if let Some(numbers) = numbers(start, &content, is_negated)? {
            return Ok(numbers);
        }
        self.class(start, is_negated)
    }

    /// The class of characters that begins at `start`, and whose `]` was just read.
    fn class(&self, start: usize, is_negated: bool) -> Result<Token, PatternError> {
        let end = self.at - 1;
        let mut members = Parser { chars: self.chars[..end].to_vec(), at: start };
        let mut class = String::from(if is_negated { "[^" } else { "[" });
        loop {
            let at = members.at;
            let low = match members.next() {
                None => break,
                Some('\\') => members.escaped()?,
                Some(c) => c,
            };
            push_escaped(&mut class, low);
            // A '-' before the closing ']' is itself.
            if members.peek() == Some('-') && members.at + 1 < end {
                members.at += 1;
                let high = match members.next() {
                    Some('\\') => members.escaped()?,
                    Some(c) => c,
                    None => break,
                };
                if high < low {
                    return Err(PatternError::new(at, format!("a range from low to high, not {low}-{high}")));
                }
                class.push('-');
                push_escaped(&mut class, high);
            }
        }
        class.push(']');
        Ok(Token::Class(class))
    }
}

/// The sequence `1..100`, `1..100..2` or `a..f`, the content of braces, as by the shell.
fn sequence_of(offset: usize, text: &str) -> Result<Token, PatternError> {
    let parts: Vec<&str> = text.split("..").collect();
    let (low, high, step) = match parts[..] {
        [low, high] => (low, high, None),
        [low, high, step] => (low, high, Some(step)),
        _ => ("", "", None),
    };
    match (letter(low), letter(high), step) {
        (Some(low), Some(high), None) => Ok(Token::Class(format!("[{}-{}]", low.min(high), low.max(high)))),
        _ if is_number(low) && is_number(high) && step.is_none_or(is_number) => {
            // The shell counts down too; which names there are is the same.
            let value = |text: &str| text.trim_start_matches('0').len();
            let is_down =
                (value(low), low.trim_start_matches('0')) > (value(high), high.trim_start_matches('0'));
            let (low, high) = if is_down { (high, low) } else { (low, high) };
            let range =
                NumberRange::new(low, high, step).map_err(|expected| PatternError::new(offset, expected))?;
            numbers_of(offset, vec![range], false)
        }
        _ => Err(PatternError::new(
            offset,
            format!(r"a sequence as {{1..100}} or {{a..f}}, not {text:?} (write '\.' for a dot of a name)"),
        )),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The letter, if the text is one of the alphabet.
fn letter(text: &str) -> Option<char> {
    text.parse().ok().filter(char::is_ascii_alphabetic)
}

/// The content of brackets as numbers; none if it is a class of characters.
///
/// # Errors
/// It can be both, and these differ; or the numbers are not right.
fn numbers(offset: usize, content: &str, is_negated: bool) -> Result<Option<Token>, PatternError> {
    if content.contains('\\') {
        return Ok(None);
    }
    let ambiguous = |one: String, other: String| {
        Err(PatternError::new(offset - 1, format!("one meaning: this can be {one}, or {other}")))
    };
    let class = || match is_negated {
        false => format!(r"one of the characters of a class (write [\{content}])"),
        true => format!(r"a character outside a class (write [!\{content}])"),
    };
    let items: Vec<&str> = content.split(',').collect();
    let ranges: Option<Vec<_>> = items.iter().map(|item| bounds(item)).collect();
    let Some(ranges) = ranges else {
        if let [Some(low), Some(high)] = content.split(':').map(letter).collect::<Vec<_>>()[..]
            && low <= high
            && !is_negated
        {
            return Ok(Some(Token::Class(format!("[{low}-{high}]"))));
        }
        if has_long_range(content) {
            return ambiguous(
                "numbers among other things (write alternatives, as in {[1-10],a})".to_owned(),
                class(),
            );
        }
        let is_word = |item: &&str| item.chars().count() > 1 && !is_character_range(item);
        let is_list = items.len() > 1 && items.iter().all(|item| !item.is_empty());
        if is_list && !is_negated && items.iter().any(is_word) {
            return ambiguous(format!("one of several words (write {{{content}}})"), class());
        }
        return Ok(None);
    };
    let is_class =
        |(low, high, step): &(&str, &str, Option<&str>)| low.len() == 1 && high.len() == 1 && step.is_none();
    // Brackets around single digits: numbers and class are the same.
    let is_same = matches!(ranges[..], [only] if is_class(&only) && !content.contains(':'));
    match ranges[..] {
        _ if is_same => {}
        [(low, high, None)] if low == high && !content.contains(['-', ':']) && !is_negated => {
            let mut digits: Vec<_> = content.chars().map(String::from).collect();
            digits.sort();
            digits.dedup();
            let digits = digits.join(",");
            return ambiguous(
                format!("the number {content} (write it without brackets)"),
                format!("one of its digits (write [{digits}])"),
            );
        }
        _ if is_negated && content.contains(['-', ':']) && !ranges.iter().all(is_class) => {
            return ambiguous(
                format!("every number but these (write a wider pattern, and exclude [{content}])"),
                class(),
            );
        }
        _ => {}
    }
    if is_negated {
        return Ok(None);
    }
    let ranges: Result<Vec<_>, _> =
        ranges.into_iter().map(|(low, high, step)| NumberRange::new(low, high, step)).collect();
    let ranges = ranges.map_err(|expected| PatternError::new(offset, expected))?;
    numbers_of(offset, ranges, is_same).map(Some)
}

/// The bounds and the step of `7`, `1-100`, `1-100/2`, `1:100` or `1:100:2`.
fn bounds(item: &str) -> Option<(&str, &str, Option<&str>)> {
    let (low, high, step) = match item.split_once('-') {
        Some((low, rest)) => match rest.split_once('/') {
            Some((high, step)) => (low, high, Some(step)),
            None => (low, rest, None),
        },
        None => {
            let mut parts = item.splitn(3, ':');
            let low = parts.next()?;
            (low, parts.next().unwrap_or(low), parts.next())
        }
    };
    let is_right = is_number(low) && is_number(high) && step.is_none_or(is_number);
    is_right.then_some((low, high, step))
}

/// Whether the text is `a-z`, a range of characters.
fn is_character_range(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    matches!(chars[..], [_, '-', _])
}

/// Whether digits, a dash and digits follow each other, one side of several digits.
fn has_long_range(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    (1..bytes.len()).any(|at| {
        bytes[at] == b'-'
            && is_digit(at.checked_sub(1))
            && is_digit(Some(at + 1))
            && (is_digit(at.checked_sub(2)) || is_digit(Some(at + 2)))
    })
}

/// A token of numbers that are not too many.
fn numbers_of(offset: usize, ranges: Vec<NumberRange>, is_class: bool) -> Result<Token, PatternError> {
    match in_all(&ranges) {
        ..=MAX_NAMES => Ok(Token::Numbers { ranges, is_class }),
        count => Err(too_many(offset, count)),
    }
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
