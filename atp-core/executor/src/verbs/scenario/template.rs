//! Text with variables in it: `${name}`; `$$` is a dollar sign.

use std::collections::BTreeMap;
use std::fmt;

/// A text that is filled in when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

/// The values of variables.
pub(crate) type Values = BTreeMap<String, String>;

impl Template {
    /// Parses a text. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
            } else if let Some(open) = after.strip_prefix('{') {
                let end =
                    open.find('}').ok_or("'${' is not closed: expected ${NAME}, or $$ for a dollar sign")?;
                let name = &open[..end];
                if !is_name(name) {
                    return Err(format!(
                        "{name:?} is not the name of a variable: expected letters, digits and _"
                    ));
                }
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Variable(name.to_owned()));
                rest = &open[end + 1..];
            } else {
                // A shell's own, such as $1 or $HOME.
                literal.push('$');
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template { parts })
    }

    /// The variables in it.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with the values in it. The error is the name of a variable without one.
    pub(crate) fn fill(&self, values: &Values) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(name) => text.push_str(values.get(name).ok_or_else(|| name.clone())?),
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    /// As it can stand in a file, with the variables' names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Variable(name) => write!(f, "${{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// Whether a variable can have this name.
pub(super) fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(text: &str) -> Result<String, String> {
        let values = [("name", "web"), ("n", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Template::parse(text)?.fill(&Values::from(values))
    }

    #[test]
    fn variables_are_filled_in_and_a_shells_own_are_left_alone() {
        assert_eq!(fill("${name}-${n}").unwrap(), "web-1");
        assert_eq!(fill("echo $HOME $1 $$ $${name} ${name}$").unwrap(), "echo $HOME $1 $ ${name} web$");
        assert_eq!(fill("").unwrap(), "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(fill("${other}").unwrap_err(), "other");
        assert!(fill("${name").unwrap_err().contains("not closed"));
        assert!(fill("${a b}").unwrap_err().contains("\"a b\""));
        assert!(fill("${}").unwrap_err().contains("not the name"));
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_itself(text in "[^$]*") {
            prop_assert_eq!(fill(&text).unwrap(), text);
        }

        #[test]
        fn parsing_never_panics(text in r"[${}a-z ]{0,20}") {
            let _ = Template::parse(&text);
        }
    }
}
