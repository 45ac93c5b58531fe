//! What a Windows guest could not have of a folder that is copied there.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::{FileError, Result};

/// Characters that no name has there, beside control characters.
const INVALID: [char; 9] = ['<', '>', ':', '"', '/', '\\', '|', '?', '*'];

/// Names of devices there, whatever ending they have.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// The longest name, in UTF-16 units.
const LONGEST: usize = 255;

/// What is found by looking at each entry of a folder, one after the other: a folder before what is in it, and all of that before
/// the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct ForWindows {
    /// The first entry that it cannot have, and why.
    problem: Option<(PathBuf, String)>,
    /// The longest path below the folder, in UTF-16 units.
    longest: usize,
    /// The names of each folder on the way to the last entry, as Windows compares them.
    seen: Vec<HashSet<String>>,
}

impl ForWindows {
    /// Looks at an entry, by its path below the folder.
    pub(super) fn look(&mut self, path: &Path, is_link: bool) {
        if self.problem.is_some() {
            return;
        }
        let names: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let Some(last) = names.last() else { return };
        let Some(text) = path.to_str() else {
            return self.found(path, "its path is not UTF-8");
        };
        self.longest = self.longest.max(text.encode_utf16().count());
        let name = last.as_os_str().to_string_lossy();
        if is_link {
            return self.found(path, "it is a symbolic link, which is made on Windows by few users");
        }
        if let Some(problem) = problem_of(&name) {
            return self.found(path, problem);
        }
        self.seen.resize_with(names.len(), HashSet::new);
        let is_new = self.seen.last_mut().is_none_or(|seen| seen.insert(folded(&name)));
        if !is_new {
            self.found(path, "another name beside it differs only in upper and lower case");
        }
    }

    fn found(&mut self, path: &Path, why: impl Into<String>) {
        self.problem = Some((path.to_owned(), why.into()));
    }

    /// The longest path below the folder, in UTF-16 units.
    ///
    /// # Errors
    /// [`FileError::Local`] with the first entry that a Windows guest cannot have. `folder` is the folder's name.
    pub(super) fn longest(&self, folder: &str) -> Result<usize> {
        match &self.problem {
            None => Ok(self.longest),
            Some((path, why)) => {
                let why = format!("a Windows guest cannot have it: {why}");
                let error = io::Error::new(io::ErrorKind::InvalidFilename, why);
                Err(FileError::local("copy", Path::new(folder).join(path), error))
            }
        }
    }
}

/// What is wrong with a name.
pub(super) fn problem_of(name: &str) -> Option<String> {
    if let Some(character) = name.chars().find(|c| INVALID.contains(c) || c.is_ascii_control()) {
        return Some(format!("no name there has the character {character:?}"));
    }
    if name.ends_with(['.', ' ']) {
        return Some("no name there ends in a dot or a space".to_owned());
    }
    if name.encode_utf16().count() > LONGEST {
        return Some("its name has more than 255 characters".to_owned());
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    let is_port = ["COM", "LPT"].iter().any(|port| {
        let number = stem.strip_prefix(port);
        number.is_some_and(|number| {
            number.chars().count() == 1 && number.contains(|c: char| c.is_ascii_digit() || "¹²³".contains(c))
        })
    });
    (is_port || DEVICES.contains(&stem.as_str())).then(|| format!("{stem} is the name of a device there"))
}

/// A name as Windows compares it: in upper case, character by character.
fn folded(name: &str) -> String {
    let upper = |c: char| {
        let mut upper = c.to_uppercase();
        match (upper.next(), upper.next()) {
            (Some(one), None) => one,
            _ => c,
        }
    };
    name.chars().map(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_windows_cannot_have_is_found() {
        let long = "n".repeat(256);
        for name in [
            "a:b", "a\\b", "a?", "*", "x\u{1}", "tab\t", "dot.", "space ", "...", "CON", "nul.txt", "Aux .x",
            "com1", "LPT9.log", "COM²", "conin$", &long,
        ] {
            assert!(problem_of(name).is_some(), "{name}");
        }
        for name in [
            "a",
            ".hidden",
            "console",
            "com",
            "COM10",
            "com1x",
            "nul-x",
            "$(x) 'y'",
            "-n",
            "Grüße",
            &long[1..],
        ] {
            assert_eq!(problem_of(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_differ_in_case_are_found_in_one_folder_only() {
        let look = |paths: &[&str]| {
            let mut windows = ForWindows::default();
            paths.iter().for_each(|path| windows.look(Path::new(path), false));
            windows.longest("it").map_err(|error| error.to_string())
        };
        assert_eq!(look(&["", "A", "A/x", "B", "B/X", "b2", "b2/x"]), Ok(4));
        assert_eq!(look(&["", "straße", "strasse"]), Ok(7));
        assert_eq!(look(&["", "B", "a", "a/b", "b"]), Err("cannot copy it/b".to_owned()));
        assert_eq!(look(&["", "d", "d/Ü", "d/ü"]), Err("cannot copy it/d/ü".to_owned()));
        let mut windows = ForWindows::default();
        windows.look(Path::new("l"), true);
        assert!(windows.longest("it").is_err());
    }
}
