//! Changing hosts in a settings file, of which everything else stays as a person wrote it: comments, order, blanks.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use atp_protocol::files::sync_written;
use tempfile::NamedTempFile;
use toml_edit::{Array, DocumentMut, Item, RawString, Table, Value};

use crate::problem::Problem;

/// A host to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewHost {
    pub(crate) uri: String,
    pub(crate) groups: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A settings file while it is changed. Others who change it this way wait.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    path: PathBuf,
    /// Where the file really is, should the path be a symbolic link.
    target: PathBuf,
    document: DocumentMut,
    /// None if it is to be made.
    metadata: Option<fs::Metadata>,
    /// The lock on the folder is let go with it.
    _folder: File,
}

impl SettingsFile {
    /// Reads the file; one that is not there is empty. Its folder is made where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no TOML.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let unreadable = |error: io::Error| {
            Problem::new(format!("{}: cannot be opened to be changed", path.display()))
                .because(&error)
                .hint("check the permissions, or name another file with --config")
        };
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(unreadable(error)),
        };
        let folder = folder_of(&target);
        fs::create_dir_all(folder).map_err(unreadable)?;
        let folder = File::open(folder).map_err(unreadable)?;
        folder.lock().map_err(unreadable)?;
        let (text, metadata) = match fs::read_to_string(&target) {
            Ok(text) => (text, Some(fs::metadata(&target).map_err(unreadable)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None),
            Err(error) => return Err(unreadable(error)),
        };
        let document = text.parse().map_err(|error: toml_edit::TomlError| {
            Problem::new(format!("{}: is not TOML", path.display())).cause(error.to_string())
        })?;
        Ok(SettingsFile { path: path.to_owned(), target, document, metadata, _folder: folder })
    }

    /// Whether the host is defined here.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.document.get("hosts").and_then(Item::as_table_like).is_some_and(|hosts| hosts.contains_key(id))
    }

    /// Adds a host that is not there yet, after the others.
    pub(crate) fn add(&mut self, id: &str, host: &NewHost) {
        let mut section = Table::new();
        section.insert("uri", Item::Value(host.uri.as_str().into()));
        if !host.groups.is_empty() {
            section.insert("groups", Item::Value(Value::Array(host.groups.iter().collect::<Array>())));
        }
        if !host.labels.is_empty() {
            let labels: toml_edit::InlineTable =
                host.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            section.insert("labels", Item::Value(Value::InlineTable(labels)));
        }
        let is_first = self.document.as_table().is_empty();
        if !is_first {
            section.decor_mut().set_prefix("\n");
        }
        let mut none = Table::new();
        none.set_implicit(true);
        let hosts = self.document.entry("hosts").or_insert(Item::Table(none));
        match hosts {
            Item::Value(Value::InlineTable(hosts)) => {
                hosts.insert(id, Value::InlineTable(section.into_inline_table()));
            }
            hosts => {
                if let Some(hosts) = hosts.as_table_like_mut() {
                    hosts.insert(id, Item::Table(section));
                }
            }
        }
    }

    /// Removes a host, with the comments right above its section. What an empty line parts from it stays.
    pub(crate) fn remove(&mut self, id: &str) {
        let Some(hosts) = self.document.get_mut("hosts").and_then(Item::as_table_like_mut) else { return };
        if let Some(Item::Table(section)) = hosts.remove(id)
            && let Some(place) = section.position()
            && let Some(above) = section.decor().prefix().and_then(RawString::as_str).and_then(parted)
        {
            self.put_before_next(place, above);
        }
    }

    /// Puts comments above the first section behind a place, or at the end of the file.
    fn put_before_next(&mut self, place: isize, comments: &str) {
        let mut next = None;
        find_next(self.document.as_table_mut(), place, &mut next);
        if let Some(section) = next {
            let prefix = section.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
            let prefix = format!("{comments}{}", prefix.trim_start_matches(['\r', '\n']));
            section.decor_mut().set_prefix(prefix);
        } else {
            let trailing = self.document.trailing().as_str().unwrap_or_default();
            let trailing = format!("{comments}{}", trailing.trim_start_matches(['\r', '\n']));
            self.document.set_trailing(trailing);
        }
    }

    /// Replaces the file by the changed one, in one step: a reader sees the old one or the new one. Mode and
    /// owner stay.
    ///
    /// # Errors
    /// It cannot be written, and then the old one is still there; or the disk does not take its name, which the error says.
    pub(crate) fn save(self) -> Result<(), Problem> {
        let text = self.document.to_string();
        // How a person laid out the file may be more than this can change; what is not TOML is never written.
        if let Err(error) = text.parse::<DocumentMut>() {
            return Err(Problem::new(format!(
                "{}: cannot be changed without breaking it",
                self.path.display()
            ))
            .cause(error.to_string())
            .hint("change it with an editor"));
        }
        self.replace(&text).map_err(|error| {
            Problem::new(format!("{}: could not be written; it is unchanged", self.path.display()))
                .because(&error)
                .hint("check the folder's permissions and free space")
        })?;
        let synced = File::open(&self.target).and_then(|file| sync_written(&file, &self.target));
        synced.map_err(|error| {
            let text = format!("{}: was changed, but may be lost if the power fails", self.path.display());
            Problem::new(text).because(&error).hint("check the disk")
        })
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        // Only its owner can read it, as it may come to hold secrets.
        let mut new = NamedTempFile::new_in(folder_of(&self.target))?;
        new.write_all(text.as_bytes())?;
        let file = new.as_file();
        if let Some(metadata) = &self.metadata {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(metadata.permissions().mode()))?;
        }
        file.sync_all()?;
        new.persist(&self.target)?;
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Of what stands above a section, the part up to the last empty line, if there is a comment in it.
fn parted(above: &str) -> Option<&str> {
    let mut end = 0;
    let mut at = 0;
    for line in above.split_inclusive('\n') {
        at += line.len();
        if line.trim().is_empty() {
            end = at;
        }
    }
    Some(&above[..end]).filter(|part| part.contains('#'))
}

/// Finds the section with the lowest position behind a place.
fn find_next<'a>(table: &'a mut Table, place: isize, next: &mut Option<&'a mut Table>) {
    // A section that is only a part of others' names stands nowhere.
    let (mut inner, mut own) = (Vec::new(), None);
    let is_behind = table.position().is_some_and(|position| position > place) && !table.is_implicit();
    if is_behind {
        own = Some(table);
    } else {
        inner.extend(table.iter_mut().map(|(_, item)| item));
    }
    let tables = inner.into_iter().flat_map(|item| match item {
        Item::Table(table) => vec![table],
        Item::ArrayOfTables(tables) => tables.iter_mut().collect(),
        _ => Vec::new(),
    });
    if let Some(own) = own
        && next.as_ref().is_none_or(|next| own.position() < next.position())
    {
        *next = Some(own);
    }
    tables.for_each(|table| find_next(table, place, next));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HAND_MADE: &str = "\
# The lab.
timeout = \"9s\"   # be quick

[hosts.b]   # the big one
uri = 'qemu+tcp://b/system'

# Only on weekends.
[hosts.a]
uri = \"qemu+tcp://a/system\"
labels = { arch = \"x86\" }

[transport]
call_timeout = \"3s\"
# the end
";

    fn host(uri: &str) -> NewHost {
        NewHost { uri: uri.to_owned(), groups: Vec::new(), labels: BTreeMap::new() }
    }

    fn changed(text: &str, change: impl FnOnce(&mut SettingsFile)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        let mut file = SettingsFile::open(&path).unwrap();
        change(&mut file);
        file.save().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_host_is_added_and_all_else_stays() {
        let new = NewHost {
            groups: vec!["lab".into()],
            labels: BTreeMap::from([("zone".into(), "a".into())]),
            ..host("test:///default")
        };
        let text = changed(HAND_MADE, |file| file.add("node.7", &new));
        let added = "\n[hosts.\"node.7\"]\nuri = \"test:///default\"\ngroups = [\"lab\"]\nlabels = { zone = \"a\" }\n";
        assert!(text.contains(added), "{text}");
        assert_eq!(text.replace(added, ""), HAND_MADE);
    }

    #[test]
    fn a_host_is_removed_and_all_else_stays() {
        let text = changed(HAND_MADE, |file| file.remove("a"));
        let gone =
            "\n# Only on weekends.\n[hosts.a]\nuri = \"qemu+tcp://a/system\"\nlabels = { arch = \"x86\" }\n";
        assert_eq!(text, HAND_MADE.replace(gone, ""));
    }

    #[test]
    fn a_comment_that_an_empty_line_parts_from_the_host_stays() {
        for (text, left) in [
            ("# my hosts\n\n[hosts.b]\nuri = 'x'\n", "# my hosts\n\n"),
            (
                "# my hosts\n\n# the big one\n[hosts.b]\nuri = 'x'\n\n# small\n[hosts.c]\nuri = 'y'\n",
                "# my hosts\n\n# small\n[hosts.c]\nuri = 'y'\n",
            ),
            (
                "[hosts.a]\nuri = 'x'\n\n# far\n\n[hosts.b]\n[hosts.b.auth]\nusername = 'u'\n[transport]\n# end\n",
                "[hosts.a]\nuri = 'x'\n\n# far\n\n[transport]\n# end\n",
            ),
            ("timeout = '1s'\n\n[hosts.b]\nuri = 'x'\n", "timeout = '1s'\n"),
        ] {
            assert_eq!(changed(text, |file| file.remove("b")), left, "{text}");
        }
    }

    #[test]
    fn hosts_may_be_written_in_any_way() {
        for text in [
            "",
            "# only a comment\n",
            "hosts = { a = { uri = \"test:///default\" } }\n",
            "hosts.a.uri = \"test:///default\"\ntimeout = \"3s\"\n",
            "[hosts]\na.uri = \"test:///default\"\n[transport]\n",
            "[hosts]\na = { uri = \"test:///default\" } # inline\n",
            "[hosts.a]\r\nuri = \"test:///default\"\r\n",
        ] {
            let changed_text = changed(text, |file| file.add("b", &host("test:///other")));
            let document: DocumentMut =
                changed_text.parse().unwrap_or_else(|error| panic!("{error}:\n{changed_text}"));
            assert_eq!(document["hosts"]["b"]["uri"].as_str(), Some("test:///other"), "{changed_text}");
            let back = changed(&changed_text, |file| file.remove("b"));
            let (back, text): (DocumentMut, DocumentMut) = (back.parse().unwrap(), text.parse().unwrap());
            assert_eq!(back.get("timeout").map(Item::to_string), text.get("timeout").map(Item::to_string));
        }
    }

    #[test]
    fn mode_and_symbolic_link_stay_and_a_new_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.toml"), folder.path().join("link.toml"));
        fs::write(&real, "").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = SettingsFile::open(&link).unwrap();
        file.add("a", &host("test:///default"));
        file.save().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&real).unwrap(), "[hosts.a]\nuri = \"test:///default\"\n");

        let new = folder.path().join("deep/er/new.toml");
        let mut file = SettingsFile::open(&new).unwrap();
        file.add("a", &host("test:///default"));
        file.save().unwrap();
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// Lines that settings may be made of, in any order.
    const LINES: [&str; 18] = [
        "# a comment",
        "",
        "timeout = \"9s\"  # be quick",
        "[hosts]",
        "[hosts.a]   # the first",
        "[hosts.\"b.c\"]",
        "[hosts.a.auth]",
        "uri = 'test:///x'",
        "labels = { k = 'v' }",
        "a.uri = 'test:///x'",
        "a = { uri = 'test:///x' } # inline",
        "hosts.a.uri = 'test:///x'",
        "hosts = { a = { uri = 'test:///x' } }",
        "hosts = 5",
        "[transport]",
        "call_timeout = \"3s\"",
        "[[other]]",
        "\tgroups = [\r\n 'g', # one\n]",
    ];

    /// Every value with the keys that lead to it.
    fn values(path: &str, item: &Item, found: &mut BTreeMap<String, String>) {
        match item {
            Item::Table(_) | Item::Value(Value::InlineTable(_)) => {
                let entries = item.as_table_like().into_iter().flat_map(|table| table.iter());
                entries.for_each(|(key, item)| values(&format!("{path}/{key}"), item, found));
            }
            item => drop(found.insert(path.to_owned(), item.to_string().trim().to_owned())),
        }
    }

    fn values_of(text: &str) -> BTreeMap<String, String> {
        let document: DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}:\n{text}"));
        let mut found = BTreeMap::new();
        values("", document.as_item(), &mut found);
        found
    }

    proptest! {
        #[test]
        fn however_a_file_is_written_a_host_comes_and_goes_and_nothing_else_does(
            lines in prop::collection::vec(prop::sample::select(&LINES[..]), 0..8),
            odd in any::<String>(),
        ) {
            let text = lines.join("\n");
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config.toml");
            fs::write(&path, &odd).unwrap();
            let _ = SettingsFile::open(&path);
            fs::write(&path, &text).unwrap();
            if let Ok(mut file) = SettingsFile::open(&path) {
                let before = values_of(&text);
                let is_hosts = file.document.get("hosts").is_none_or(Item::is_table_like);
                file.add("new.one", &host("test:///new"));
                prop_assert_eq!(file.has("new.one"), is_hosts);
                let saved = file.save();
                let mut added = values_of(&fs::read_to_string(&path).unwrap());
                if saved.is_ok() && is_hosts {
                    prop_assert_eq!(added.remove("/hosts/new.one/uri"), Some("\"test:///new\"".to_owned()));
                }
                prop_assert_eq!(&added, &before);
                let mut file = SettingsFile::open(&path).unwrap();
                file.remove("new.one");
                let _ = file.save();
                if saved.is_ok() {
                    prop_assert_eq!(values_of(&fs::read_to_string(&path).unwrap()), before);
                }
            }
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
