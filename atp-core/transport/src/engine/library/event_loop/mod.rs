//! libvirt's event loop, on epoll.
//!
//! Keepalive and libvirt's own notices need an event loop, registered before the first connection is
//! opened and run by some thread for as long as there are connections. The library's default one polls
//! every connection's socket at each turn and is woken by every call; with many connections that costs
//! more CPU than the calls. With epoll a call costs two system calls and no wake-up.
//!
//! The contract (`virEventRegisterImpl`): six functions that add, update and remove file handles and timers,
//! callable from any thread, also from within callbacks. Callbacks run on the loop's thread with no lock held. What belongs to
//! a removed handle or timer is freed later, by the loop, never inside `remove`: a callback may be running.

mod run;
mod table;

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use virt_sys as sys;

use run::EventLoop;
use table::{Handle, HandleState, Owned};

static LOOP: OnceLock<Result<EventLoop, String>> = OnceLock::new();

/// Registers the loop and starts its thread, at the first call.
///
/// # Errors
/// Why that failed, at every call.
///
/// A program that has registered an event loop of its own before keeps it, and has to run it.
pub(crate) fn start() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(register).clone()
}

fn register() -> Result<(), String> {
    // The library would print every error on standard error.
    virt::error::clear_error_callback();
    let event_loop = LOOP.get_or_init(|| EventLoop::new().map_err(|error| format!("no event loop: {error}")));
    let event_loop = event_loop.as_ref().map_err(Clone::clone)?;
    std::thread::Builder::new()
        .name("atp-events".to_owned())
        .spawn(|| event_loop.run())
        .map_err(|error| format!("cannot start the event loop's thread: {error}"))?;
    // SAFETY: the six functions keep the contract in this module's head, and live as long as the process.
    unsafe {
        sys::virEventRegisterImpl(
            Some(add_handle),
            Some(update_handle),
            Some(remove_handle),
            Some(add_timeout),
            Some(update_timeout),
            Some(remove_timeout),
        );
    }
    Ok(())
}

fn registered() -> Option<&'static EventLoop> {
    LOOP.get()?.as_ref().ok()
}

unsafe extern "C" fn add_handle(
    fd: c_int,
    events: c_int,
    callback: sys::virEventHandleCallback,
    opaque: *mut c_void,
    free: sys::virFreeCallback,
) -> c_int {
    let (Some(event_loop), Some(callback)) = (registered(), callback) else { return -1 };
    if fd < 0 {
        return -1;
    }
    let (owned, state) = (Owned { opaque, free }, HandleState::Watched);
    event_loop.add_handle(Handle { fd, events, callback, owned, state })
}

unsafe extern "C" fn update_handle(id: c_int, events: c_int) {
    if let Some(event_loop) = registered() {
        event_loop.update_handle(id, events);
    }
}

unsafe extern "C" fn remove_handle(id: c_int) -> c_int {
    registered().map_or(-1, |event_loop| event_loop.remove_handle(id))
}

unsafe extern "C" fn add_timeout(
    milliseconds: c_int,
    callback: sys::virEventTimeoutCallback,
    opaque: *mut c_void,
    free: sys::virFreeCallback,
) -> c_int {
    let (Some(event_loop), Some(callback)) = (registered(), callback) else { return -1 };
    event_loop.add_timer(milliseconds, callback, Owned { opaque, free })
}

unsafe extern "C" fn update_timeout(id: c_int, milliseconds: c_int) {
    if let Some(event_loop) = registered() {
        event_loop.update_timer(id, milliseconds);
    }
}

unsafe extern "C" fn remove_timeout(id: c_int) -> c_int {
    registered().map_or(-1, |event_loop| event_loop.remove_timer(id))
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Write, pipe};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use std::time::Duration;

    use rustix::io::{dup2, fcntl_dupfd_cloexec};

    use super::*;

    const WAIT_LIMIT: Duration = Duration::from_secs(30);
    const A_WHILE: Duration = Duration::from_millis(50);

    #[derive(Debug, PartialEq)]
    enum Notice {
        Event(c_int),
        Timer,
        Freed,
    }

    unsafe extern "C" fn on_event(_id: c_int, _fd: c_int, events: c_int, opaque: *mut c_void) {
        // SAFETY: the tests pass a leaked sender.
        let sender = unsafe { &*opaque.cast::<Sender<Notice>>() };
        let _gone = sender.send(Notice::Event(events));
    }

    unsafe extern "C" fn on_timer(_id: c_int, opaque: *mut c_void) {
        // SAFETY: as above.
        let sender = unsafe { &*opaque.cast::<Sender<Notice>>() };
        let _gone = sender.send(Notice::Timer);
    }

    unsafe extern "C" fn on_free(opaque: *mut c_void) {
        // SAFETY: as above; the loop frees it once.
        let sender = unsafe { Box::from_raw(opaque.cast::<Sender<Notice>>()) };
        let _gone = sender.send(Notice::Freed);
    }

    fn notices() -> (*mut c_void, Receiver<Notice>) {
        start().unwrap();
        let (sender, receiver) = channel();
        (Box::into_raw(Box::new(sender)).cast(), receiver)
    }

    fn watch(fd: c_int, opaque: *mut c_void) -> c_int {
        let readable = sys::VIR_EVENT_HANDLE_READABLE as c_int;
        // SAFETY: the functions match the pointer, which lives until `on_free`.
        unsafe { sys::virEventAddHandle(fd, readable, Some(on_event), opaque, Some(on_free)) }
    }

    /// Waits until a whole turn of the loop is over: the first timer may fire in the middle of one.
    fn whole_turn() {
        turn();
        turn();
    }

    /// Waits until the loop has gone on: a callback that was running then is over.
    fn turn() {
        let (opaque, notices) = notices();
        // SAFETY: the functions match the pointer, which lives until `on_free`.
        let id = unsafe { sys::virEventAddTimeout(0, Some(on_timer), opaque, Some(on_free)) };
        assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Timer);
        // SAFETY: a plain call of the registered loop.
        assert_eq!(unsafe { sys::virEventRemoveTimeout(id) }, 0);
    }

    fn pair() -> (PipeReader, PipeWriter) {
        pipe().unwrap()
    }

    #[test]
    fn a_handle_reports_until_it_is_updated_or_removed() {
        let (opaque, notices) = notices();
        let (reader, mut writer) = pair();
        let id = watch(reader.as_raw_fd(), opaque);
        writer.write_all(b"x").unwrap();
        let readable = sys::VIR_EVENT_HANDLE_READABLE as c_int;
        assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(readable));
        // SAFETY: plain calls of the registered loop.
        unsafe {
            sys::virEventUpdateHandle(id, 0);
            turn();
            while notices.try_recv().is_ok() {}
            // Disabled, it does not even report that the other end is gone.
            drop(writer);
            assert_eq!(notices.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
            // Enabled again it does, though that happened before.
            sys::virEventUpdateHandle(id, readable);
            assert!(matches!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(_)));
            assert_eq!(sys::virEventRemoveHandle(id), 0);
            while notices.recv_timeout(WAIT_LIMIT).unwrap() != Notice::Freed {}
            assert_eq!(sys::virEventRemoveHandle(id), -1);
        }
    }

    #[test]
    fn one_descriptor_can_be_watched_twice() {
        let (reader, mut writer) = pair();
        let (first, second) = (notices(), notices());
        let ids = [watch(reader.as_raw_fd(), first.0), watch(reader.as_raw_fd(), second.0)];
        writer.write_all(b"x").unwrap();
        for (_, notices) in [&first, &second] {
            assert!(matches!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(_)));
        }
        for id in ids {
            // SAFETY: a plain call of the registered loop.
            assert_eq!(unsafe { sys::virEventRemoveHandle(id) }, 0);
        }
    }

    #[test]
    fn a_timer_repeats_until_it_is_disabled() {
        let (opaque, notices) = notices();
        // SAFETY: the functions match the pointer, which lives until `on_free`.
        unsafe {
            let id = sys::virEventAddTimeout(-1, Some(on_timer), opaque, Some(on_free));
            assert_eq!(notices.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
            sys::virEventUpdateTimeout(id, 1);
            for _ in 0..3 {
                assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Timer);
            }
            sys::virEventUpdateTimeout(id, -1);
            turn();
            while notices.try_recv().is_ok() {}
            assert_eq!(notices.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
            assert_eq!(sys::virEventRemoveTimeout(id), 0);
            assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Freed);
        }
    }

    #[test]
    fn what_epoll_cannot_watch_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let (opaque, notices) = notices();
        assert_eq!(watch(file.as_raw_fd(), opaque), -1);
        assert_eq!(notices.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
        // SAFETY: refused, so the pointer is still ours.
        drop(unsafe { Box::from_raw(opaque.cast::<Sender<Notice>>()) });
    }

    const READABLE: c_int = sys::VIR_EVENT_HANDLE_READABLE as c_int;
    const LOST: c_int = (sys::VIR_EVENT_HANDLE_ERROR | sys::VIR_EVENT_HANDLE_HANGUP) as c_int;

    /// Gives a file a number from `first` on. Other tests open files meanwhile and get low numbers, so a number that is
    /// closed here stays closed.
    fn numbered(first: c_int, file: &PipeReader) -> OwnedFd {
        fcntl_dupfd_cloexec(file, first).unwrap()
    }

    #[test]
    fn a_number_that_is_another_file_now_is_watched_again() {
        let (opaque, notices) = notices();
        let (first, _first_writer) = pair();
        let (second, mut writer) = pair();
        let mut fd = numbered(500, &first);
        drop(first);
        let id = watch(fd.as_raw_fd(), opaque);
        dup2(&second, &mut fd).unwrap();
        writer.write_all(b"x").unwrap();
        // SAFETY: plain calls of the registered loop.
        unsafe {
            sys::virEventUpdateHandle(id, 0);
            sys::virEventUpdateHandle(id, READABLE);
            assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(READABLE));
            assert_eq!(sys::virEventRemoveHandle(id), 0);
        }
        while notices.recv_timeout(WAIT_LIMIT).unwrap() != Notice::Freed {}
    }

    #[test]
    fn a_descriptor_that_is_closed_before_its_handle_is_removed_leaves_nothing_behind() {
        let old = notices();
        let (first, _first_writer) = pair();
        let fd = numbered(520, &first);
        drop(first);
        let (number, id) = (fd.as_raw_fd(), watch(fd.as_raw_fd(), old.0));
        drop(fd);
        // SAFETY: a plain call of the registered loop.
        assert_eq!(unsafe { sys::virEventRemoveHandle(id) }, 0);
        assert_eq!(old.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Freed);

        let new = notices();
        let (second, mut writer) = pair();
        let fd = numbered(number, &second);
        assert_eq!(fd.as_raw_fd(), number);
        let id = watch(number, new.0);
        assert!(id > 0, "the next connection that got the number is not watched");
        writer.write_all(b"x").unwrap();
        assert_eq!(new.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(READABLE));
        // SAFETY: a plain call of the registered loop.
        assert_eq!(unsafe { sys::virEventRemoveHandle(id) }, 0);
    }

    #[test]
    fn a_closed_descriptor_is_an_error_that_is_reported_once() {
        let (opaque, notices) = notices();
        let (reader, mut writer) = pair();
        let fd = numbered(540, &reader);
        let (number, id) = (fd.as_raw_fd(), watch(fd.as_raw_fd(), opaque));
        drop(fd);
        // SAFETY: plain calls of the registered loop.
        unsafe {
            sys::virEventUpdateHandle(id, 0);
            whole_turn();
            assert!(notices.try_recv().is_err(), "reported while it is disabled");
            for _ in 0..3 {
                sys::virEventUpdateHandle(id, READABLE);
                whole_turn();
                sys::virEventUpdateHandle(id, 0);
            }
            assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(LOST));
            assert!(notices.try_recv().is_err(), "reported again");

            // `reader` keeps the file open, so that epoll still has it under this number, and the table has not.
            let new = self::notices();
            let fd = numbered(number, &reader);
            assert_eq!(fd.as_raw_fd(), number);
            let new_id = watch(number, new.0);
            assert!(new_id > 0, "what epoll has already is not taken over");
            writer.write_all(b"x").unwrap();
            assert_eq!(new.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(READABLE));
            assert_eq!(sys::virEventRemoveHandle(new_id), 0);

            assert_eq!(sys::virEventRemoveHandle(id), 0);
        }
        assert_eq!(notices.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Freed);
    }

    #[test]
    fn events_of_a_new_connection_do_not_reach_the_one_that_had_its_number() {
        let (old, new) = (notices(), notices());
        let (first, _first_writer) = pair();
        let (second, mut writer) = pair();
        let mut fd = numbered(560, &first);
        drop(first);
        let old_id = watch(fd.as_raw_fd(), old.0);
        dup2(&second, &mut fd).unwrap();
        let new_id = watch(fd.as_raw_fd(), new.0);
        assert!(new_id > 0);
        assert_eq!(old.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(LOST));
        writer.write_all(b"x").unwrap();
        assert_eq!(new.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(READABLE));
        // SAFETY: plain calls of the registered loop.
        unsafe {
            assert_eq!(sys::virEventRemoveHandle(old_id), 0);
            assert_eq!(old.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Freed);
            while new.1.try_recv().is_ok() {}
            assert_eq!(new.1.recv_timeout(WAIT_LIMIT).unwrap(), Notice::Event(READABLE));
            assert_eq!(sys::virEventRemoveHandle(new_id), 0);
        }
    }
}
