//! Files of a scenario that came from another machine: paths in its steps are those of that machine, and name files and folders
//! that are kept here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::safe_name::{name_of_safe, safe_name};

/// Where the files of a scenario's steps are kept, whose paths are those of another machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilePlaces {
    /// The files that steps push, by their paths in the steps.
    pub sent: BTreeMap<String, PathBuf>,
    /// The folder for what steps pull and for pictures. Each folder that steps name is a folder in it, whose name
    /// [`named_folder`](Self::named_folder) reads.
    pub folder: PathBuf,
}

impl FilePlaces {
    /// The file that a step pushes. The error says what is wrong.
    pub(in crate::verbs) fn source(&self, path: &Path) -> Result<PathBuf, String> {
        let sent = path.to_str().and_then(|path| self.sent.get(path));
        sent.cloned().ok_or_else(|| format!("the file {} was not sent to the service", path.display()))
    }

    /// The folder here for one that a step names. The error says what is wrong.
    pub(in crate::verbs) fn folder_for(&self, named: &Path) -> Result<PathBuf, String> {
        let name = named.to_str().map(safe_name).filter(|name| name_of_safe(name).is_some());
        name.map(|name| self.folder.join(name))
            .ok_or_else(|| format!("the name of the folder {} is too long for a service", named.display()))
    }

    /// The folder that steps name, of the name of its folder here.
    pub fn named_folder(name: &str) -> Option<String> {
        name_of_safe(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_steps_name_are_folders_in_one() {
        let places = FilePlaces { folder: "/keep".into(), ..FilePlaces::default() };
        for named in ["logs", "../out/é", "/etc/cron.d", "", "a%b"] {
            let here = places.folder_for(Path::new(named)).unwrap();
            assert_eq!(here.parent(), Some(Path::new("/keep")));
            let name = here.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(FilePlaces::named_folder(name).as_deref(), Some(named));
        }
        assert!(places.folder_for(Path::new(&"x".repeat(300))).unwrap_err().contains("too long"));
        assert!(places.source(Path::new("/etc/shadow")).unwrap_err().contains("was not sent"));
    }
}
