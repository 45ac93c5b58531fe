//! The kinds of failures: words for programs, and what a person can try.

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

/// A stable word for the kind of a failure, for programs to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Display, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No host of that id is registered.
    UnknownHost,
    /// No host is in a group of that name.
    UnknownGroup,
    /// A host of that id is registered already.
    DuplicateHost,
    /// The host's id is not a valid one.
    InvalidHostId,
    /// The host's URI is not one, or not one that can be opened from here.
    InvalidUri,
    /// The configuration has values that cannot be used.
    InvalidConfig,
    /// The host's name has no address.
    NameNotResolved,
    /// The host is up, and nothing listens at that port.
    ConnectionRefused,
    /// No answer, or no route.
    HostUnreachable,
    /// A connection was made, but the daemon did not finish the opening in time.
    ConnectTimeout,
    /// The daemon wants other credentials, or other certificates.
    AuthFailed,
    /// The daemon answered the opening with an error that has no kind of its own.
    ConnectFailed,
    /// Every connection of the host was taken until the deadline passed.
    PoolExhausted,
    /// The call was not answered by its deadline.
    CallTimeout,
    /// So many calls to this host hang that no more are sent.
    StuckCalls,
    /// No thread could be had to make a blocking call on.
    ThreadsExhausted,
    /// The connection broke while the call was under way.
    ConnectionLost,
    /// The host has failed so often that it is left alone for a while.
    CircuitOpen,
    /// The call would have had to wait past its deadline for its turn.
    RateLimited,
    /// An interceptor refused the call.
    CallRefused,
    /// The host was removed, or the pool closed.
    Closed,
    /// The closure panicked.
    Panicked,
    /// No domain of that name or UUID.
    VmNotFound,
    /// The domain is not running.
    VmNotRunning,
    /// The domain is in a state in which the operation is not possible.
    OperationInvalid,
    /// The domain's definition has no guest agent channel.
    AgentNotConfigured,
    /// Nothing in the guest listens on the guest agent's channel.
    AgentNotConnected,
    /// The guest agent did not answer in time.
    AgentUnresponsive,
    /// The guest agent went away with a command: it, or the guest, was stopped or restarted.
    AgentGone,
    /// libvirt has given up the agent's channel after an error; waiting does not bring it back.
    AgentBroken,
    /// Another monitor command holds the domain.
    MonitorBusy,
    /// Another agent command holds the domain.
    AgentBusy,
    /// Another client of the daemon has the domain's virtio-serial channel open.
    ChannelInUse,
    /// The domain has no display to take a picture of.
    NoScreen,
    /// The daemon's access control says no.
    AccessDenied,
    /// The driver or hypervisor has no such operation.
    NotSupported,
    /// Any other error of libvirt; see its code and domain.
    LibvirtError,
}

impl ErrorKind {
    /// The word, in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the same work, done again later, may well succeed.
    ///
    /// Says nothing of whether it is safe to repeat: see [`TransportError::effect`](crate::TransportError::effect).
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorKind::NameNotResolved
                | ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::ConnectTimeout
                | ErrorKind::ConnectFailed
                | ErrorKind::PoolExhausted
                | ErrorKind::CallTimeout
                | ErrorKind::StuckCalls
                | ErrorKind::ThreadsExhausted
                | ErrorKind::ConnectionLost
                | ErrorKind::CircuitOpen
                | ErrorKind::RateLimited
                | ErrorKind::AgentNotConnected
                | ErrorKind::AgentUnresponsive
                | ErrorKind::AgentGone
                | ErrorKind::MonitorBusy
                | ErrorKind::AgentBusy
                | ErrorKind::ChannelInUse
        )
    }

    /// Whether the host could not be reached at all, as opposed to having answered with an error.
    pub fn is_unreachable(self) -> bool {
        matches!(
            self,
            ErrorKind::NameNotResolved
                | ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::ConnectTimeout
                | ErrorKind::AuthFailed
                | ErrorKind::ConnectFailed
                | ErrorKind::InvalidUri
        )
    }

    /// What a person can try.
    pub fn hint(self) -> &'static str {
        match self {
            ErrorKind::UnknownHost => "check the host's id against the inventory (`atp host list`)",
            ErrorKind::UnknownGroup => {
                "check the group's name against those of the inventory (`atp host list`)"
            }
            ErrorKind::DuplicateHost => "give each host an id of its own",
            ErrorKind::InvalidHostId => "use letters, digits, '.', '_' and '-' only",
            ErrorKind::InvalidUri => {
                "a libvirt URI looks like qemu+tcp://HOST/system, qemu+ssh://USER@HOST/system or qemu:///system"
            }
            ErrorKind::InvalidConfig => "correct the values named above",
            ErrorKind::NameNotResolved => "check the spelling, DNS and /etc/hosts, or use an IP address",
            ErrorKind::ConnectionRefused => "check that what the URI leads to runs and listens there",
            ErrorKind::HostUnreachable => {
                "check that the host is up, the route to it and the firewalls between"
            }
            ErrorKind::ConnectTimeout => {
                "the port answers and the daemon does not: check whether it is hung or stopped (systemctl status libvirtd)"
            }
            ErrorKind::AuthFailed => {
                "check the user, the password and where it is read from (the host's `auth`), or the certificates, and the daemon's auth_* settings"
            }
            ErrorKind::ConnectFailed => {
                "try the same URI with `virsh -c URI list`, and read the daemon's log"
            }
            ErrorKind::PoolExhausted => {
                "raise max_connections_per_host or max_uses_per_connection, or run fewer targets at once"
            }
            ErrorKind::CallTimeout => {
                "the daemon or the VM does not answer: check the VM with `virsh domcontrol`, or give more time"
            }
            ErrorKind::StuckCalls => {
                "earlier calls to this host never returned: find the hung VMs (`virsh domcontrol`), destroy or resume them"
            }
            ErrorKind::ThreadsExhausted => "many hosts hang at once: find them, or raise calls.max_threads",
            ErrorKind::ConnectionLost => {
                "the daemon restarted or the network broke; check before repeating the work"
            }
            ErrorKind::CircuitOpen => {
                "the host keeps failing, see the cause; it is probed from time to time and used again once it answers"
            }
            ErrorKind::RateLimited => "give the work more time, do less at once, or raise the limit",
            ErrorKind::CallRefused => "this program was set up to refuse such calls: see the reason",
            ErrorKind::Closed => "the host was removed while work for it was waiting",
            ErrorKind::Panicked => "this is a bug in the code that was run on the host",
            ErrorKind::VmNotFound => "check the name (`atp vm list`)",
            ErrorKind::VmNotRunning => "start it first (`atp vm start`)",
            ErrorKind::OperationInvalid => "check the VM's state (`atp vm info`)",
            ErrorKind::AgentNotConfigured => {
                "add a <channel> with the target org.qemu.guest_agent.0 to the domain, and restart the VM"
            }
            ErrorKind::AgentNotConnected => {
                "check that qemu-guest-agent is installed, enabled and runs in the guest"
            }
            ErrorKind::AgentUnresponsive => {
                "the guest or its agent hangs, or an earlier agent command still runs: look at the guest's console"
            }
            ErrorKind::AgentGone => {
                "the agent or the guest was stopped or restarted: check in the guest what was done before repeating it"
            }
            ErrorKind::AgentBroken => "restart the agent in the guest, or reset the VM",
            ErrorKind::MonitorBusy => {
                "another command holds the VM: wait for it, or look with `virsh domcontrol`; a VM that hangs can still be destroyed (`atp vm destroy`)"
            }
            ErrorKind::AgentBusy => "another client's agent command to this VM is under way; wait for it",
            ErrorKind::ChannelInUse => {
                "another program has the channel open: wait for it or end it, or take the channel from it (`ChannelOptions::force`)"
            }
            ErrorKind::NoScreen => {
                "give the domain a graphics device (<video>) and restart the VM; its serial console may tell as much"
            }
            ErrorKind::AccessDenied => "ask for the right in the daemon's access control (polkit)",
            ErrorKind::NotSupported => "this driver or version has no such operation",
            ErrorKind::LibvirtError => "read the daemon's log on the host",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_same_wherever_it_is_written() {
        for kind in [ErrorKind::UnknownHost, ErrorKind::VmNotFound, ErrorKind::LibvirtError] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.to_string(), kind.as_str());
        }
    }
}
