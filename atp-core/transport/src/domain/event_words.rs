//! The words for the numbers in libvirt's events. A number this version does not know is `unknown`.

use crate::domain::LifecycleChange;

const UNKNOWN: &str = "unknown";

/// A change of state (`virDomainEventType`) and its detail.
pub(crate) fn lifecycle(event: i32, detail: i32) -> (LifecycleChange, &'static str) {
    let (change, details): (_, &[&'static str]) = match event {
        0 => (LifecycleChange::Defined, &["added", "updated", "renamed", "from-snapshot"]),
        1 => (LifecycleChange::Undefined, &["removed", "renamed"]),
        2 => (
            LifecycleChange::Started,
            &["booted", "migrated", "restored", "from-snapshot", "wakeup", "recreated"],
        ),
        3 => (
            LifecycleChange::Suspended,
            &[
                "paused",
                "migrated",
                "io-error",
                "watchdog",
                "restored",
                "from-snapshot",
                "api-error",
                "postcopy",
                "postcopy-failed",
                "guest-shutdown",
            ],
        ),
        4 => (
            LifecycleChange::Resumed,
            &["unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"],
        ),
        5 => (
            LifecycleChange::Stopped,
            &[
                "shutdown",
                "destroyed",
                "crashed",
                "migrated",
                "saved",
                "failed",
                "from-snapshot",
                "recreated",
            ],
        ),
        6 => (LifecycleChange::Shutdown, &["finished", "guest", "host"]),
        7 => (LifecycleChange::PmSuspended, &["memory", "disk"]),
        8 => (LifecycleChange::Crashed, &["panicked", "crashloaded"]),
        _ => (LifecycleChange::Unknown, &[]),
    };
    (change, word(details, detail))
}

/// Whether the agent is connected in this state (`virConnectDomainEventAgentLifecycleState`).
pub(crate) fn agent_connected(state: i32) -> bool {
    state == 1
}

/// Why the agent's state changed (`virConnectDomainEventAgentLifecycleReason`).
pub(crate) fn agent_reason(reason: i32) -> &'static str {
    word(&[UNKNOWN, "domain-started", "channel"], reason)
}

/// A job on a disk (`virDomainBlockJobType`).
pub(crate) fn block_job(job: i32) -> &'static str {
    word(&[UNKNOWN, "pull", "copy", "commit", "active-commit", "backup"], job)
}

/// What became of a job (`virConnectDomainEventBlockJobStatus`).
pub(crate) fn job_status(status: i32) -> &'static str {
    word(&["completed", "failed", "canceled", "ready"], status)
}

/// What was done when the watchdog fired (`virDomainEventWatchdogAction`).
pub(crate) fn watchdog_action(action: i32) -> &'static str {
    word(&["none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi"], action)
}

/// What was done about an I/O error (`virDomainEventIOErrorAction`).
pub(crate) fn io_error_action(action: i32) -> &'static str {
    word(&["none", "pause", "report"], action)
}

fn word(words: &[&'static str], number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|number| words.get(number).copied()).unwrap_or(UNKNOWN)
}

#[cfg(all(test, feature = "library"))]
mod tests {
    use std::ffi::c_int;

    use virt_sys as sys;

    use super::*;

    #[test]
    fn the_lists_are_in_the_order_of_libvirts_numbers() {
        for (event, detail, expected) in [
            (sys::VIR_DOMAIN_EVENT_DEFINED, sys::VIR_DOMAIN_EVENT_DEFINED_FROM_SNAPSHOT, "from-snapshot"),
            (sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_RECREATED, "recreated"),
            (sys::VIR_DOMAIN_EVENT_SUSPENDED, sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR, "io-error"),
            (
                sys::VIR_DOMAIN_EVENT_SUSPENDED,
                sys::VIR_DOMAIN_EVENT_SUSPENDED_GUEST_SHUTDOWN,
                "guest-shutdown",
            ),
            (sys::VIR_DOMAIN_EVENT_RESUMED, sys::VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED, "postcopy-failed"),
            (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED, "destroyed"),
            (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_RECREATED, "recreated"),
            (sys::VIR_DOMAIN_EVENT_SHUTDOWN, sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST, "host"),
            (sys::VIR_DOMAIN_EVENT_CRASHED, sys::VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED, "crashloaded"),
        ] {
            assert_eq!(lifecycle(event as c_int, detail as c_int).1, expected);
        }
        assert_eq!(watchdog_action(sys::VIR_DOMAIN_EVENT_WATCHDOG_INJECTNMI as c_int), "inject-nmi");
        assert_eq!(io_error_action(sys::VIR_DOMAIN_EVENT_IO_ERROR_REPORT as c_int), "report");
        assert_eq!(block_job(sys::VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP as c_int), "backup");
        assert_eq!(job_status(sys::VIR_DOMAIN_BLOCK_JOB_READY as c_int), "ready");
    }

    #[test]
    fn numbers_of_later_versions_are_unknown() {
        for number in [-1, 99] {
            assert_eq!(lifecycle(number, 0), (LifecycleChange::Unknown, UNKNOWN));
            assert_eq!(lifecycle(0, number), (LifecycleChange::Defined, UNKNOWN));
            assert_eq!(agent_reason(number), UNKNOWN);
        }
    }
}
