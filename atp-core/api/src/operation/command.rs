//! A command as a user types it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The arguments of agent commands that are text.
const TEXTS: [&str; 6] = ["path", "mode", "username", "password", "buf-b64", "input-data"];

/// Any monitor or agent command, with its arguments as JSON.
///
/// On a command line it is `COMMAND [key=value… | JSON]`. A value is JSON if it parses as JSON, otherwise a string
/// (`name='"7"'` gives the string `7`). What an agent takes as text, such as a path or a password, is always a string. `JSON` is one object with all arguments.
///
/// ```
/// use atp_api::RawCommand;
///
/// let command = RawCommand::from_words(["human-monitor-command", "command-line=info version"])?;
/// assert_eq!(
///     command.to_json(),
///     r#"{"execute":"human-monitor-command","arguments":{"command-line":"info version"}}"#,
/// );
/// # Ok::<(), atp_api::RawCommandError>(())
/// ```
///
/// [`Debug`](fmt::Debug) does not show the arguments, for one may be a password.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Serialised", into = "Serialised")]
#[schemars(with = "Serialised")]
pub struct RawCommand {
    name: String,
    arguments: Map<String, Value>,
}

/// Why words do not form a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RawCommandError {
    /// There are no words.
    #[error("no command given: expected COMMAND [key=value… | JSON]")]
    Empty,
    /// The first word is JSON.
    #[error("the command's name comes first, then its arguments: COMMAND '{{\"key\":\"value\"}}'")]
    NameMissing,
    /// The first word cannot be a command's name.
    #[error("{word:?} is not a command name: expected letters, digits, '-', '_' and '.', as in query-status")]
    Name {
        /// The word.
        word: String,
    },
    /// A further word is neither `key=value` nor JSON.
    #[error("argument {position}, {word:?}: expected key=value, or one JSON object")]
    Argument {
        /// Which argument it is, counted from 1.
        position: usize,
        /// The word.
        word: String,
    },
    /// An argument begins like a JSON object and is not valid JSON.
    #[error("argument {position} is not valid JSON: {reason}")]
    Json {
        /// Which argument it is, counted from 1.
        position: usize,
        /// The parser's message, with line and column.
        reason: String,
    },
    /// There is a JSON object and another argument.
    #[error("a JSON object must be the only argument: it has all arguments of the command")]
    Mixed,
    /// A key is given twice.
    #[error("argument {position}: the key {key:?} is given twice")]
    Duplicate {
        /// Which argument it is, counted from 1.
        position: usize,
        /// The key.
        key: String,
    },
}

/// A command as it is serialised.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
struct Serialised {
    /// The command's name, such as `query-status`.
    command: String,
    /// Its arguments.
    #[serde(default)]
    arguments: Map<String, Value>,
}

impl TryFrom<Serialised> for RawCommand {
    type Error = RawCommandError;

    fn try_from(Serialised { command, arguments }: Serialised) -> Result<Self, RawCommandError> {
        RawCommand::new(command, arguments)
    }
}

impl From<RawCommand> for Serialised {
    fn from(RawCommand { name, arguments }: RawCommand) -> Self {
        Serialised { command: name, arguments }
    }
}

impl fmt::Debug for RawCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCommand").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RawCommand {
    /// Creates a command from its name and arguments.
    ///
    /// # Errors
    /// If the name is not valid for a command.
    pub fn new(name: impl Into<String>, arguments: Map<String, Value>) -> Result<Self, RawCommandError> {
        let name = name.into();
        let valid =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if valid { Ok(RawCommand { name, arguments }) } else { Err(RawCommandError::Name { word: name }) }
    }

    /// Parses the words of a command line: `COMMAND [key=value… | JSON]`.
    ///
    /// # Errors
    /// Names the wrong word and what was expected instead.
    pub fn from_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Self, RawCommandError> {
        let mut words = words.into_iter();
        let name = words.next().ok_or(RawCommandError::Empty)?;
        let name = name.as_ref();
        if is_object(name) {
            return Err(RawCommandError::NameMissing);
        }
        let mut command = RawCommand::new(name, Map::new())?;

        let words: Vec<W> = words.collect();
        for (position, word) in (1..).zip(&words) {
            let word = word.as_ref();
            if is_object(word) {
                if words.len() > 1 {
                    return Err(RawCommandError::Mixed);
                }
                command.arguments = serde_json::from_str(word)
                    .map_err(|error| RawCommandError::Json { position, reason: error.to_string() })?;
                break;
            }
            let (key, value) = word
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| RawCommandError::Argument { position, word: word.to_owned() })?;
            let value = match serde_json::from_str(value) {
                Ok(Value::String(text)) => Value::String(text),
                Ok(value) if !command.takes_text(key) => value,
                _ => Value::String(value.to_owned()),
            };
            if command.arguments.insert(key.to_owned(), value).is_some() {
                return Err(RawCommandError::Duplicate { position, key: key.to_owned() });
            }
        }
        Ok(command)
    }

    /// Whether the value of the key is always text: a password or a file may be called `123` or `true`.
    fn takes_text(&self, key: &str) -> bool {
        self.name.starts_with("guest-") && TEXTS.contains(&key)
    }

    /// The command's name, such as `query-status`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its arguments.
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }

    /// The command in the form in which it is sent.
    pub fn to_json(&self) -> String {
        // A valid name has only characters that need no escapes in JSON.
        if self.arguments.is_empty() {
            format!(r#"{{"execute":"{}"}}"#, self.name)
        } else {
            format!(r#"{{"execute":"{}","arguments":{}}}"#, self.name, Value::Object(self.arguments.clone()))
        }
    }
}

/// The name, and the arguments if there are any, in the JSON form of the command line.
impl fmt::Display for RawCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.arguments.is_empty() {
            return Ok(());
        }
        write!(f, " {}", Value::Object(self.arguments.clone()))
    }
}

fn is_object(word: &str) -> bool {
    word.trim_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn arguments(words: &[&str]) -> Value {
        let command = RawCommand::from_words([&["c"], words].concat()).unwrap();
        Value::Object(command.arguments().clone())
    }

    fn error(words: &[&str]) -> RawCommandError {
        RawCommand::from_words(words).unwrap_err()
    }

    #[test]
    fn what_an_agent_takes_as_text_stays_text() {
        for (words, json) in [
            (
                &["guest-set-user-password", "username=1000", "password=12345", "crypted=false"][..],
                r#"{"crypted":false,"password":"12345","username":"1000"}"#,
            ),
            (&["guest-exec", "path=true", "arg=[\"007\"]"], r#"{"arg":["007"],"path":"true"}"#),
            (&["guest-file-open", "path=\"7\"", "mode=r"], r#"{"mode":"r","path":"7"}"#),
            (&["guest-file-read", "handle=1000", "count=7"], r#"{"count":7,"handle":1000}"#),
            (&["set_password", "password=7"], r#"{"password":7}"#),
        ] {
            let command = RawCommand::from_words(words).unwrap();
            let sent: Value = serde_json::from_str(&command.to_json()).unwrap();
            assert_eq!(sent["arguments"], serde_json::from_str::<Value>(json).unwrap(), "{words:?}");
        }
    }

    #[test]
    fn a_value_is_json_if_it_parses_and_else_a_string() {
        assert_eq!(
            arguments(&["n=7", "b=true", "s=web-1", "q=\"7\"", "l=[1,2]", "e=", "x=a=b", "broken={\"a\":"]),
            json!({"n": 7, "b": true, "s": "web-1", "q": "7", "l": [1, 2], "e": "", "x": "a=b", "broken": "{\"a\":"})
        );
    }

    #[test]
    fn one_json_object_is_all_the_arguments() {
        assert_eq!(
            arguments(&[r#" {"path": "/", "deep": {"a": [null]}} "#]),
            json!({"path": "/", "deep": {"a": [null]}})
        );
        assert_eq!(arguments(&["{}"]), json!({}));
    }

    #[test]
    fn the_wire_form_has_arguments_only_when_there_are_some() {
        let bare = RawCommand::from_words(["query-status"]).unwrap();
        assert_eq!(
            (bare.to_json().as_str(), bare.to_string().as_str()),
            (r#"{"execute":"query-status"}"#, "query-status")
        );
        let full = RawCommand::from_words(["cont", "a=1"]).unwrap();
        assert_eq!(full.to_json(), r#"{"execute":"cont","arguments":{"a":1}}"#);
        assert_eq!(full.to_string(), r#"cont {"a":1}"#);
    }

    #[test]
    fn errors_name_the_word_and_what_was_expected() {
        assert_eq!(error(&[]), RawCommandError::Empty);
        assert_eq!(error(&[r#"{"execute":"stop"}"#]), RawCommandError::NameMissing);
        assert_eq!(error(&["a b"]), RawCommandError::Name { word: "a b".into() });
        assert_eq!(error(&[""]), RawCommandError::Name { word: String::new() });
        assert_eq!(
            error(&["c", "a=1", "loose"]),
            RawCommandError::Argument { position: 2, word: "loose".into() }
        );
        assert_eq!(error(&["c", "=1"]), RawCommandError::Argument { position: 1, word: "=1".into() });
        assert_eq!(error(&["c", "[1]"]), RawCommandError::Argument { position: 1, word: "[1]".into() });
        assert_eq!(error(&["c", "a=1", "a=2"]), RawCommandError::Duplicate { position: 2, key: "a".into() });
        assert_eq!(error(&["c", "a=1", "{}"]), RawCommandError::Mixed);
        assert_eq!(error(&["c", "{}", "{}"]), RawCommandError::Mixed);
        let RawCommandError::Json { position: 1, reason } = error(&["c", r#"{"a":}"#]) else { panic!() };
        assert!(reason.contains("line 1 column"), "{reason}");
    }

    proptest! {
        #[test]
        fn no_words_make_it_panic_and_what_parses_is_one_json_object(
            words in prop::collection::vec(r#"\PC{0,12}|[{}\[\]"=a-z0-9:,-]{0,12}"#, 0..5),
        ) {
            if let Ok(command) = RawCommand::from_words(&words) {
                let wire: Value = serde_json::from_str(&command.to_json()).unwrap();
                prop_assert_eq!(&wire["execute"], &json!(words[0]));
                prop_assert_eq!(wire.get("arguments").is_some(), !command.arguments().is_empty());
            }
        }

        #[test]
        fn every_key_comes_out_with_its_value(
            pairs in prop::collection::btree_map("[a-z][a-z-]{0,8}", r"\PC{0,12}", 0..6),
        ) {
            let words = pairs.iter().map(|(key, value)| format!("{key}={value}"));
            let command = RawCommand::from_words(std::iter::once("c".to_owned()).chain(words)).unwrap();
            prop_assert_eq!(command.arguments().len(), pairs.len());
            for (key, text) in &pairs {
                let value = &command.arguments()[key];
                let expected = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
                prop_assert_eq!(value, &expected);
            }
        }

        #[test]
        fn any_json_object_is_taken_whole(
            object in prop::collection::btree_map(r"\PC{0,8}", any::<i64>(), 0..6),
        ) {
            let text = serde_json::to_string(&object).unwrap();
            let command = RawCommand::from_words(["c", &text]).unwrap();
            prop_assert_eq!(Value::Object(command.arguments().clone()), json!(object));
        }
    }
}
