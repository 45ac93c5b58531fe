//! A C function that the standard library does not provide.

/// Registers a function to be called when this process exits: on return from `main` and by [`std::process::exit`],
/// not when it is killed.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: atexit(3) keeps the address of a function that exists as long as the process. A panic in it would end
    // the process, which is about to end. The only possible error is a lack of memory for the entry: then the handler
    // is not called.
    unsafe { libc::atexit(handler) };
}
