//! Calls that change a domain's state. They return when the daemon has taken the request, which for a shutdown and a
//! reboot is before the guest has followed it. Their errors are those of [`Connection::call`]; of a state that does
//! not allow it, code [`OPERATION_INVALID`](crate::numbers::code::OPERATION_INVALID).

use std::time::Duration;

use crate::connection::Connection;
use crate::error::CallError;
use crate::message::RemoteDomain;
use crate::numbers::procedure;

/// Flags for the end of a domain (`virDomainDestroyFlags`).
pub mod destroy {
    /// SIGTERM alone: a QEMU that does not follow stays.
    pub const GRACEFUL: u32 = 1;
}

/// Flags for how a guest is asked to shut down or to reboot (`virDomainShutdownFlags`). None: as the hypervisor sees
/// fit.
pub mod ask_by {
    /// By the power button.
    pub const ACPI: u32 = 1;
    /// By the guest agent.
    pub const AGENT: u32 = 2;
}

/// What a suspended guest keeps its memory in (`virNodeSuspendTarget`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuspendTarget {
    /// Its memory.
    Memory,
    /// Its disk.
    Disk,
    /// Both.
    Hybrid,
}

impl SuspendTarget {
    fn to_wire(self) -> u32 {
        match self {
            SuspendTarget::Memory => 0,
            SuspendTarget::Disk => 1,
            SuspendTarget::Hybrid => 2,
        }
    }
}

type Called = Result<(), CallError>;

impl Connection {
    /// Starts a domain (`virDomainCreate`).
    pub async fn start_domain(&self, domain: &RemoteDomain) -> Called {
        self.call(procedure::DOMAIN_CREATE, domain).await
    }

    /// Ends a domain as if its power failed, by [flags](destroy) (`virDomainDestroyFlags`).
    pub async fn destroy_domain(&self, domain: &RemoteDomain, flags: u32) -> Called {
        if flags == 0 {
            // Drivers have the older one at least.
            return self.call(procedure::DOMAIN_DESTROY, domain).await;
        }
        self.call(procedure::DOMAIN_DESTROY_FLAGS, &(domain, flags)).await
    }

    /// Asks a guest to shut down, by [flags](ask_by) (`virDomainShutdownFlags`).
    pub async fn shut_domain_down(&self, domain: &RemoteDomain, flags: u32) -> Called {
        if flags == 0 {
            return self.call(procedure::DOMAIN_SHUTDOWN, domain).await;
        }
        self.call(procedure::DOMAIN_SHUTDOWN_FLAGS, &(domain, flags)).await
    }

    /// Asks a guest to reboot, by [flags](ask_by) (`virDomainReboot`).
    pub async fn reboot_domain(&self, domain: &RemoteDomain, flags: u32) -> Called {
        self.call(procedure::DOMAIN_REBOOT, &(domain, flags)).await
    }

    /// Presses a domain's reset button (`virDomainReset`).
    pub async fn reset_domain(&self, domain: &RemoteDomain) -> Called {
        self.call(procedure::DOMAIN_RESET, &(domain, 0u32)).await
    }

    /// Pauses a domain (`virDomainSuspend`).
    pub async fn suspend_domain(&self, domain: &RemoteDomain) -> Called {
        self.call(procedure::DOMAIN_SUSPEND, domain).await
    }

    /// Lets a paused domain go on (`virDomainResume`).
    pub async fn resume_domain(&self, domain: &RemoteDomain) -> Called {
        self.call(procedure::DOMAIN_RESUME, domain).await
    }

    /// Has a guest suspend itself, through its agent (`virDomainPMSuspendForDuration`). A duration of 0 is without
    /// end; QEMU's driver takes no other.
    pub async fn pm_suspend_domain(
        &self,
        domain: &RemoteDomain,
        target: SuspendTarget,
        duration: Duration,
    ) -> Called {
        let arguments = (domain, target.to_wire(), duration.as_secs(), 0u32);
        self.call(procedure::DOMAIN_PM_SUSPEND_FOR_DURATION, &arguments).await
    }

    /// Wakes a guest that suspended itself (`virDomainPMWakeup`).
    pub async fn wake_domain(&self, domain: &RemoteDomain) -> Called {
        self.call(procedure::DOMAIN_PM_WAKEUP, &(domain, 0u32)).await
    }

    /// Sends a guest a non-maskable interrupt (`virDomainInjectNMI`).
    pub async fn inject_nmi(&self, domain: &RemoteDomain) -> Called {
        self.call(procedure::DOMAIN_INJECT_NMI, &(domain, 0u32)).await
    }
}
