//! Reads a glob into its tokens.

use super::PatternError;
use super::numbers::{numbers, sequence_of};
use super::token::{Token, push_escaped};

/// The deepest nesting of `{…}`.
const MAX_DEPTH: usize = 32;

/// A glob that is read.
pub(super) struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    pub(super) fn new(text: &str) -> Self {
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

    pub(super) fn parse(mut self) -> Result<Vec<Token>, PatternError> {
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
