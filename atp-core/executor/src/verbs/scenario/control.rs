//! What decides whether and how often a step is carried out: `when` and `retry`.

use std::fmt;
use std::time::Duration;

use super::assertion::Matcher;
use super::error::ScenarioError;
use super::fields::{RETRY, WHEN};
use super::node::{Node, Value};
use super::read::{Keys, Names, Result, duration, integer};
use super::template::{Template, Unfilled, Values};

/// The most repetitions of a step.
const MOST_TIMES: i32 = 1000;
/// The pause before a repetition, if the file has none.
const PAUSE: Duration = Duration::from_secs(1);

/// A condition without which a step is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    /// The text that is compared.
    value: Template,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Equals(Template),
    NotEquals(Template),
    Matches(Matcher),
    NotMatches(Matcher),
}

/// How a step that fails is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often it is repeated at most, after the first time.
    pub times: u32,
    /// The pause before each repetition.
    pub every: Duration,
}

impl When {
    pub(super) fn read(node: &Node, names: &Names) -> Result<Self> {
        let keys = Keys::of(node, WHEN, "when")?;
        let value = names.template(keys.need("value")?)?;
        let tests = [
            keys.get("equals").map(|node| Ok(Test::Equals(names.template(node)?))),
            keys.get("not_equals").map(|node| Ok(Test::NotEquals(names.template(node)?))),
            keys.get("matches").map(|node| Ok(Test::Matches(Matcher::read(node)?))),
            keys.get("not_matches").map(|node| Ok(Test::NotMatches(Matcher::read(node)?))),
        ];
        let mut tests = tests.into_iter().flatten();
        match (tests.next(), tests.next()) {
            (Some(test), None) => Ok(When { value, test: test? }),
            _ => Err(ScenarioError::at(node.place, "a when has one comparison")
                .with_hint("equals, not_equals, matches or not_matches")),
        }
    }

    /// Whether it holds. It does not if a variable in it has no value, as the step that captures it was not carried out. The
    /// error says what is wrong.
    pub(super) fn holds(&self, values: &Values) -> std::result::Result<bool, String> {
        let filled = |template: &Template| match template.fill(values) {
            Ok(text) => Ok(Some(text)),
            Err(Unfilled::NoValue(_)) => Ok(None),
            Err(error @ Unfilled::TooLarge) => Err(error.to_string()),
        };
        let Some(value) = filled(&self.value)? else { return Ok(false) };
        Ok(match &self.test {
            Test::Equals(text) => filled(text)?.is_some_and(|text| text == value),
            Test::NotEquals(text) => filled(text)?.is_some_and(|text| text != value),
            Test::Matches(matcher) => matcher.0.is_match(&value),
            Test::NotMatches(matcher) => !matcher.0.is_match(&value),
        })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.to_string();
        match &self.test {
            Test::Equals(text) => write!(f, "{value:?} is {:?}", text.to_string()),
            Test::NotEquals(text) => write!(f, "{value:?} is not {:?}", text.to_string()),
            Test::Matches(matcher) => write!(f, "{value:?} matches /{}/", matcher.as_str()),
            Test::NotMatches(matcher) => write!(f, "{value:?} does not match /{}/", matcher.as_str()),
        }
    }
}

impl Retry {
    pub(super) fn read(node: &Node) -> Result<Self> {
        let (times, every) = match &node.value {
            Value::Map(_) => {
                let keys = Keys::of(node, RETRY, "retry")?;
                (keys.need("times")?, keys.get("every").map(duration).transpose()?)
            }
            _ => (node, None),
        };
        match integer(times)? {
            number @ 1..=MOST_TIMES => {
                Ok(Retry { times: number.unsigned_abs(), every: every.unwrap_or(PAUSE) })
            }
            _ => Err(ScenarioError::at(
                times.place,
                format!("expected a number of times from 1 to {MOST_TIMES}"),
            )),
        }
    }

    /// The maximum time of a step, of which each attempt may take `attempt`.
    pub(super) fn budget(self, attempt: Duration) -> Duration {
        attempt.saturating_add(attempt.saturating_add(self.every).saturating_mul(self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> Result<When> {
        When::read(&Node::parse(text)?, &Names::new(["a".to_owned(), "b".to_owned()]))
    }

    #[test]
    fn a_condition_compares_a_text() {
        let values: Values = [("a".to_owned(), "Debian 12".to_owned())].into();
        for (text, expected) in [
            ("{value: '${a}', equals: Debian 12}", true),
            ("{value: '${a}', equals: Debian}", false),
            ("{value: '${a}', equals: '${a}'}", true),
            ("{value: '${a}', not_equals: Debian}", true),
            ("{value: '${a}', not_equals: Debian 12}", false),
            ("{value: '${a}', matches: '^Deb'}", true),
            ("{value: '${a}', matches: '^12'}", false),
            ("{value: '${a}', not_matches: '^12'}", true),
            ("{value: '${a}', not_matches: '^Deb'}", false),
            // Without a value nothing holds.
            ("{value: '${b}', equals: ''}", false),
            ("{value: '${b}', not_equals: x}", false),
            ("{value: '${b}', not_matches: x}", false),
            ("{value: '${a}', not_equals: '${b}'}", false),
        ] {
            assert_eq!(when(text).unwrap().holds(&values), Ok(expected), "{text}");
        }
        for text in [
            "{value: x}",
            "{equals: x}",
            "{value: x, equals: x, matches: x}",
            "x",
            "{value: x, matches: '('}",
        ] {
            assert!(when(text).is_err(), "{text}");
        }
        assert_eq!(
            when("{value: '${a}', not_matches: b}").unwrap().to_string(),
            "\"${a}\" does not match /b/"
        );
    }

    #[test]
    fn a_retry_has_the_time_of_all_attempts() {
        let retry = |text: &str| Retry::read(&Node::parse(text).unwrap());
        assert_eq!(retry("3").unwrap(), Retry { times: 3, every: PAUSE });
        let retried = retry("{times: 2, every: 5s}").unwrap();
        assert_eq!(retried.budget(Duration::from_secs(10)), Duration::from_secs(40));
        assert_eq!(retried.budget(Duration::MAX), Duration::MAX);
        for text in ["0", "-1", "1001", "x", "{every: 5s}", "{times: 1, every: 0s}"] {
            assert!(retry(text).is_err(), "{text}");
        }
    }
}
