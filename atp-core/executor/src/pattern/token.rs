//! The pieces of a glob, and what they are turned into: the names that they spell out, or a regular expression.

use super::{MAX_NAMES, PatternError};
use crate::number_range::NumberRange;

/// A piece of a glob.
#[derive(Debug, Clone)]
pub(super) enum Token {
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
pub(super) fn names_numbers(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| match token {
        Token::Numbers { is_class, .. } => !is_class,
        Token::Alternatives(alternatives) => alternatives.iter().any(|tokens| names_numbers(tokens)),
        _ => false,
    })
}

/// The number of names that the tokens spell out, at most 2^64 - 1; none if it is unlimited.
pub(super) fn count(tokens: &[Token]) -> Option<u64> {
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
pub(super) fn expand(tokens: &[Token]) -> Vec<String> {
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

pub(super) fn push_regex(tokens: &[Token], regex: &mut String) {
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
pub(super) fn push_escaped(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// A token of numbers that are not too many.
pub(super) fn numbers_of(
    offset: usize,
    ranges: Vec<NumberRange>,
    is_class: bool,
) -> Result<Token, PatternError> {
    match in_all(&ranges) {
        ..=MAX_NAMES => Ok(Token::Numbers { ranges, is_class }),
        count => Err(too_many(offset, count)),
    }
}

pub(super) fn too_many(offset: usize, count: u64) -> PatternError {
    PatternError::new(offset, format!("numbers that stand for at most {MAX_NAMES} names, not for {count}"))
}
