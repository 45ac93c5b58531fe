//! Text with variables in it: `${name}`; `$$` is a dollar sign.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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

/// The largest text with its values, and of the texts of one step that are alike, bytes. What is captured has at most half of it.
const LARGEST: usize = 32 << 20;

/// Why a text cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// The variable has no value.
    NoValue(String),
    TooLarge,
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfilled::NoValue(name) => {
                write!(f, "the variable {name:?} has no value: no step captured it")
            }
            Unfilled::TooLarge => {
                write!(f, "with its variables a text is larger than {} MiB", LARGEST >> 20)
            }
        }
    }
}

/// The values of variables.
pub(in crate::verbs) type Values = BTreeMap<String, String>;

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

    /// A regular expression of the texts that can come of it: `known` gives that of a variable, `other` is that of the rest.
    pub(super) fn pattern(&self, known: impl Fn(&str) -> Option<String>, other: &str) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => regex::escape(text),
            Part::Variable(name) => known(name).unwrap_or_else(|| other.to_owned()),
        };
        self.parts.iter().map(part).collect()
    }

    /// The size of the text with the values in it, bytes.
    pub(super) fn filled_size(&self, values: &Values) -> usize {
        let size = |part: &Part| match part {
            Part::Text(text) => text.len(),
            Part::Variable(name) => values.get(name).map_or(0, String::len),
        };
        self.parts.iter().map(size).fold(0, usize::saturating_add)
    }

    /// The text with the values in it.
    pub(super) fn fill(&self, values: &Values) -> Result<String, Unfilled> {
        if self.filled_size(values) > LARGEST {
            return Err(Unfilled::TooLarge);
        }
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(name) => {
                    text.push_str(values.get(name).ok_or_else(|| Unfilled::NoValue(name.clone()))?);
                }
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

/// The texts with values in them.
pub(in crate::verbs) fn fill_all<'a>(
    templates: impl IntoIterator<Item = &'a Template> + Clone,
    values: &Values,
) -> Result<Vec<String>, String> {
    let sizes = templates.clone().into_iter().map(|template| template.filled_size(values));
    match sizes.fold(0, usize::saturating_add) > LARGEST {
        true => Err(Unfilled::TooLarge.to_string()),
        false => templates.into_iter().map(|template| fill(template, values)).collect(),
    }
}

/// A path on this machine. What a guest printed, or a VM's name, can only be a single file name in it, so that it does not
/// lead to another folder. Only the file's own variables may be more.
pub(in crate::verbs) fn fill_path(
    template: &Template,
    values: &Values,
    own: &Values,
) -> Result<PathBuf, String> {
    let is_name = |value: &str| !matches!(value, "" | "." | "..") && !value.contains(['/', '\0']);
    for name in template.variables() {
        let value = values.get(name).filter(|value| own.get(name) != Some(value));
        if let Some(value) = value.filter(|value| !is_name(value)) {
            return Err(format!(
                "the variable {name:?} is {value:?} and is used in a path on this machine, where only variables of the file may be more than a file name"
            ));
        }
    }
    fill(template, values).map(PathBuf::from)
}

/// The text with values in it. The error says what is wrong.
pub(in crate::verbs) fn fill(template: &Template, values: &Values) -> Result<String, String> {
    template.fill(values).map_err(|reason| reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(text: &str) -> Result<String, String> {
        let values = [("name", "web"), ("n", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        fill(&Template::parse(text)?, &Values::from(values))
    }

    #[test]
    fn variables_are_filled_in_and_a_shells_own_are_left_alone() {
        assert_eq!(filled("${name}-${n}").unwrap(), "web-1");
        assert_eq!(filled("echo $HOME $1 $$ $${name} ${name}$").unwrap(), "echo $HOME $1 $ ${name} web$");
        assert_eq!(filled("").unwrap(), "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(filled("${other}").unwrap_err().contains("\"other\" has no value"));
        assert!(filled("${name").unwrap_err().contains("not closed"));
        assert!(filled("${a b}").unwrap_err().contains("\"a b\""));
        assert!(filled("${}").unwrap_err().contains("not the name"));
    }

    #[test]
    fn only_the_file_decides_the_folder_of_a_path() {
        let own = Values::from([("base".to_owned(), "../out".to_owned())]);
        let path = |text: &str, said: &str| {
            let said = ("said".to_owned(), said.to_owned());
            let values = own.clone().into_iter().chain([said]).collect();
            fill_path(&Template::parse(text).unwrap(), &values, &own)
        };
        assert_eq!(path("${base}/${said}.txt", "web-1"), Ok(PathBuf::from("../out/web-1.txt")));
        assert_eq!(path("${base}/x", "/etc/passwd"), Ok(PathBuf::from("../out/x")));
        for said in ["", ".", "..", "/etc/passwd", "../../x", "a/b"] {
            let error = path("${base}/${said}", said).unwrap_err();
            assert!(error.contains("\"said\"") && error.contains(&format!("{said:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_itself(text in "[^$]*") {
            prop_assert_eq!(filled(&text).unwrap(), text);
        }

        #[test]
        fn parsing_never_panics(text in r"[${}a-z ]{0,20}") {
            let _ = Template::parse(&text);
        }
    }
}
