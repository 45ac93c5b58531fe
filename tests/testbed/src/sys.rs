//! The two C functions that the standard library has no name for.

use std::io;

/// Sends a signal to one process.
pub(crate) fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0);
    // 0 and negative numbers mean groups of processes.
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a function called when this process exits: on return from `main` and by [`std::process::exit`], not when it
/// is killed.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: atexit(3) keeps the address of a function that is there as long as the process. A panic in it would
    // end the process, which is about to end. That there is no memory for the entry is all that can go wrong: then
    // the handler is not called.
    unsafe { libc::atexit(handler) };
}
