//! The HTML page of a run, written at its end.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_executor::{Html, Outcome};
use atp_protocol::files::sync_written;

use super::created;

/// A page in progress.
#[derive(Debug)]
pub(crate) struct HtmlFile {
    path: PathBuf,
    file: File,
    page: Html,
}

impl HtmlFile {
    /// Creates or empties the file.
    ///
    /// # Errors
    /// It cannot be written. It is then removed: an empty file is no report.
    pub(crate) fn create(path: &Path, title: &str) -> io::Result<Self> {
        let file = created(path, Html::DECLARATION)?;
        Ok(HtmlFile { path: path.to_owned(), file, page: Html::new(path, title) })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins another part.
    pub(crate) fn begin(&mut self, title: &str) {
        self.page.begin(title);
    }

    /// Adds one outcome of a target that has ended so long after the report was begun.
    pub(crate) fn take(&mut self, outcome: &Outcome, ended: Duration) {
        self.page.take(outcome, Some(ended));
    }

    /// Writes the file, and waits until it is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn finish(mut self, took: Duration) -> io::Result<()> {
        self.file.write_all(self.page.text(took).as_bytes())?;
        sync_written(&self.file, &self.path)
    }
}
