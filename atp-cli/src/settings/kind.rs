//! What a setting takes, and how that is read from a file or from the text of a variable.

use config::{Value, ValueKind};

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
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
    /// A list of texts.
    TextList,
    /// One of some words.
    Choice(Vec<String>),
}

impl Kind {
    /// The words of an option of the command line.
    pub(crate) fn choice<T: clap::ValueEnum>() -> Self {
        let words = T::value_variants().iter().filter_map(T::to_possible_value);
        Kind::Choice(words.map(|word| word.get_name().to_owned()).collect())
    }

    /// In words, for "expected …".
    pub(crate) fn expectation(&self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Count => "a whole number".to_owned(),
            Kind::AtLeastOne => "a whole number of at least 1".to_owned(),
            Kind::Number => "a number".to_owned(),
            Kind::Duration => r#"a duration such as "30s", "2m" or "500ms""#.to_owned(),
            Kind::Timeout => r#"a duration longer than 0, such as "30s", "2m" or "500ms""#.to_owned(),
            Kind::Text => "text in quotes".to_owned(),
            Kind::TextList => r#"a list of texts, such as ["a", "b"]"#.to_owned(),
            Kind::Choice(words) => {
                format!("one of {}", words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The value as this kind; from text too if `is_text`. None if it is something else.
    pub(crate) fn read(&self, value: &Value, is_text: bool) -> Option<ValueKind> {
        let text = match &value.kind {
            ValueKind::String(text) => Some(text.as_str()),
            _ => None,
        };
        let spelled = text.filter(|_| is_text).map(str::trim);
        match self {
            Kind::Bool => match (&value.kind, spelled) {
                (ValueKind::Boolean(value), _) => Some((*value).into()),
                (_, Some(text)) => text.parse::<bool>().ok().map(Into::into),
                _ => None,
            },
            Kind::Count | Kind::AtLeastOne => {
                let least = i64::from(*self == Kind::AtLeastOne);
                let number = match (&value.kind, spelled) {
                    (ValueKind::I64(number), _) => Some(*number),
                    (_, Some(text)) => text.parse().ok(),
                    _ => None,
                };
                number.filter(|&number| number >= least).map(Into::into)
            }
            Kind::Number => match (&value.kind, spelled) {
                (ValueKind::Float(number), _) => Some((*number).into()),
                (ValueKind::I64(number), _) => Some((*number as f64).into()),
                (_, Some(text)) => text.parse::<f64>().ok().map(Into::into),
                _ => None,
            },
            Kind::Duration | Kind::Timeout => text
                .and_then(|text| humantime::parse_duration(text).ok())
                .filter(|duration| *self == Kind::Duration || !duration.is_zero())
                .map(|duration| humantime::format_duration(duration).to_string().into()),
            Kind::Text => text.map(Into::into),
            Kind::TextList => match (&value.kind, spelled) {
                (ValueKind::Array(items), _) => {
                    let is_text = items.iter().all(|item| matches!(item.kind, ValueKind::String(_)));
                    is_text.then(|| items.clone().into())
                }
                (_, Some(text)) => {
                    Some(text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>().into())
                }
                _ => None,
            },
            Kind::Choice(words) => text.filter(|text| words.iter().any(|word| word == text)).map(Into::into),
        }
    }
}
