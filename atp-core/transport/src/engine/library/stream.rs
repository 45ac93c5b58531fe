//! The stream of an open channel or console: libvirt reports what came in, and it is read at once.
//!
//! The stream does not block, and a callback (`virStreamEventAddCallback`) reads it on the event loop's thread.
//! libvirt's client takes in whatever the daemon sends, without a bound, so what came must not be left there:
//! it goes to an [`Inbox`], which has one.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::stream::Stream;
use virt_sys as sys;

use crate::engine::{ByteDevice, Inbox};
use crate::error::LibvirtError;

/// One read of the callback; the thread's stack holds it.
const READ_BYTES: usize = 32 * 1024;
/// What `virStreamRecv` returns of a stream that has nothing at the moment.
const WOULD_BLOCK: c_int = -2;

/// The stream of one channel; ends it when dropped, which blocks.
pub(super) struct ChannelStream {
    stream: Stream,
}

type Opaque = Arc<dyn Inbox>;

impl ChannelStream {
    /// Opens a domain's channel or console (`virDomainOpenChannel`, `virDomainOpenConsole`). Blocks.
    pub(super) fn open(
        connect: &Connect,
        domain: &Domain,
        device: &ByteDevice,
        force: bool,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Self, Error> {
        let stream = ChannelStream { stream: Stream::new(connect, sys::VIR_STREAM_NONBLOCK)? };
        match device {
            ByteDevice::Channel(name) => {
                let flags = if force { sys::VIR_DOMAIN_CHANNEL_FORCE } else { 0 };
                domain.open_channel(Some(name), &stream.stream, flags)?;
            }
            ByteDevice::Console(alias) => {
                let flags = if force { sys::VIR_DOMAIN_CONSOLE_FORCE } else { 0 };
                domain.open_console(alias.as_deref(), &stream.stream, flags)?;
            }
        }
        stream.watch(inbox)?;
        Ok(stream)
    }

    fn watch(&self, inbox: Opaque) -> Result<(), Error> {
        let events =
            sys::VIR_STREAM_EVENT_READABLE | sys::VIR_STREAM_EVENT_ERROR | sys::VIR_STREAM_EVENT_HANGUP;
        let opaque = Box::into_raw(Box::new(inbox)).cast::<c_void>();
        // SAFETY: the stream is open. `on_event` and `free` take the pointer for what it is, a leaked box of an
        // inbox; libvirt calls `free` once, when it needs it no more.
        let result = unsafe {
            sys::virStreamEventAddCallback(
                self.stream.as_ptr(),
                events as c_int,
                Some(on_event),
                opaque,
                Some(free),
            )
        };
        if result < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt did not take the pointer, so nothing else will free it.
            unsafe { free(opaque) };
            return Err(error);
        }
        Ok(())
    }

    /// Sends all of it. Blocks for as long as the daemon takes nothing.
    pub(super) fn send_all(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            // Over a wire a stream takes what it is given, blocking or not.
            let sent = usize::try_from(self.stream.send(bytes)?).unwrap_or(0);
            bytes = &bytes[sent.min(bytes.len())..];
        }
        Ok(())
    }

    /// Ends the stream when all that was sent has arrived at the daemon; nothing is read any more. Blocks.
    pub(super) fn finish(&self) -> Result<(), Error> {
        // A stream that has ended does not find its callback any more.
        self.stream.event_remove_callback()?;
        self.stream.clone().finish()
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        // Errors mean that there is no callback, or that the stream is over already.
        let _none = self.stream.event_remove_callback();
        let _over = self.stream.clone().abort();
    }
}

unsafe extern "C" fn on_event(stream: sys::virStreamPtr, events: c_int, opaque: *mut c_void) {
    // SAFETY: the pointer comes from `watch` and is not freed while the callback is there.
    let inbox = unsafe { &*opaque.cast::<Opaque>() };
    let mut chunk = [0u8; READ_BYTES];
    loop {
        // SAFETY: libvirt lends the stream for the call; the buffer is as long as it is said to be.
        let read = unsafe { sys::virStreamRecv(stream, chunk.as_mut_ptr().cast::<c_char>(), READ_BYTES) };
        let gone = events & (sys::VIR_STREAM_EVENT_ERROR | sys::VIR_STREAM_EVENT_HANGUP) as c_int != 0;
        match read {
            1.. if inbox.take(&chunk[..read as usize]) => continue,
            1.. => {}
            WOULD_BLOCK if !gone => return,
            WOULD_BLOCK | 0 => inbox.ended(None),
            _ => inbox.ended(Some(LibvirtError::from(&Error::last_error()))),
        }
        // SAFETY: as above. Without this an ended stream would be reported again and again; it is taken down
        // later, on a thread that may block.
        let _over = unsafe { sys::virStreamEventUpdateCallback(stream, 0) };
        return;
    }
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: the pointer comes from `watch`, and this is called once.
    drop(unsafe { Box::from_raw(opaque.cast::<Opaque>()) });
}
