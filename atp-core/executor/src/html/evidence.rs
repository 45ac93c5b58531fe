//! The evidence of a target in a page: pictures and texts are in the page, and a link leads to each file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use atp_api::EvidenceReport;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;

use super::{escaped, shown};
use crate::text::line;

/// The largest file that is put into the page, in bytes.
const LARGEST: u64 = 8 << 20;
/// The most bytes of files in the page, so that the page of a thousand VMs can be opened.
const ALL: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Evidence {
    /// The folder of the page, absolute where that is known.
    folder: PathBuf,
    /// The bytes of files that there is still room for.
    room: u64,
}

impl Evidence {
    pub(super) fn new(page: &Path) -> Self {
        let folder = page.parent().unwrap_or(Path::new(""));
        Evidence { folder: absolute(folder), room: ALL }
    }

    /// Adds the files of a target.
    pub(super) fn add(&mut self, evidence: &EvidenceReport, text: &mut String) {
        let _ = writeln!(text, "<h3>Evidence</h3>");
        for name in &evidence.files {
            let path = evidence.folder.join(name);
            let (link, label) = (escaped(&self.link(&path)), escaped(&line(name)));
            let _ = writeln!(text, "<p><a href=\"{link}\">{label}</a></p>");
            match read(&path, LARGEST.min(self.room)) {
                Ok(bytes) => {
                    self.room = self.room.saturating_sub(bytes.len() as u64);
                    content(&bytes, &label, text);
                }
                Err(error) => {
                    let error = escaped(&error.to_string());
                    let _ = writeln!(text, "<p class=\"dim\">It is not shown here: {error}</p>");
                }
            }
        }
        for missed in &evidence.missed {
            let (what, why) = (escaped(&line(&missed.what)), escaped(&line(&missed.reason)));
            let _ = writeln!(text, "<p class=\"dim\">No {what}: {why}</p>");
        }
    }

    /// The address of a file from the page.
    fn link(&self, path: &Path) -> String {
        let path = absolute(path);
        let (mut own, mut other) = (self.folder.components().peekable(), path.components().peekable());
        while own.peek().is_some() && own.peek() == other.peek() {
            own.next();
            other.next();
        }
        let up = own.map(|_| "..".to_owned());
        let down = other.filter_map(|part| match part {
            Component::Normal(name) => Some(address(&name.to_string_lossy())),
            _ => None,
        });
        up.chain(down).collect::<Vec<_>>().join("/")
    }
}

/// Without links resolved, so that a folder can be moved with its page.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(if path.as_os_str().is_empty() { Path::new(".") } else { path })
        .unwrap_or_else(|_| path.to_owned())
}

/// A name in an address.
fn address(name: &str) -> String {
    let mut address = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => address.push(byte.into()),
            byte => drop(write!(address, "%{byte:02X}")),
        }
    }
    address
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for the page")),
        false => Ok(bytes),
    }
}

fn content(bytes: &[u8], label: &str, text: &mut String) {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        let data = STANDARD.encode(bytes);
        let _ = writeln!(text, "<img alt=\"{label}\" src=\"data:image/png;base64,{data}\">");
    } else {
        let _ = writeln!(text, "<pre>{}</pre>", shown(&String::from_utf8_lossy(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_from_the_page_to_the_file() {
        for (page, file, expected) in [
            ("report.html", "evidence/h1/vm 1/screen.png", "evidence/h1/vm%201/screen.png"),
            ("out/report.html", "evidence/h1/a", "../evidence/h1/a"),
            ("/a/b/report.html", "/a/c/d", "../c/d"),
        ] {
            assert_eq!(Evidence::new(Path::new(page)).link(Path::new(file)), expected);
        }
    }
}
