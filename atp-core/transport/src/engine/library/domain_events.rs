//! Domain events as libvirt calls us with them (`virConnectDomainEventRegisterAny`,
//! `virConnectDomainQemuMonitorEventRegister`), for all domains of a connection.
//!
//! The callbacks run on the event loop's thread. They copy what they are given and hand it on; the domain's name
//! and UUID are in the handle libvirt lends them, so that nothing is asked of the daemon there.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_void};
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

use crate::domain::event_words as words;
use crate::domain::{DomainEvent, DomainEventKind};
use crate::engine::EventSink;

/// What was asked for on one connection, until it is withdrawn: it holds a reference to the connection, which
/// would never be closed otherwise.
#[derive(Default)]
pub(super) struct Registration {
    callbacks: Vec<c_int>,
    monitor: Option<c_int>,
}

type Opaque = Arc<dyn EventSink>;
/// What `virConnectDomainEventRegisterAny` takes, whatever the event.
type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

impl Registration {
    /// Asks for all kinds of events, with `monitor` also for those of QEMU's monitors. A kind that the daemon
    /// does not know never comes. Blocks.
    ///
    /// # Errors
    /// Not even changes of state are to be had.
    pub(super) fn ask(connect: &Connect, sink: &Opaque, monitor: bool) -> Result<Self, Error> {
        // SAFETY: libvirt calls a callback with the arguments that belong to its event, whatever type it is
        // registered as; each of these has the signature of the event it stands beside, a generic one that has
        // no arguments of its own included.
        let callbacks: [(sys::virDomainEventID, Generic); 9] = unsafe {
            [
                (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, generic(on_lifecycle as *const c_void)),
                (sys::VIR_DOMAIN_EVENT_ID_REBOOT, on_reboot),
                (sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, generic(on_agent as *const c_void)),
                (sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, generic(on_block_job as *const c_void)),
                (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, generic(on_device_added as *const c_void)),
                (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, generic(on_device_removed as *const c_void)),
                (
                    sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
                    generic(on_device_removal_failed as *const c_void),
                ),
                (sys::VIR_DOMAIN_EVENT_ID_WATCHDOG, generic(on_watchdog as *const c_void)),
                (sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, generic(on_io_error as *const c_void)),
            ]
        };
        let mut registration = Registration::default();
        for (event, callback) in callbacks {
            match register(sink, |opaque| {
                // SAFETY: the connection is open; no domain means all of them; the callback takes the pointer for
                // what it is, and libvirt calls `free` once, when it needs it no more.
                unsafe {
                    sys::virConnectDomainEventRegisterAny(
                        connect.as_ptr(),
                        null_mut(),
                        event as c_int,
                        Some(callback),
                        opaque,
                        Some(free),
                    )
                }
            }) {
                Ok(id) => registration.callbacks.push(id),
                Err(error) if registration.callbacks.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(event, error = error.message(), "the daemon does not send some events");
                }
            }
        }
        if monitor {
            let asked = register(sink, |opaque| {
                // SAFETY: as above; no name means all events.
                unsafe {
                    sys::virConnectDomainQemuMonitorEventRegister(
                        connect.as_ptr(),
                        null_mut(),
                        null(),
                        Some(on_monitor),
                        opaque,
                        Some(free),
                        0,
                    )
                }
            });
            match asked {
                Ok(id) => registration.monitor = Some(id),
                Err(error) => {
                    tracing::warn!(error = error.message(), "the daemon does not send QEMU's own events");
                }
            }
        }
        Ok(registration)
    }

    /// Withdraws everything. Blocks; on a connection that was lost, for no daemon.
    pub(super) fn withdraw(self, connect: &Connect) {
        for id in self.callbacks {
            // SAFETY: the handle of the connection is valid, and the number is one it gave. An error says that
            // the daemon could not be reached; on this side the callback is gone.
            let _gone = unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), id) };
        }
        if let Some(id) = self.monitor {
            // SAFETY: as above.
            let _gone = unsafe { sys::virConnectDomainQemuMonitorEventDeregister(connect.as_ptr(), id) };
        }
    }
}

/// # Safety
/// `callback` is a function, and libvirt calls it with the arguments it has.
unsafe fn generic(callback: *const c_void) -> Generic {
    // SAFETY: by this function's own condition.
    unsafe { transmute::<*const c_void, Generic>(callback) }
}

/// Registers a callback with a pointer of its own to the sink.
fn register(sink: &Opaque, call: impl FnOnce(*mut c_void) -> c_int) -> Result<c_int, Error> {
    let opaque = Box::into_raw(Box::new(sink.clone())).cast::<c_void>();
    let id = call(opaque);
    if id < 0 {
        let error = Error::last_error();
        // SAFETY: libvirt did not take the pointer, so nothing else will free it.
        unsafe { free(opaque) };
        return Err(error);
    }
    Ok(id)
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: the pointer comes from `register`, and this is called once.
    drop(unsafe { Box::from_raw(opaque.cast::<Opaque>()) });
}

/// Hands an event of a domain to the sink.
///
/// # Safety
/// `domain` is one libvirt lends a callback, and `opaque` the callback's own, from [`register`].
unsafe fn report(domain: sys::virDomainPtr, opaque: *mut c_void, kind: DomainEventKind) {
    let mut uuid = [0u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: libvirt lends the domain for the call; its name lives as long; the array is as long as a UUID.
    let (name, known) = unsafe {
        (text(sys::virDomainGetName(domain)), sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) == 0)
    };
    let uuid = if known { Uuid::from_bytes(uuid) } else { Uuid::nil() };
    // SAFETY: the pointer comes from `register` and is not freed while the callback is registered.
    let sink = unsafe { &*opaque.cast::<Opaque>() };
    sink.take(DomainEvent { name, uuid, kind });
}

/// Copies a string of libvirt's; none is an empty one.
///
/// # Safety
/// `string` is null, or a string that lives for the call.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: it is not null, and so a string, by this function's own condition.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let (change, detail) = words::lifecycle(event, detail);
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe { report(domain, opaque, DomainEventKind::Lifecycle { change, detail: detail.into() }) };
    0
}

unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe { report(domain, opaque, DomainEventKind::Reboot) };
}

unsafe extern "C" fn on_agent(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    state: c_int,
    reason: c_int,
    opaque: *mut c_void,
) {
    let kind = DomainEventKind::Agent {
        connected: words::agent_connected(state),
        reason: words::agent_reason(reason).into(),
    };
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe { report(domain, opaque, kind) };
}

unsafe extern "C" fn on_block_job(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    disk: *const c_char,
    job: c_int,
    status: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt lends the string for the call.
    let disk = unsafe { text(disk) };
    let kind = DomainEventKind::BlockJob {
        disk,
        job: words::block_job(job).into(),
        status: words::job_status(status).into(),
    };
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe { report(domain, opaque, kind) };
}

unsafe extern "C" fn on_device_added(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    device: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt lends the string for the call; its arguments are passed on as they came.
    unsafe { report(domain, opaque, DomainEventKind::DeviceAdded { device: text(device) }) };
}

unsafe extern "C" fn on_device_removed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    device: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_device_added`.
    unsafe { report(domain, opaque, DomainEventKind::DeviceRemoved { device: text(device) }) };
}

unsafe extern "C" fn on_device_removal_failed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    device: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_device_added`.
    unsafe { report(domain, opaque, DomainEventKind::DeviceRemovalFailed { device: text(device) }) };
}

unsafe extern "C" fn on_watchdog(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    action: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe {
        report(domain, opaque, DomainEventKind::Watchdog { action: words::watchdog_action(action).into() });
    }
}

unsafe extern "C" fn on_io_error(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    path: *const c_char,
    device: *const c_char,
    action: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt lends the strings for the call.
    let (path, device, reason) = unsafe { (text(path), text(device), text(reason)) };
    let kind =
        DomainEventKind::IoError { path, device, action: words::io_error_action(action).into(), reason };
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe { report(domain, opaque, kind) };
}

unsafe extern "C" fn on_monitor(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: *const c_char,
    _seconds: c_longlong,
    _micros: c_uint,
    details: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt lends the strings for the call.
    let (name, details) = unsafe { (text(event), text(details)) };
    let details = Some(details).filter(|details| !details.is_empty());
    // SAFETY: libvirt's arguments, passed on as they came.
    unsafe { report(domain, opaque, DomainEventKind::Monitor { name, details }) };
}
