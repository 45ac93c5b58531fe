//! What a setting takes, and how that is read from a file or from text such as a variable's.

use config::{Value, ValueKind};

use super::duration::{parse_duration, parse_positive_duration};

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number, 0 or more.
    Count,
    /// A whole number, 1 or more.
    AtLeastOne,
    /// A number.
    Number,
    /// `30s`, `2m`.
    Duration,
    /// A duration longer than nothing.
    Timeout,
    /// Text.
    Text,
    /// A list of texts; in a variable, with commas between them.
    TextList,
    /// One of some words.
    Choice(Vec<String>),
    /// A share of a hundred, `1%` to `100%`.
    Percent,
    /// Whatever one of these takes; the first that does reads it.
    AnyOf(Vec<Kind>),
}

impl Kind {
    /// The kind a default shows.
    pub(super) fn of(default: &ValueKind) -> Self {
        match default {
            ValueKind::Boolean(_) => Kind::Bool,
            ValueKind::I64(_) | ValueKind::U64(_) => Kind::Count,
            ValueKind::Float(_) => Kind::Number,
            ValueKind::Array(_) => Kind::TextList,
            ValueKind::String(text) if parse_duration(text).is_ok() => Kind::Duration,
            _ => Kind::Text,
        }
    }

    /// In words, for "expected …".
    pub(super) fn expectation(&self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Count => "a whole number".to_owned(),
            Kind::AtLeastOne => "a whole number of at least 1".to_owned(),
            Kind::Number => "a number".to_owned(),
            Kind::Duration => r#"a duration such as "30s", "2m" or "500ms", of at most 100 years"#.to_owned(),
            Kind::Timeout => {
                r#"a duration longer than 0, such as "30s", "2m" or "500ms", of at most 100 years"#.to_owned()
            }
            Kind::Text => "text in quotes".to_owned(),
            Kind::TextList => r#"a list of texts, such as ["a", "b"]"#.to_owned(),
            Kind::Choice(words) => match &words[..] {
                [word] => format!("{word:?}"),
                words => {
                    let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                    format!("one of {}", words.join(", "))
                }
            },
            Kind::Percent => r#"a share such as "25%""#.to_owned(),
            Kind::AnyOf(kinds) => kinds.iter().map(Kind::expectation).collect::<Vec<_>>().join(", or "),
        }
    }

    /// The value as this kind; from text too if `is_text`. None if it is something else.
    pub(super) fn read(&self, value: &Value, is_text: bool) -> Option<ValueKind> {
        let text = match &value.kind {
            ValueKind::String(text) => Some(text.as_str()),
            _ => None,
        };
        let spelled = text.filter(|_| is_text).map(str::trim);
        match (self, &value.kind) {
            (Kind::Bool, ValueKind::Boolean(value)) => Some((*value).into()),
            (Kind::Bool, _) => spelled?.parse::<bool>().ok().map(Into::into),
            (Kind::Count | Kind::AtLeastOne, kind) => {
                let number: u64 = match kind {
                    ValueKind::I64(_) | ValueKind::U64(_) => value.clone().into_uint().ok()?,
                    _ => spelled?.parse().ok()?,
                };
                (number > 0 || *self == Kind::Count).then(|| number.into())
            }
            (Kind::Number, ValueKind::Float(_) | ValueKind::I64(_) | ValueKind::U64(_)) => {
                value.clone().into_float().ok().map(Into::into)
            }
            (Kind::Number, _) => spelled?.parse::<f64>().ok().map(Into::into),
            (Kind::Duration | Kind::Timeout, _) => {
                let parse = if *self == Kind::Timeout { parse_positive_duration } else { parse_duration };
                let duration = parse(text?.trim()).ok()?;
                Some(humantime::format_duration(duration).to_string().into())
            }
            (Kind::Text, _) => text.map(Into::into),
            (Kind::TextList, ValueKind::Array(items)) => {
                let is_text = |item: &Value| matches!(item.kind, ValueKind::String(_));
                items.iter().all(is_text).then(|| value.kind.clone())
            }
            (Kind::TextList, _) => Some(spelled?.split(',').map(str::trim).collect::<Vec<_>>().into()),
            (Kind::Choice(words), _) => {
                text.filter(|text| words.iter().any(|word| word == text)).map(Into::into)
            }
            (Kind::Percent, _) => text
                .filter(|text| {
                    let share = text.strip_suffix('%').and_then(|share| share.parse::<u8>().ok());
                    share.is_some_and(|share| (1..=100).contains(&share))
                })
                .map(Into::into),
            (Kind::AnyOf(kinds), _) => kinds.iter().find_map(|kind| kind.read(value, is_text)),
        }
    }
}
