//! The files of a simulated guest, in memory.

use std::collections::HashMap;

/// The most bytes of all files of a guest.
const ROOM: usize = 16 << 20;

/// The most bytes that one read gives.
const READ: usize = 4 << 20;

/// The most files that are open.
const HANDLES: usize = 256;

/// The files of a guest, and those that the agent has open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    contents: HashMap<String, Vec<u8>>,
    used: usize,
    open: HashMap<i64, Open>,
    last: i64,
}

#[derive(Debug, Clone)]
struct Open {
    path: String,
    position: usize,
    writes: bool,
    appends: bool,
}

type Result<T> = std::result::Result<T, String>;

impl Files {
    pub(super) fn content(&self, path: &str) -> Option<&[u8]> {
        self.contents.get(path).map(Vec::as_slice)
    }

    /// Creates a file, or replaces it.
    pub(super) fn put(&mut self, path: &str, content: Vec<u8>) {
        self.used += content.len();
        if let Some(old) = self.contents.insert(path.to_owned(), content) {
            self.used -= old.len();
        }
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, path: &str) -> Option<Vec<u8>> {
        let content = self.contents.remove(path)?;
        self.used -= content.len();
        Some(content)
    }

    /// Closes all.
    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    pub(super) fn open(&mut self, path: &str, mode: &str) -> Result<i64> {
        let failed = |why: &str| Err(format!("failed to open file '{path}' (mode: '{mode}'): {why}"));
        let base = mode.replace(['b', '+'], "");
        if !["r", "w", "a"].contains(&base.as_str()) {
            return Err(format!("invalid file open mode '{mode}'"));
        }
        if self.open.len() >= HANDLES {
            return failed("Too many open files");
        }
        match base.as_str() {
            "r" if !self.contents.contains_key(path) => return failed("No such file or directory"),
            "w" => self.put(path, Vec::new()),
            "a" if !self.contents.contains_key(path) => self.put(path, Vec::new()),
            _ => {}
        }
        self.last += 1;
        let writes = base != "r" || mode.contains('+');
        let open = Open { path: path.to_owned(), position: 0, writes, appends: base == "a" };
        self.open.insert(self.last, open);
        Ok(self.last)
    }

    /// Reads: the bytes, and whether the file ended.
    pub(super) fn read(&mut self, handle: i64, count: usize) -> Result<(&[u8], bool)> {
        let open = self.open.get_mut(&handle).ok_or_else(|| unknown(handle))?;
        let content = self.contents.get(&open.path).map_or(&[][..], Vec::as_slice);
        let left = content.get(open.position..).unwrap_or_default();
        let taken = &left[..left.len().min(count).min(READ)];
        open.position += taken.len();
        // As of `fread`: the end shows when fewer bytes come than were asked for.
        Ok((taken, taken.len() < count))
    }

    pub(super) fn write(&mut self, handle: i64, bytes: &[u8]) -> Result<()> {
        let open = self.open.get_mut(&handle).ok_or_else(|| unknown(handle))?;
        if !open.writes {
            return Err("failed to write to file: Bad file descriptor".to_owned());
        }
        let content = self.contents.entry(open.path.clone()).or_default();
        let at = if open.appends { content.len() } else { open.position };
        let end = at.saturating_add(bytes.len());
        let grown = end.saturating_sub(content.len());
        if self.used.saturating_add(grown) > ROOM {
            return Err("failed to write to file: No space left on device".to_owned());
        }
        self.used += grown;
        content.resize(content.len().max(end), 0);
        content[at..end].copy_from_slice(bytes);
        open.position = end;
        Ok(())
    }

    /// Moves a position: from the start (0), from where it is (1), from the end (2). Returns the new
    /// position, and whether it is at the end.
    pub(super) fn seek(&mut self, handle: i64, offset: i64, whence: i64) -> Result<(usize, bool)> {
        let open = self.open.get_mut(&handle).ok_or_else(|| unknown(handle))?;
        let length = self.contents.get(&open.path).map_or(0, Vec::len);
        let from = match whence {
            0 => 0,
            1 => open.position,
            2 => length,
            _ => return Err("invalid whence code".to_owned()),
        };
        let to = i64::try_from(from).ok().and_then(|from| from.checked_add(offset));
        let Some(to) = to.and_then(|to| usize::try_from(to).ok()) else {
            return Err("failed to seek file: Invalid argument".to_owned());
        };
        open.position = to;
        Ok((to, false))
    }

    pub(super) fn close(&mut self, handle: i64) -> Result<()> {
        self.open.remove(&handle).map(drop).ok_or_else(|| unknown(handle))
    }

    pub(super) fn is_open(&self, handle: i64) -> Result<()> {
        if self.open.contains_key(&handle) { Ok(()) } else { Err(unknown(handle)) }
    }
}

fn unknown(handle: i64) -> String {
    format!("handle '{handle}' has not been found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut files = Files::default();
        assert!(files.open("/f", "r").is_err());
        let handle = files.open("/f", "a").unwrap();
        files.write(handle, b"abc").unwrap();
        files.write(handle, b"def").unwrap();
        files.close(handle).unwrap();
        assert!(files.write(handle, b"x").is_err());

        let handle = files.open("/f", "rb").unwrap();
        assert!(files.write(handle, b"x").is_err());
        assert_eq!(files.seek(handle, -4, 2), Ok((2, false)));
        assert_eq!(files.read(handle, 2), Ok((&b"cd"[..], false)));
        assert_eq!(files.read(handle, 9), Ok((&b"ef"[..], true)));
        assert!(files.seek(handle, -1, 0).is_err());
        let handle = files.open("/f", "w").unwrap();
        assert_eq!(files.read(handle, 1), Ok((&b""[..], true)));
    }

    #[test]
    fn a_guest_has_only_so_much_room() {
        let mut files = Files::default();
        let handle = files.open("/f", "w").unwrap();
        files.write(handle, &vec![0; ROOM]).unwrap();
        assert!(files.write(handle, b"x").unwrap_err().contains("No space left"));
        files.seek(handle, i64::MAX, 0).unwrap();
        assert!(files.write(handle, b"x").is_err());
        files.open("/f", "w").unwrap();
        assert_eq!(files.used, 0);
    }
}
