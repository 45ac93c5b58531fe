//! The loop: waits for what is watched, and calls back.

use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use tokio::time::Instant;
use virt_sys as sys;

use super::table::{Handle, HandleState, Owned, Table, TimeoutCallback, Timer};

/// Handles reported in one turn; those beyond it are reported in the next.
const EVENTS_A_TURN: usize = 256;
/// Stands for the loop's own wake-up in place of a file descriptor, which is never negative.
const WAKE: u64 = u64::MAX;

/// How epoll knew a descriptor when its interest was set.
enum Registered {
    AsBefore,
    /// It was not registered: it is new, or its number was another file's before.
    Anew,
}

pub(super) struct EventLoop {
    epoll: OwnedFd,
    wake: OwnedFd,
    /// Nothing of libvirt's runs under this lock.
    table: Mutex<Table>,
}

impl EventLoop {
    pub(super) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(EventLoop { epoll, wake, table: Mutex::default() })
    }

    pub(super) fn run(&self) {
        let mut events = Vec::with_capacity(EVENTS_A_TURN);
        loop {
            let timeout = self.fall_asleep();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Only a bad descriptor could cause one, and this one is ours and open.
                Err(error) => tracing::error!(%error, "the event loop cannot wait"),
            }
            self.table.lock().asleep_until = None;
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => self.drain_wake(),
                    data => self.dispatch(data, event.flags),
                }
            }
            self.report_lost();
            self.fire_timers();
            self.free_removed();
        }
    }

    /// How long the loop may sleep, which is for as long as no timer is due.
    fn fall_asleep(&self) -> Option<Timespec> {
        let mut table = self.table.lock();
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
            let table = self.table.lock();
            let watched = table.watched.get(&fd).filter(|watched| watched.generation == generation);
            watched.map(|watched| watched.handles.clone()).unwrap_or_default()
        };
        for id in ids {
            // Looked up anew each time: the callback before may have removed it.
            let handle = self.table.lock().handles.get(&id).map(|h| (h.callback, h.events, h.owned.opaque));
            if let Some((callback, wanted, opaque)) = handle
                && wanted != 0
            {
                // SAFETY: libvirt gave function and pointer together, for this call. The pointer is freed
                // only by `free_removed`, on this thread, after this call.
                unsafe { callback(id, fd, events, opaque) };
            }
        }
    }

    /// Calls the callbacks of lost handles, as libvirt's default loop does for a descriptor that is not open: with an
    /// error. The callback of a disabled handle is called when the handle is enabled again.
    fn report_lost(&self) {
        let lost = std::mem::take(&mut self.table.lock().lost);
        for id in lost {
            let handle = {
                let mut table = self.table.lock();
                // A callback before may have removed it or disabled it.
                let due = |h: &&mut Handle| h.state == HandleState::Lost && h.events != 0;
                table.handles.get_mut(&id).filter(due).map(|handle| {
                    handle.state = HandleState::Reported;
                    (handle.callback, handle.fd, handle.owned.opaque)
                })
            };
            if let Some((callback, fd, opaque)) = handle {
                let events = to_libvirt(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                // SAFETY: as in `dispatch`.
                unsafe { callback(id, fd, events, opaque) };
            }
        }
    }

    fn fire_timers(&self) {
        let now = Instant::now();
        let due: Vec<c_int> = {
            let table = self.table.lock();
            table.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
        };
        for id in due {
            let timer = {
                let mut table = self.table.lock();
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
        let removed = std::mem::take(&mut self.table.lock().removed);
        for Owned { opaque, free } in removed {
            if let Some(free) = free {
                // SAFETY: libvirt gave function and pointer together. The handle or timer is out of the
                // table, and no callback of it is running, since callbacks run on this thread.
                unsafe { free(opaque) };
            }
        }
    }

    pub(super) fn add_handle(&self, handle: Handle) -> c_int {
        let mut table = self.table.lock();
        let (id, fd) = (table.next_id(), handle.fd);
        table.handles.insert(id, handle);
        table.watched.entry(fd).or_default().handles.push(id);
        match self.register(&mut table, fd) {
            Ok(Registered::AsBefore) => {}
            Ok(Registered::Anew) => {
                // Other handles of the number are of a descriptor that was closed. They must not get the events of
                // this one.
                let mut others = table.handles_of(fd);
                others.retain(|other| *other != id);
                if !others.is_empty() {
                    self.lose(&mut table, others);
                    self.refresh(&mut table, fd);
                }
            }
            Err(_) => {
                table.forget_handle(id);
                self.refresh(&mut table, fd);
                return -1;
            }
        }
        id
    }

    pub(super) fn update_handle(&self, id: c_int, events: c_int) {
        let mut table = self.table.lock();
        let Some(handle) = table.handles.get_mut(&id) else { return };
        if handle.events == events {
            return;
        }
        handle.events = events;
        let (fd, state) = (handle.fd, handle.state);
        match state {
            HandleState::Watched => self.refresh(&mut table, fd),
            HandleState::Lost => self.lose(&mut table, vec![id]),
            HandleState::Reported => {}
        }
    }

    pub(super) fn remove_handle(&self, id: c_int) -> c_int {
        let mut table = self.table.lock();
        let Some(handle) = table.forget_handle(id) else { return -1 };
        self.refresh(&mut table, handle.fd);
        table.removed.push(handle.owned);
        drop(table);
        self.wake();
        0
    }

    /// Sets epoll's interest in a descriptor. If that fails, the handles of the descriptor are lost.
    fn refresh(&self, table: &mut Table, fd: RawFd) {
        let Err(error) = self.register(table, fd) else { return };
        tracing::error!(%error, fd, "cannot watch a connection any more; its failure is reported to libvirt");
        let handles = table.handles_of(fd);
        self.lose(table, handles);
        // None of them is left, and so nothing is registered.
        let _unwatched = self.register(table, fd);
    }

    /// Marks handles as lost; the loop calls their callbacks.
    fn lose(&self, table: &mut Table, handles: Vec<c_int>) {
        handles.into_iter().for_each(|id| table.lose_handle(id));
        self.wake();
    }

    /// Sets epoll's interest in a descriptor.
    ///
    /// One of which nothing is wanted for a while stays registered, for libvirt disables and enables a connection's
    /// handle around each call, and a change is cheaper than taking it out and putting it in again. epoll reports a
    /// hang-up even then; edge-triggered it does so once, and not again and again.
    ///
    /// What epoll has can differ from the table: a descriptor that was closed before libvirt removed its handle is
    /// gone from epoll, and its number may be another file's.
    fn register(&self, table: &mut Table, fd: RawFd) -> Result<Registered, Errno> {
        let Some(watched) = table.watched.get_mut(&fd) else { return Ok(Registered::AsBefore) };
        // SAFETY: libvirt keeps the descriptor open from add to remove, and this is called in between; it is
        // not kept beyond this call. Should it be closed all the same, the number is passed to `epoll_ctl` alone,
        // which fails.
        let source = unsafe { BorrowedFd::borrow_raw(fd) };
        if watched.handles.is_empty() {
            table.watched.remove(&fd);
            if let Err(error) = epoll::delete(&self.epoll, source) {
                // Whatever the error, epoll does not have the file that has this number now.
                tracing::debug!(%error, fd, "a descriptor was no longer watched");
            }
            return Ok(Registered::AsBefore);
        }
        let events =
            watched.handles.iter().filter_map(|id| table.handles.get(id)).fold(0, |all, h| all | h.events);
        let flags = if events == 0 { epoll::EventFlags::ET } else { to_epoll(events) };
        // `WAKE` has no descriptor's number in its lower half.
        let data = |generation: u32| {
            epoll::EventData::new_u64(u64::from(generation) << 32 | u64::from(fd.cast_unsigned()))
        };
        if watched.registered {
            match epoll::modify(&self.epoll, source, data(watched.generation), flags) {
                Err(Errno::NOENT) => {}
                modified => return modified.map(|()| Registered::AsBefore),
            }
        }
        table.last_generation = table.last_generation.wrapping_add(1);
        watched.generation = table.last_generation;
        match epoll::add(&self.epoll, source, data(watched.generation), flags) {
            Err(Errno::EXIST) => epoll::modify(&self.epoll, source, data(watched.generation), flags)?,
            added => added?,
        }
        watched.registered = true;
        Ok(Registered::Anew)
    }

    pub(super) fn add_timer(&self, milliseconds: c_int, callback: TimeoutCallback, owned: Owned) -> c_int {
        let mut table = self.table.lock();
        let id = table.next_id();
        table.timers.insert(id, Timer { interval: None, due: None, callback, owned });
        self.set_timer(table, id, milliseconds);
        id
    }

    pub(super) fn update_timer(&self, id: c_int, milliseconds: c_int) {
        self.set_timer(self.table.lock(), id, milliseconds);
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

    pub(super) fn remove_timer(&self, id: c_int) -> c_int {
        let mut table = self.table.lock();
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
