//! What a setting takes, and how that is read from a file or from text such as a variable's.

use toml::Value;

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
}

impl Kind {
    /// The kind a default shows.
    pub(super) fn of(default: &Value) -> Self {
        match default {
            Value::Boolean(_) => Kind::Bool,
            Value::Integer(_) => Kind::Count,
            Value::Float(_) => Kind::Number,
            Value::Array(_) => Kind::TextList,
            Value::String(text) if humantime::parse_duration(text).is_ok() => Kind::Duration,
            Value::String(_) | Value::Datetime(_) | Value::Table(_) => Kind::Text,
        }
    }

    /// In words, for "expected …".
    pub(super) fn expectation(&self) -> String {
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
                format!(
                    "one of {}",
                    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    /// The value as this kind; from text too if `is_text`. None if it is something else.
    pub(super) fn read(&self, value: &Value, is_text: bool) -> Option<Value> {
        let text = value.as_str();
        let spelled = text.filter(|_| is_text).map(str::trim);
        match self {
            Kind::Bool => match (value, spelled) {
                (Value::Boolean(_), _) => Some(value.clone()),
                (_, Some(text)) => text.parse::<bool>().ok().map(Value::from),
                _ => None,
            },
            Kind::Count | Kind::AtLeastOne => {
                let least = i64::from(*self == Kind::AtLeastOne);
                let number = match (value, spelled) {
                    (Value::Integer(number), _) => Some(*number),
                    (_, Some(text)) => text.parse().ok(),
                    _ => None,
                };
                number.filter(|&number| number >= least).map(Value::from)
            }
            Kind::Number => match (value, spelled) {
                (Value::Float(number), _) => Some((*number).into()),
                (Value::Integer(number), _) => Some((*number as f64).into()),
                (_, Some(text)) => text.parse::<f64>().ok().map(Value::from),
                _ => None,
            },
            Kind::Duration | Kind::Timeout => text
                .and_then(|text| humantime::parse_duration(text.trim()).ok())
                .filter(|duration| *self == Kind::Duration || !duration.is_zero())
                .map(|duration| humantime::format_duration(duration).to_string().into()),
            Kind::Text => text.map(Value::from),
            Kind::TextList => match (value, spelled) {
                (Value::Array(items), _) => items.iter().all(Value::is_str).then(|| value.clone()),
                (_, Some(text)) => Some(text.split(',').map(str::trim).collect::<Vec<_>>().into()),
                _ => None,
            },
            Kind::Choice(words) => text.filter(|text| words.iter().any(|word| word == text)).map(Value::from),
        }
    }
}
