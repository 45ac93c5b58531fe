//! The words for the numbers in libvirt's events. A number this version does not know is `unknown`.

use std::ffi::c_int;

use virt_sys as sys;

use crate::domain::LifecycleChange;

const UNKNOWN: &str = "unknown";

/// A change of state (`virDomainEventType`) and its detail.
pub(crate) fn lifecycle(event: c_int, detail: c_int) -> (LifecycleChange, &'static str) {
    let (change, details): (_, &[&'static str]) = match event as sys::virDomainEventType {
        sys::VIR_DOMAIN_EVENT_DEFINED => {
            (LifecycleChange::Defined, &["added", "updated", "renamed", "from-snapshot"])
        }
        sys::VIR_DOMAIN_EVENT_UNDEFINED => (LifecycleChange::Undefined, &["removed", "renamed"]),
        sys::VIR_DOMAIN_EVENT_STARTED => (
            LifecycleChange::Started,
            &["booted", "migrated", "restored", "from-snapshot", "wakeup", "recreated"],
        ),
        sys::VIR_DOMAIN_EVENT_SUSPENDED => (
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
        sys::VIR_DOMAIN_EVENT_RESUMED => (
            LifecycleChange::Resumed,
            &["unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"],
        ),
        sys::VIR_DOMAIN_EVENT_STOPPED => (
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
        sys::VIR_DOMAIN_EVENT_SHUTDOWN => (LifecycleChange::Shutdown, &["finished", "guest", "host"]),
        sys::VIR_DOMAIN_EVENT_PMSUSPENDED => (LifecycleChange::PmSuspended, &["memory", "disk"]),
        sys::VIR_DOMAIN_EVENT_CRASHED => (LifecycleChange::Crashed, &["panicked", "crashloaded"]),
        _ => (LifecycleChange::Unknown, &[]),
    };
    (change, word(details, detail))
}

/// Whether the agent is connected in this state (`virConnectDomainEventAgentLifecycleState`).
pub(crate) fn agent_connected(state: c_int) -> bool {
    state == sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED as c_int
}

/// Why the agent's state changed (`virConnectDomainEventAgentLifecycleReason`).
pub(crate) fn agent_reason(reason: c_int) -> &'static str {
    word(&[UNKNOWN, "domain-started", "channel"], reason)
}

/// A job on a disk (`virDomainBlockJobType`).
pub(crate) fn block_job(job: c_int) -> &'static str {
    word(&[UNKNOWN, "pull", "copy", "commit", "active-commit", "backup"], job)
}

/// What became of a job (`virConnectDomainEventBlockJobStatus`).
pub(crate) fn job_status(status: c_int) -> &'static str {
    word(&["completed", "failed", "canceled", "ready"], status)
}

/// What was done when the watchdog fired (`virDomainEventWatchdogAction`).
pub(crate) fn watchdog_action(action: c_int) -> &'static str {
    word(&["none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi"], action)
}

/// What was done about an I/O error (`virDomainEventIOErrorAction`).
pub(crate) fn io_error_action(action: c_int) -> &'static str {
    word(&["none", "pause", "report"], action)
}

fn word(words: &[&'static str], number: c_int) -> &'static str {
    usize::try_from(number).ok().and_then(|number| words.get(number).copied()).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
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
