//! libvirt's event loop, on epoll.
//!
//! Keepalive and libvirt's own notices need an event loop, registered before the first connection is
//! opened and run by some thread for as long as there are connections. The library's default one polls
//! every connection's socket at each turn and is woken by every call; with many connections that costs
//! more CPU than the calls. With epoll a call costs two system calls and wakes nobody.
//!
//! The contract (`virEventRegisterImpl`): six functions that add, update and remove file handles and timers,
//! callable from any thread, also from within callbacks. Callbacks run on the loop's thread with no lock held. What belongs to
//! a removed handle or timer is freed later, by the loop, never inside `remove`: a callback may be running.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use tokio::time::Instant;
use virt_sys as sys;

/// Handles reported in one turn; those beyond it are reported in the next.
const EVENTS_A_TURN: usize = 256;
/// Stands for the loop's own wake-up in place of a file descriptor, which is never negative.
const WAKE: u64 = u64::MAX;

type HandleCallback = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void);
type TimeoutCallback = unsafe extern "C" fn(c_int, *mut c_void);
type FreeCallback = unsafe extern "C" fn(*mut c_void);

struct EventLoop {
    epoll: OwnedFd,
    wake: OwnedFd,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: c_int,
    handles: HashMap<c_int, Handle>,
    /// The handles of each file descriptor; libvirt may watch one twice, epoll cannot.
    watched: HashMap<RawFd, Watched>,
    last_generation: u32,
    timers: HashMap<c_int, Timer>,
    due: BTreeSet<(Instant, c_int)>,
    /// Until when the loop's thread sleeps, if nothing wakes it.
    asleep_until: Option<Instant>,
    removed: Vec<Owned>,
}

#[derive(Default)]
struct Watched {
    handles: Vec<c_int>,
    /// Tells this registration from earlier ones of the same number: an event of a descriptor that was closed since
    /// must not reach the next connection that got the number.
    generation: u32,
    /// Whether epoll knows of it.
    registered: bool,
}

struct Handle {
    fd: RawFd,
    events: c_int,
    callback: HandleCallback,
    owned: Owned,
}

struct Timer {
    /// None while disabled.
    interval: Option<Duration>,
    due: Option<Instant>,
    callback: TimeoutCallback,
    owned: Owned,
}

/// What libvirt gave with a callback, and how to free it.
#[derive(Clone, Copy)]
struct Owned {
    opaque: *mut c_void,
    free: Option<FreeCallback>,
}

// SAFETY: the pointer is never looked into here. libvirt requires of an event loop that it passes it to the
// callbacks on whatever thread the loop runs, and so keeps what is behind it fit for that.
unsafe impl Send for Owned {}

static LOOP: OnceLock<Result<EventLoop, String>> = OnceLock::new();

/// Registers the loop and starts its thread, the first time it is called; tells why where that failed.
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
    event_loop.add_handle(Handle { fd, events, callback, owned: Owned { opaque, free } })
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

impl EventLoop {
    fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(EventLoop { epoll, wake, table: Mutex::default() })
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(EVENTS_A_TURN);
        loop {
            let timeout = self.fall_asleep();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Only a bad descriptor could cause one, and this one is ours and open.
                Err(error) => tracing::error!(%error, "the event loop cannot wait"),
            }
            self.table().asleep_until = None;
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => self.drain_wake(),
                    data => self.dispatch(data, event.flags),
                }
            }
            self.fire_timers();
            self.free_removed();
        }
    }

    /// How long the loop may sleep, which is for as long as no timer is due.
    fn fall_asleep(&self) -> Option<Timespec> {
        let mut table = self.table();
        let next = table.due.first().map(|(at, _)| *at);
        table.asleep_until = next;
        let wait = next?.saturating_duration_since(Instant::now());
        Some(Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        })
    }

    fn dispatch(&self, data: u64, flags: epoll::EventFlags) {
        let (fd, generation) = ((data as u32).cast_signed(), (data >> 32) as u32);
        let events = to_libvirt(flags);
        let ids = {
            let table = self.table();
            let watched = table.watched.get(&fd).filter(|watched| watched.generation == generation);
            watched.map(|watched| watched.handles.clone()).unwrap_or_default()
        };
        for id in ids {
            // Looked up anew each time: the callback before may have removed it.
            let handle = self.table().handles.get(&id).map(|h| (h.callback, h.events, h.owned.opaque));
            if let Some((callback, wanted, opaque)) = handle
                && wanted != 0
            {
                // SAFETY: libvirt gave function and pointer together, for this call. The pointer is freed
                // only by `free_removed`, on this thread, after this call.
                unsafe { callback(id, fd, events, opaque) };
            }
        }
    }

    fn fire_timers(&self) {
        let now = Instant::now();
        let due: Vec<c_int> = {
            let table = self.table();
            table.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
        };
        for id in due {
            let timer = {
                let mut table = self.table();
                // A callback before may have removed it, disabled it or put it off.
                let still_due = table.timers.get(&id).is_some_and(|t| t.due.is_some_and(|at| at <= now));
                if still_due { table.schedule(id, now) } else { None }
            };
            if let Some((callback, opaque)) = timer {
                // SAFETY: as in `dispatch`.
                unsafe { callback(id, opaque) };
            }
        }
    }

    fn free_removed(&self) {
        let removed = std::mem::take(&mut self.table().removed);
        for Owned { opaque, free } in removed {
            if let Some(free) = free {
                // SAFETY: libvirt gave function and pointer together. The handle or timer is out of the
                // table, and no callback of it is running, since callbacks run on this thread.
                unsafe { free(opaque) };
            }
        }
    }

    fn add_handle(&self, handle: Handle) -> c_int {
        let mut table = self.table();
        let (id, fd) = (table.next_id(), handle.fd);
        table.handles.insert(id, handle);
        table.watched.entry(fd).or_default().handles.push(id);
        if self.register(&mut table, fd).is_err() {
            table.forget_handle(id);
            return -1;
        }
        id
    }

    fn update_handle(&self, id: c_int, events: c_int) {
        let mut table = self.table();
        let Some(handle) = table.handles.get_mut(&id) else { return };
        if handle.events == events {
            return;
        }
        handle.events = events;
        let fd = handle.fd;
        if let Err(error) = self.register(&mut table, fd) {
            tracing::error!(%error, fd, "cannot watch a connection");
        }
    }

    fn remove_handle(&self, id: c_int) -> c_int {
        let mut table = self.table();
        let Some(handle) = table.forget_handle(id) else { return -1 };
        if let Err(error) = self.register(&mut table, handle.fd) {
            tracing::error!(%error, fd = handle.fd, "cannot stop watching a connection");
        }
        table.removed.push(handle.owned);
        drop(table);
        self.wake();
        0
    }

    /// Tells epoll what is wanted of a descriptor now.
    ///
    /// One of which nothing is wanted for a while stays registered, for libvirt disables and enables a connection's
    /// handle around each call, and a change is cheaper than taking it out and putting it in again. epoll reports a
    /// hang-up even then; edge-triggered it does so once, and not again and again.
    fn register(&self, table: &mut Table, fd: RawFd) -> Result<(), Errno> {
        let Some(watched) = table.watched.get_mut(&fd) else { return Ok(()) };
        if !watched.registered && !watched.handles.is_empty() {
            table.last_generation = table.last_generation.wrapping_add(1);
            watched.generation = table.last_generation;
        }
        let events =
            watched.handles.iter().filter_map(|id| table.handles.get(id)).fold(0, |all, h| all | h.events);
        // SAFETY: libvirt keeps the descriptor open from add to remove, and this is called in between; it is
        // not kept beyond this call.
        let source = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = if events == 0 { epoll::EventFlags::ET } else { to_epoll(events) };
        // `WAKE` has no descriptor's number in its lower half.
        let data = u64::from(watched.generation) << 32 | u64::from(fd.cast_unsigned());
        let data = epoll::EventData::new_u64(data);
        match (watched.registered, watched.handles.is_empty()) {
            (true, false) => epoll::modify(&self.epoll, source, data, flags)?,
            (false, false) => epoll::add(&self.epoll, source, data, flags)?,
            (true, true) => epoll::delete(&self.epoll, source)?,
            (false, true) => {}
        }
        watched.registered = !watched.handles.is_empty();
        if !watched.registered {
            table.watched.remove(&fd);
        }
        Ok(())
    }

    fn add_timer(&self, milliseconds: c_int, callback: TimeoutCallback, owned: Owned) -> c_int {
        let mut table = self.table();
        let id = table.next_id();
        table.timers.insert(id, Timer { interval: None, due: None, callback, owned });
        self.set_timer(table, id, milliseconds);
        id
    }

    fn update_timer(&self, id: c_int, milliseconds: c_int) {
        self.set_timer(self.table(), id, milliseconds);
    }

    fn set_timer(&self, mut table: MutexGuard<'_, Table>, id: c_int, milliseconds: c_int) {
        let Some(timer) = table.timers.get_mut(&id) else { return };
        // Negative means disabled, zero means at every turn.
        timer.interval = u64::try_from(milliseconds).ok().map(Duration::from_millis);
        table.schedule(id, Instant::now());
        let sooner = match (table.due.first(), table.asleep_until) {
            (Some((next, _)), Some(until)) => *next < until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        drop(table);
        if sooner {
            self.wake();
        }
    }

    fn remove_timer(&self, id: c_int) -> c_int {
        let mut table = self.table();
        let Some(timer) = table.timers.remove(&id) else { return -1 };
        if let Some(at) = timer.due {
            table.due.remove(&(at, id));
        }
        table.removed.push(timer.owned);
        drop(table);
        self.wake();
        0
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the loop is about to wake anyway.
        let _full = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn drain_wake(&self) {
        let _empty = rustix::io::read(self.wake.as_fd(), &mut [0u8; 8]);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing of libvirt's runs under this lock, and a panic cannot leave it half-changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next_id(&mut self) -> c_int {
        loop {
            // Positive, and not one in use: after two thousand million of them they start again.
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.handles.contains_key(&self.last_id) && !self.timers.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn forget_handle(&mut self, id: c_int) -> Option<Handle> {
        let handle = self.handles.remove(&id)?;
        if let Some(watched) = self.watched.get_mut(&handle.fd) {
            watched.handles.retain(|watching| *watching != id);
        }
        Some(handle)
    }

    /// Sets a timer's next turn, one interval from `now`.
    fn schedule(&mut self, id: c_int, now: Instant) -> Option<(TimeoutCallback, *mut c_void)> {
        let timer = self.timers.get_mut(&id)?;
        if let Some(at) = timer.due.take() {
            self.due.remove(&(at, id));
        }
        if let Some(interval) = timer.interval {
            timer.due = Some(now + interval);
            self.due.insert((now + interval, id));
        }
        Some((timer.callback, timer.owned.opaque))
    }
}

fn to_epoll(events: c_int) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, events & sys::VIR_EVENT_HANDLE_READABLE as c_int != 0);
    flags.set(epoll::EventFlags::OUT, events & sys::VIR_EVENT_HANDLE_WRITABLE as c_int != 0);
    flags.set(epoll::EventFlags::ERR, events & sys::VIR_EVENT_HANDLE_ERROR as c_int != 0);
    flags.set(epoll::EventFlags::HUP, events & sys::VIR_EVENT_HANDLE_HANGUP as c_int != 0);
    flags
}

fn to_libvirt(flags: epoll::EventFlags) -> c_int {
    let mut events = 0;
    for (flag, event) in [
        (epoll::EventFlags::IN, sys::VIR_EVENT_HANDLE_READABLE),
        (epoll::EventFlags::OUT, sys::VIR_EVENT_HANDLE_WRITABLE),
        (epoll::EventFlags::ERR, sys::VIR_EVENT_HANDLE_ERROR),
        (epoll::EventFlags::HUP, sys::VIR_EVENT_HANDLE_HANGUP),
    ] {
        if flags.contains(flag) {
            events |= event as c_int;
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Write, pipe};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
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

    /// Waits until the loop has gone on: a callback that was running then is over.
    fn turn() {
        let (opaque, notices) = notices();
        // SAFETY: the functions match the pointer, which lives until `on_free`.
        let id = unsafe { sys::virEventAddTimeout(0, Some(on_timer), opaque, Some(on_free)) };
        assert_eq!(notices.recv_timeout(PATIENCE).unwrap(), Notice::Timer);
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
        assert_eq!(notices.recv_timeout(PATIENCE).unwrap(), Notice::Event(readable));
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
            assert!(matches!(notices.recv_timeout(PATIENCE).unwrap(), Notice::Event(_)));
            assert_eq!(sys::virEventRemoveHandle(id), 0);
            while notices.recv_timeout(PATIENCE).unwrap() != Notice::Freed {}
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
            assert!(matches!(notices.recv_timeout(PATIENCE).unwrap(), Notice::Event(_)));
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
                assert_eq!(notices.recv_timeout(PATIENCE).unwrap(), Notice::Timer);
            }
            sys::virEventUpdateTimeout(id, -1);
            turn();
            while notices.try_recv().is_ok() {}
            assert_eq!(notices.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
            assert_eq!(sys::virEventRemoveTimeout(id), 0);
            assert_eq!(notices.recv_timeout(PATIENCE).unwrap(), Notice::Freed);
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
}
