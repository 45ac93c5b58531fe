//! A number of targets, given as a count or as a share of all.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of targets: `N`, or `P%` of all of them.
///
/// In JSON, a number of targets is a number, and a share a text such as `"10%"`. A text of digits is read as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "Serialised")]
pub enum Portion {
    /// This many; 0 counts as 1.
    Count(usize),
    /// This many of a hundred, rounded up, and at least one target.
    Percent(u8),
}

impl Portion {
    /// How many targets that is, of `total`. Never 0.
    pub fn of(self, total: usize) -> usize {
        match self {
            Portion::Count(count) => count,
            Portion::Percent(percent) => total.saturating_mul(usize::from(percent)).div_ceil(100),
        }
        .max(1)
    }
}

/// A portion as it is serialised.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Serialised {
    Count(usize),
    Text(#[schemars(extend("pattern" = "^[0-9]+%?$"))] String),
}

/// A text that is not a portion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of targets from 1, or a share of them from 1% to 100%, not {0:?}")]
pub struct InvalidPortion(pub String);

impl Serialize for Portion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Portion::Count(count) => Serialised::Count(*count),
            Portion::Percent(_) => Serialised::Text(self.to_string()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Portion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Serialised::deserialize(deserializer)? {
            Serialised::Count(count) => Ok(Portion::Count(count)),
            Serialised::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl FromStr for Portion {
    type Err = InvalidPortion;

    fn from_str(input: &str) -> Result<Self, InvalidPortion> {
        let portion = match input.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(Portion::Percent)
            }
            None => input.parse().ok().filter(|&count| count > 0).map(Portion::Count),
        };
        portion.ok_or_else(|| InvalidPortion(input.to_owned()))
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Portion::Count(count) => write!(f, "{count}"),
            Portion::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_zero() {
        for (text, total, expected) in
            [("3", 10, 3), ("3", 2, 3), ("10%", 10, 1), ("10%", 11, 2), ("1%", 0, 1), ("100%", 7, 7)]
        {
            let portion: Portion = text.parse().unwrap();
            assert_eq!(portion.of(total), expected, "{text} of {total}");
            assert_eq!(portion.to_string(), text);
        }
    }

    #[test]
    fn an_invalid_portion_says_what_is_expected() {
        for text in ["", "0", "0%", "101%", "-1", "%", "1.5%", "many"] {
            let error = text.parse::<Portion>().unwrap_err();
            assert!(error.to_string().contains("from 1% to 100%"), "{text}: {error}");
        }
    }
}
