//! Two C functions that the standard library does not provide.

use std::io;

/// Sends a signal to one process.
pub(crate) fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0);
    // 0 and negative numbers address groups of processes.
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill(2) takes two integers and accesses no memory of this process.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Registers a function to be called when this process exits: on return from `main` and by [`std::process::exit`],
/// not when it is killed.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: atexit(3) keeps the address of a function that exists as long as the process. A panic in it would end
    // the process, which is about to end. The only possible error is a lack of memory for the entry: then the handler
    // is not called.
    unsafe { libc::atexit(handler) };
}
