//! The file of tokens: who there is, and the hash of each token.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use atp_api::serve::Role;
use atp_executor::{Selector, SelectorError};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::secret::{Secret, hash, is_same};
use crate::settings::private_folder;

/// What every token starts with, so that programs that look for secrets in text find it.
const PREFIX: &str = "atp_";

/// A file larger than this is none of tokens.
const MAX_BYTES: u64 = 16 << 20;

/// A token, without the token itself.
#[derive(Debug, Clone)]
pub struct Token {
    /// What it is called.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The VMs that it may look at and work on. Every VM if there are none.
    pub selectors: Vec<Selector>,
    /// The verbs that it may use, of those of its role. All of them if there are none.
    pub verbs: Vec<String>,
    /// When it was made; RFC 3339.
    pub created: String,
    /// The SHA-256 of the token, in hexadecimal digits.
    sha256: String,
}

impl Token {
    /// Whether it may still do what `other` may, and no more: they are the same token, before and after the file was read again.
    fn is_unchanged(&self, other: &Token) -> bool {
        let texts = |token: &Token| token.selectors.iter().map(ToString::to_string).collect::<Vec<_>>();
        (&self.name, self.role, &self.verbs) == (&other.name, other.role, &other.verbs)
            && texts(self) == texts(other)
    }

    /// Whether it may look at everything.
    pub(crate) fn is_whole(&self) -> bool {
        self.selectors.is_empty() && self.verbs.is_empty()
    }

    /// The hash of the token, which is what it is known by.
    pub(crate) fn hash(&self) -> &str {
        &self.sha256
    }
}

/// What a new token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is called.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its VMs; none for all.
    pub selectors: Vec<Selector>,
    /// Its verbs; none for all of its role.
    pub verbs: Vec<String>,
}

/// All tokens.
#[derive(Debug, Clone, Default)]
pub struct TokenFile {
    tokens: HashMap<String, Arc<Token>>,
    /// Names in the order of the file.
    names: Vec<String>,
}

/// A token as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    role: Role,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    selectors: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    verbs: Vec<String>,
    created: String,
    sha256: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    #[serde(default, rename = "token")]
    tokens: Vec<Written>,
}

/// Why the file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// It cannot be read or written.
    #[error("{}: the file of tokens cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// It has an error.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Others may read or change it.
    #[error("{}: others may read or change the file of tokens (mode {mode:o}); make it private: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is a token of that name.
    #[error("there is a token {name:?} already; remove it first, or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// There is no token of that name.
    #[error("there is no token {name:?}; the tokens are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names of the tokens there are.
        known: String,
    },
    /// A name is not a valid one.
    #[error("{name:?} cannot be the name of a token: 1 to 64 letters, digits, '.', '_', '-' and '@' can")]
    Name {
        /// The name.
        name: String,
    },
    /// The system has no random numbers.
    #[error("there are no random numbers for a token: {0}")]
    Random(getrandom::Error),
}

impl TokenFile {
    /// Reads the file; one that does not exist has no tokens. Blocks.
    ///
    /// # Errors
    /// It cannot be read, has an error, or others may read it.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::File { path: path.to_owned(), source };
        let content = |problem| TokensError::Content { path: path.to_owned(), problem };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TokenFile::default()),
            Err(error) => return Err(failed(error)),
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokensError::Permissions { path: path.to_owned(), mode });
        }
        if metadata.len() > MAX_BYTES {
            return Err(content(format!("more than {MAX_BYTES} bytes")));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        // The parser's message would quote the line, which may have a hash or, by mistake, a token.
        let file: WrittenFile = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            content(format!("line {line}: {}", error.message()))
        })?;
        let mut read = TokenFile::default();
        for token in file.tokens {
            let name = token.name.clone();
            let token = token.read().map_err(|error| content(format!("token {name:?}: {error}")))?;
            if !read.add(token) {
                return Err(content(format!("the token {name:?} is there twice")));
            }
        }
        Ok(read)
    }

    /// Adds a token, with its name in use no more than once.
    fn add(&mut self, token: Token) -> bool {
        if self.names.contains(&token.name) || self.tokens.contains_key(&token.sha256) {
            return false;
        }
        self.names.push(token.name.clone());
        self.tokens.insert(token.sha256.clone(), Arc::new(token));
        true
    }

    /// Makes a token, and writes the file. Returns the token, which is kept nowhere. Blocks.
    ///
    /// # Errors
    /// The name is taken or not valid, or the file cannot be written.
    pub fn create(path: &Path, new: NewToken) -> Result<Secret, TokensError> {
        let NewToken { name, role, selectors, verbs } = new;
        let is_valid = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_valid) {
            return Err(TokensError::Name { name });
        }
        let mut file = TokenFile::read(path)?;
        let secret = Secret::new(PREFIX).map_err(TokensError::Random)?;
        let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let token = Token { name: name.clone(), role, selectors, verbs, created, sha256: secret.hash() };
        if !file.add(token) {
            return Err(TokensError::Taken { name });
        }
        file.write(path)?;
        Ok(secret)
    }

    /// Removes a token, and writes the file. Blocks.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be written.
    pub fn remove(path: &Path, name: &str) -> Result<(), TokensError> {
        let mut file = TokenFile::read(path)?;
        if !file.names.iter().any(|known| known == name) {
            return Err(TokensError::Unknown { name: name.to_owned(), known: file.names.join(", ") });
        }
        file.names.retain(|known| known != name);
        file.tokens.retain(|_, token| token.name != name);
        file.write(path)
    }

    /// Writes the file anew beside itself, and puts it in its place: a reader sees the one or the other.
    fn write(&self, path: &Path) -> Result<(), TokensError> {
        let written = WrittenFile { tokens: self.iter().map(Written::of).collect() };
        let text = toml::to_string(&written)
            .map_err(|error| TokensError::Content { path: path.to_owned(), problem: error.to_string() })?;
        replace(path, text.as_bytes()).map_err(|source| TokensError::File { path: path.to_owned(), source })
    }

    /// The tokens, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        let of_name = |name: &String| self.tokens.values().find(|token| token.name == *name);
        self.names.iter().filter_map(of_name).map(Arc::as_ref)
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token of this text.
    pub(crate) fn find(&self, text: &str) -> Option<Arc<Token>> {
        self.by_hash(&hash(text))
    }

    /// Whether a token is there as it was.
    pub(crate) fn has(&self, token: &Token) -> bool {
        self.by_hash(&token.sha256).is_some_and(|now| now.is_unchanged(token))
    }

    /// The token with this hash. What a client sends is hashed first, so the time of the search tells it nothing; the
    /// comparison of what was found takes the same time wherever they differ.
    pub(crate) fn by_hash(&self, sha256: &str) -> Option<Arc<Token>> {
        self.tokens.get(sha256).filter(|token| is_same(&token.sha256, sha256)).cloned()
    }
}

impl Written {
    fn of(token: &Token) -> Self {
        Written {
            name: token.name.clone(),
            role: token.role,
            selectors: token.selectors.iter().map(ToString::to_string).collect(),
            verbs: token.verbs.clone(),
            created: token.created.clone(),
            sha256: token.sha256.clone(),
        }
    }

    fn read(self) -> Result<Token, String> {
        let Written { name, role, selectors, verbs, created, sha256 } = self;
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("sha256: expected 64 hexadecimal digits".to_owned());
        }
        let selectors = selectors.iter().map(|text| text.parse::<Selector>());
        let selectors = selectors.collect::<Result<_, SelectorError>>().map_err(|error| error.to_string())?;
        Ok(Token { name, role, selectors, verbs, created, sha256: sha256.to_ascii_lowercase() })
    }
}

/// Replaces a file, which only its owner can read then. The owner stays; a new file that root makes is its folder's owner's, as a
/// service need not be root's.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_folder(folder)?;
    let owner = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => geteuid().is_root().then(|| fs::metadata(folder)).transpose()?,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        let own = file.metadata()?;
        if let Some(owner) = &owner
            && (own.uid(), own.gid()) != (owner.uid(), owner.gid())
        {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str) -> NewToken {
        NewToken {
            name: name.to_owned(),
            role: Role::Operator,
            selectors: vec!["web-*".parse().unwrap()],
            verbs: vec!["exec".to_owned()],
        }
    }

    #[test]
    fn the_file_has_hashes_and_only_the_token_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/tokens.toml");
        assert!(TokenFile::read(&path).unwrap().is_empty());
        let secret = TokenFile::create(&path, new("ci")).unwrap();
        let other = TokenFile::create(&path, new("other")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&secret.reveal()[4..]) && text.contains(&secret.hash()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file = TokenFile::read(&path).unwrap();
        assert_eq!(file.find(secret.reveal()).unwrap().name, "ci");
        assert!(file.find(&secret.hash()).is_none());
        assert!(matches!(TokenFile::create(&path, new("ci")), Err(TokensError::Taken { .. })));
        assert!(matches!(TokenFile::create(&path, new("a b")), Err(TokensError::Name { .. })));
        TokenFile::remove(&path, "ci").unwrap();
        let file = TokenFile::read(&path).unwrap();
        assert!(file.find(secret.reveal()).is_none() && file.find(other.reveal()).is_some());
        let error = TokenFile::remove(&path, "ci").unwrap_err().to_string();
        assert!(error.contains("other"), "{error}");
    }

    #[test]
    fn a_file_is_its_service_s_and_in_a_folder_that_nobody_else_looks_into() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/tokens.toml");
        TokenFile::create(&path, new("ci")).unwrap();
        let parent = path.parent().unwrap();
        assert_eq!(fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700);
        // Others than root can make files of their own only.
        if !geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(parent, Some(4711), Some(4712)).unwrap();
        let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
        let other = parent.join("other.toml");
        TokenFile::create(&other, new("ci")).unwrap();
        assert_eq!(owner(&other), (4711, 4712));
        std::os::unix::fs::chown(&other, Some(4713), Some(4714)).unwrap();
        TokenFile::create(&other, new("second")).unwrap();
        assert_eq!(owner(&other), (4713, 4714));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        TokenFile::create(&path, new("ci")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(TokenFile::read(&path), Err(TokensError::Permissions { mode: 0o640, .. })));
    }

    #[test]
    fn an_error_names_its_line_and_quotes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        replace(&path, b"[[token]]\nname = 'ci'\nrole = 'emperor'\n").unwrap();
        let error = TokenFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("line") && error.contains("emperor"), "{error}");
        replace(&path, b"[[token]]\nname = 'ci'\nrole = 'viewer'\ncreated = ''\nsha256 = 'atp_secret'\n")
            .unwrap();
        let error = TokenFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("sha256") && !error.contains("atp_secret"), "{error}");
    }
}
