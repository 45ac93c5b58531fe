//! Files of steps that a scenario includes.
//!
//! A file is known by its path from the scenario's folder. So a scenario's texts are complete wherever they are read: here,
//! by a service, and in the fingerprint of a journal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use super::error::ScenarioError;
use super::fields::{Field, Shape, field};
use super::node::{Node, Value};
use super::read::{Keys, Names, Result, named, scalar};
use super::template::Template;

/// The largest file, in bytes.
const LARGEST: u64 = 1 << 20;

/// The key in a step.
pub(super) const STEP: Field = field(
    "include",
    Shape::Either(&[Shape::Text, Shape::Map(INCLUDE)]),
    "A file with a list of steps, which are carried out here; its path is relative to this file",
);

const INCLUDE: &[Field] = &[
    field("file", Shape::Text, "The path of the file, relative to this file"),
    field("with", Shape::Named, "Variables for its steps"),
];

/// What an `include` asks for.
pub(super) struct Include<'a> {
    /// The path's place.
    pub(super) file: &'a Node,
    pub(super) with: Vec<(&'a Node, &'a str, Template)>,
}

impl<'a> Include<'a> {
    pub(super) fn read(node: &'a Node, names: &Names) -> Result<Self> {
        let Value::Map(_) = &node.value else { return Ok(Include { file: node, with: Vec::new() }) };
        let keys = Keys::of(node, INCLUDE, "include")?;
        let with = named(keys.get("with"))?;
        let variable = |(_, name, value): (_, &'a str, &'a Node)| Ok((value, name, names.template(value)?));
        Ok(Include { file: keys.need("file")?, with: with.into_iter().map(variable).collect::<Result<_>>()? })
    }

    /// The path of the file from the scenario's folder, if the path is relative to `including`.
    pub(super) fn path(&self, including: Option<&str>) -> Result<String> {
        let text = scalar(self.file)?;
        if text.is_empty() || text.contains("${") {
            let message = "the path of an included file is a text without variables";
            return Err(ScenarioError::at(self.file.place, message));
        }
        let folder = including.and_then(|file| Path::new(file).parent()).unwrap_or(Path::new(""));
        Ok(plain(&folder.join(text)))
    }
}

/// A path without `.`, and without `..` where a folder is before it.
fn plain(path: &Path) -> String {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.iter().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// Where the texts of included files come from. The error says why there is none.
pub(super) type Source<'a> = &'a mut dyn FnMut(&str) -> std::result::Result<String, String>;

/// The texts of a scenario that came with it.
pub(super) fn of_texts(
    texts: &BTreeMap<String, String>,
) -> impl FnMut(&str) -> std::result::Result<String, String> {
    |path| texts.get(path).cloned().ok_or_else(|| "its text did not come with the scenario".to_owned())
}

/// The files of a folder.
pub(super) fn of_folder(folder: &Path) -> impl FnMut(&str) -> std::result::Result<String, String> {
    move |path| read_text(&folder.join(path)).map_err(|error| error.to_string())
}

/// Reads a text of limited size.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LARGEST {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")),
        false => Ok(text),
    }
}

/// Whether a text is a list of steps, for scenarios to include, and no scenario.
pub(super) fn is_steps(text: &str) -> bool {
    Node::parse(text).is_ok_and(|node| matches!(node.value, Value::List(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_to_the_including_file() {
        let path = |including, text: &str| {
            let node = Node::parse(text).unwrap();
            Include { file: &node, with: Vec::new() }.path(including).ok()
        };
        for (including, text, expected) in [
            (None, "a.yaml", "a.yaml"),
            (None, "./s/../a.yaml", "a.yaml"),
            (None, "../a.yaml", "../a.yaml"),
            (Some("s/b.yaml"), "a.yaml", "s/a.yaml"),
            (Some("s/b.yaml"), "../a.yaml", "a.yaml"),
            (Some("s/b.yaml"), "../../../a.yaml", "../../a.yaml"),
            (Some("s/b.yaml"), "/../etc/a.yaml", "/etc/a.yaml"),
        ] {
            assert_eq!(path(including, text).as_deref(), Some(expected), "{including:?} {text}");
        }
        for text in ["''", "'${x}.yaml'", "[a]"] {
            assert_eq!(path(None, text), None, "{text}");
        }
    }
}
