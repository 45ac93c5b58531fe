//! The audit log: who asked for what, from where, as JSON lines.
//!
//! A line is written before the work begins. Work that cannot be recorded is refused.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use atp_api::ErrorKind;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Caller;
use crate::problem::Refusal;
use crate::settings::private_folder;
use crate::time::{Clock, rfc3339};

/// The file. It is opened for each line, so that it may be moved away at any time.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    clock: Clock,
}

/// A line. What an operation does in detail is left out: it may be secret.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    /// The token's name; none if the token is not known.
    token: Option<&'a str>,
    from: IpAddr,
    /// What was asked for: `login`, `login-refused`, `run`, `stop`, …
    action: &'a str,
    #[serde(flatten)]
    details: Value,
}

impl Audit {
    pub(crate) fn new(path: PathBuf, clock: Clock) -> Self {
        Audit { path, clock }
    }

    /// Records what a caller asks for; `details` is an object.
    ///
    /// # Errors
    /// It cannot be written: what was asked for must not be done.
    ///
    /// Cancel safe: the line is written all the same.
    pub(crate) async fn record(&self, caller: &Caller, action: &str, details: Value) -> Result<(), Refusal> {
        self.write(Some(&caller.token.name), caller.from, action, details).await
    }

    /// Records a login with a token that is not known.
    pub(crate) async fn refused_login(&self, from: IpAddr) -> Result<(), Refusal> {
        self.write(None, from, "login-refused", Value::Object(serde_json::Map::new())).await
    }

    async fn write(
        &self,
        token: Option<&str>,
        from: IpAddr,
        action: &str,
        details: Value,
    ) -> Result<(), Refusal> {
        let line = Line { time: rfc3339(self.clock.now()), token, from, action, details };
        let text = serde_json::to_string(&line);
        let mut text = text.map_err(|error| Refusal::new(ErrorKind::Unknown, error.to_string()))?;
        text.push('\n');
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || append(&path, text.as_bytes())).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the audit log cannot be written; work is refused");
                let problem = format!("the audit log cannot be written, so nothing is done: {error}");
                Err(Refusal::new(ErrorKind::StorageFailed, problem))
            }
            Err(_) => Err(Refusal::new(ErrorKind::StorageFailed, "the audit log cannot be written")),
        }
    }
}

/// Appends a line in one write, so that lines of several writers do not mix.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        private_folder(folder)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let written = file.write(line)?;
    if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
