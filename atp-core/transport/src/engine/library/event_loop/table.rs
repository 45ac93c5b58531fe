//! What libvirt has given the loop to watch: handles of file descriptors, and timers.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::time::Duration;

use tokio::time::Instant;

pub(super) type HandleCallback = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void);
pub(super) type TimeoutCallback = unsafe extern "C" fn(c_int, *mut c_void);
pub(super) type FreeCallback = unsafe extern "C" fn(*mut c_void);

/// Everything that is watched.
#[derive(Default)]
pub(super) struct Table {
    pub(super) last_id: c_int,
    pub(super) handles: HashMap<c_int, Handle>,
    /// The handles of each file descriptor; libvirt may watch one twice, epoll cannot.
    pub(super) watched: HashMap<RawFd, Watched>,
    pub(super) last_generation: u32,
    /// Handles that were lost and whose callbacks have not been called.
    pub(super) lost: Vec<c_int>,
    pub(super) timers: HashMap<c_int, Timer>,
    pub(super) due: BTreeSet<(Instant, c_int)>,
    /// Until when the loop's thread sleeps, if nothing wakes it.
    pub(super) asleep_until: Option<Instant>,
    /// What is out of the table and has not been freed yet.
    pub(super) removed: Vec<Owned>,
}

#[derive(Default)]
pub(super) struct Watched {
    pub(super) handles: Vec<c_int>,
    /// Distinguishes this registration from earlier ones of the same number: an event of a descriptor that was closed since
    /// must not reach the next connection that got the number.
    pub(super) generation: u32,
    /// Whether it was registered with epoll. The kernel takes it out by itself when the descriptor is closed.
    pub(super) registered: bool,
}

pub(super) struct Handle {
    pub(super) fd: RawFd,
    pub(super) events: c_int,
    pub(super) callback: HandleCallback,
    pub(super) owned: Owned,
    pub(super) state: HandleState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandleState {
    /// Its descriptor is watched.
    Watched,
    /// Its descriptor was closed, or cannot be watched any more. It is not among the handles of that number, which may
    /// be another connection's by now.
    Lost,
    /// Lost, and its callback was called. That happens once: what it does then may enable the handle again.
    Reported,
}

pub(super) struct Timer {
    /// None while disabled.
    pub(super) interval: Option<Duration>,
    pub(super) due: Option<Instant>,
    pub(super) callback: TimeoutCallback,
    pub(super) owned: Owned,
}

/// What libvirt gave with a callback, and how to free it.
#[derive(Clone, Copy)]
pub(super) struct Owned {
    pub(super) opaque: *mut c_void,
    pub(super) free: Option<FreeCallback>,
}

// SAFETY: the pointer is never looked into here. libvirt requires of an event loop that it passes it to the
// callbacks on whatever thread the loop runs, and so keeps what is behind it fit for that.
unsafe impl Send for Owned {}

impl Table {
    /// A number that no handle and no timer has.
    pub(super) fn next_id(&mut self) -> c_int {
        loop {
            // Positive, and not one in use: after two thousand million of them they start again.
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.handles.contains_key(&self.last_id) && !self.timers.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// The handles of a file descriptor.
    pub(super) fn handles_of(&self, fd: RawFd) -> Vec<c_int> {
        self.watched.get(&fd).map(|watched| watched.handles.clone()).unwrap_or_default()
    }

    /// Removes a handle; the caller updates epoll, and frees later what belongs to the handle.
    pub(super) fn forget_handle(&mut self, id: c_int) -> Option<Handle> {
        let handle = self.handles.remove(&id)?;
        self.unwatch(handle.fd, id);
        Some(handle)
    }

    /// Stops watching for a handle, which stays until libvirt removes it; the caller updates epoll, and wakes the loop.
    pub(super) fn lose_handle(&mut self, id: c_int) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        handle.state = HandleState::Lost;
        let fd = handle.fd;
        self.unwatch(fd, id);
        self.lost.push(id);
    }

    fn unwatch(&mut self, fd: RawFd, id: c_int) {
        if let Some(watched) = self.watched.get_mut(&fd) {
            watched.handles.retain(|watching| *watching != id);
        }
    }

    /// Sets a timer's next turn, one interval from `now`; returns what is to be called if its turn has come.
    pub(super) fn schedule(&mut self, id: c_int, now: Instant) -> Option<(TimeoutCallback, *mut c_void)> {
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
