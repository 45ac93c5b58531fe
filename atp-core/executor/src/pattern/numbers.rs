//! Numbers in brackets and sequences in braces: which of them are numbers, and which can be read in two ways.

use super::PatternError;
use super::token::{Token, numbers_of};
use crate::number_range::NumberRange;

/// The sequence `1..100`, `1..100..2` or `a..f`, the content of braces, as by the shell.
pub(super) fn sequence_of(offset: usize, text: &str) -> Result<Token, PatternError> {
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
pub(super) fn numbers(offset: usize, content: &str, is_negated: bool) -> Result<Option<Token>, PatternError> {
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
