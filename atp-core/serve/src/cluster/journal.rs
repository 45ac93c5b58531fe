//! Outcomes that the database could not be told: a file that outlasts the process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use parking_lot::Mutex;

use crate::settings::private_folder;
use crate::store::Finished;

/// The longest line that is read.
const LINE: u64 = 64 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<File>,
}

impl Journal {
    /// Opens the file, or makes it. Returns the outcomes that are in it. A last line that is not whole was never recorded, and is
    /// removed.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Finished>)> {
        if let Some(folder) = path.parent() {
            private_folder(folder)?;
        }
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let mut outcomes = Vec::new();
        let (mut reader, mut line, mut whole) = (BufReader::new(&file), Vec::new(), 0);
        while reader.by_ref().take(LINE).read_until(b'\n', &mut line)? > 0 {
            if line.ends_with(b"\n") {
                outcomes.extend(serde_json::from_slice::<Finished>(&line).ok());
                whole = reader.stream_position()?;
            }
            line.clear();
        }
        // What is written next must not become part of a line that is not whole.
        file.set_len(whole)?;
        Ok((Journal { file: Mutex::new(file) }, outcomes))
    }

    /// Writes outcomes down. Blocks until they are on disk.
    pub(super) fn record(&self, outcomes: &[Finished]) -> io::Result<()> {
        let mut text = String::new();
        for outcome in outcomes {
            text += &serde_json::to_string(outcome)?;
            text.push('\n');
        }
        let mut file = self.file.lock();
        let before = file.metadata()?.len();
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            // A part of a line would spoil the next one.
            file.set_len(before)?;
        }
        written
    }

    /// Forgets all of them: the database has them.
    pub(super) fn clear(&self) -> io::Result<()> {
        let file = self.file.lock();
        if file.metadata()?.len() > 0 {
            file.set_len(0)?;
        }
        Ok(())
    }
}
