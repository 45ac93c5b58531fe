//! Handles Ctrl-C and SIGTERM, so that the bed is removed first.
//!
//! A child gets Ctrl-C from the terminal as well and ends, so it is enough that this process does not end.

use std::sync::atomic::{AtomicI32, Ordering};

static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Keeps both signals from ending this process. Children are not affected: a handler does not survive `exec`.
pub(crate) fn defer() {
    extern "C" fn note(signal: libc::c_int) {
        RECEIVED.store(signal, Ordering::Relaxed);
    }
    let handler = note as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// The exit code for the signal that arrived, if any.
pub(crate) fn exit_code() -> Option<u8> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}
