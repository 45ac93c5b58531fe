//! libvirt's own notice that a connection was closed from outside (`virConnectRegisterCloseCallback`): a lost
//! link is known at once, and not at the next heartbeat.

use std::ffi::{c_int, c_void};

use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt_sys as sys;

/// The notice of one connection, asked for until it is withdrawn.
pub(super) struct CloseNotice {
    closed: CancellationToken,
    registered: bool,
}

impl CloseNotice {
    /// Asks for the notice. Drivers without a wire have none to give, and then it never comes. Blocks.
    pub(super) fn ask(connect: &Connect) -> Self {
        let closed = CancellationToken::new();
        let opaque = Box::into_raw(Box::new(closed.clone())).cast::<c_void>();
        // SAFETY: the connection is open. `on_close` and `free` take the pointer for what it is, a leaked
        // box of a token; libvirt calls `free` once, when it needs it no more.
        let result = unsafe {
            sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free))
        };
        let registered = result == 0;
        if !registered {
            // SAFETY: libvirt did not take the pointer, so nothing else will free it.
            unsafe { free(opaque) };
        }
        CloseNotice { closed, registered }
    }

    /// Is cancelled when the connection has been closed from outside.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Withdraws the request, which holds a reference to the connection: without this it would never be
    /// closed. Blocks.
    pub(super) fn withdraw(&mut self, connect: &Connect) {
        if std::mem::take(&mut self.registered) {
            // SAFETY: the connection is open, and the callback is the one registered on it. An error means
            // that the connection is closed already, and the callback with it.
            let _closed = unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close)) };
        }
    }
}

unsafe extern "C" fn on_close(_connect: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: the pointer comes from `ask` and is not freed while the callback is registered.
    let closed = unsafe { &*opaque.cast::<CancellationToken>() };
    closed.cancel();
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: the pointer comes from `ask`, and this is called once.
    drop(unsafe { Box::from_raw(opaque.cast::<CancellationToken>()) });
}
