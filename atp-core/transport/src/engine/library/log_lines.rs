//! What the C library logs, as events of `tracing`.
//!
//! Without this it writes plain lines to standard error, which is for the program's own log: in its format, and by its level.
//! Some of them are the only place where it says why a connection failed.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::{BufRead as _, BufReader, PipeReader, Read as _, pipe};
use std::os::fd::AsRawFd;

/// Sets where the library logs to (`virLogSetOutputs`, which programs of libvirt's own use, in each version since 3.0).
type SetOutputs = unsafe extern "C" fn(*const c_char) -> c_int;
const SET_OUTPUTS: &CStr = c"virLogSetOutputs";

/// The variables by which a user says where the library logs to.
const OF_THE_USER: [&str; 2] = ["LIBVIRT_LOG_OUTPUTS", "LIBVIRT_DEBUG"];

/// The longest part of a line that is read at once, bytes. The rest of a longer one is passed over.
const LONGEST: u64 = 4096;

/// Takes over what the library logs, unless the user has said where that goes. What cannot be taken over goes to standard error
/// as before.
pub(super) fn take_over() {
    if OF_THE_USER.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    if let Err(reason) = redirect() {
        tracing::debug!(reason, "the log of the C library stays on standard error");
    }
}

fn redirect() -> Result<(), String> {
    // SAFETY: both arguments are as `dlsym` wants them.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, SET_OUTPUTS.as_ptr()) };
    if symbol.is_null() {
        return Err("this library has no virLogSetOutputs".to_owned());
    }
    // SAFETY: the symbol is a function of the library's, of this type.
    let set_outputs = unsafe { std::mem::transmute::<*mut libc::c_void, SetOutputs>(symbol) };
    let (reader, writer) = pipe().map_err(|error| error.to_string())?;
    // 3 is the level of warnings and errors. The library opens a pipe of its own there.
    let outputs = format!("3:file:/proc/self/fd/{}", writer.as_raw_fd());
    let outputs = CString::new(outputs).map_err(|error| error.to_string())?;
    std::thread::Builder::new()
        .name("atp-libvirt-log".to_owned())
        .spawn(|| follow(reader))
        .map_err(|error| error.to_string())?;
    // SAFETY: the argument is a C string, which the function only reads.
    match unsafe { set_outputs(outputs.as_ptr()) } {
        0.. => Ok(()),
        _ => Err("virLogSetOutputs failed".to_owned()),
    }
}

/// Passes on each line, until the library has closed its end.
fn follow(reader: PipeReader) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        match parse(&String::from_utf8_lossy(&line)) {
            // With an output of its own the library writes each error there that a call returns, also one that is expected.
            Some(("error", text)) => tracing::debug!(target: "libvirt", "{text}"),
            Some((_, text)) => tracing::warn!(target: "libvirt", "{text}"),
            None => {}
        }
        line.clear();
    }
}

/// Level and text of a line `TIME: THREAD: LEVEL : FUNCTION:LINE : TEXT` of a warning or an error; none of the library's head,
/// whose lines are about itself, and of what else is no such line.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (head, rest) = line.trim_end().split_once(" : ")?;
    let level = head.rsplit(' ').next()?;
    let text = rest.split_once(" : ").map_or(rest, |(_, text)| text);
    matches!(level, "warning" | "error").then_some((level, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_level_and_a_text() {
        let line = "2026-01-01 12:00:00.000+0000: 42: warning : virNetTLSContextValidCertificate:1005 : \
                    Certificate check failed: a : b\n";
        assert_eq!(parse(line), Some(("warning", "Certificate check failed: a : b")));
        assert_eq!(parse("2026-01-01 12:00:00.000+0000: 42: info : libvirt version: 9.0.0\n"), None);
        assert_eq!(parse("something else"), None);
        assert_eq!(parse("the rest of a long line : with more : of it"), None);
    }
}
