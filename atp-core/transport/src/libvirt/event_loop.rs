//! libvirt's event loop, which keepalive and notices need.
//!
//! It must be registered before the first connection is opened, once in a process, and some thread has to
//! run it for as long as there are connections.

use std::sync::OnceLock;
use std::time::Duration;

/// How long to wait after the loop itself failed before it is run again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Registers the loop and starts its thread, the first time it is called; tells why where that failed.
pub(crate) fn start() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(register).clone()
}

fn register() -> Result<(), String> {
    // The library would print every error on standard error.
    virt::error::clear_error_callback();
    virt::event::event_register_default_impl().map_err(|error| error.message().to_owned())?;
    std::thread::Builder::new()
        .name("atp-events".to_owned())
        .spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::warn!(error = error.message(), "libvirt's event loop failed");
                    std::thread::sleep(PAUSE_AFTER_FAILURE);
                }
            }
        })
        .map(drop)
        .map_err(|error| format!("cannot start the event loop's thread: {error}"))
}
