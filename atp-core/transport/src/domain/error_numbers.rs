//! The numbers of libvirt's errors that ATP distinguishes (`virErrorNumber` and `virErrorDomain`).

pub(crate) const INTERNAL_ERROR: u32 = 1;
pub(crate) const NO_SUPPORT: u32 = 3;
pub(crate) const NO_CONNECT: u32 = 5;
pub(crate) const INVALID_CONN: u32 = 6;
pub(crate) const INVALID_DOMAIN: u32 = 7;
pub(crate) const INVALID_ARG: u32 = 8;
pub(crate) const OPERATION_FAILED: u32 = 9;
pub(crate) const XML_ERROR: u32 = 27;
pub(crate) const OPERATION_DENIED: u32 = 29;
pub(crate) const SYSTEM_ERROR: u32 = 38;
pub(crate) const RPC_ERROR: u32 = 39;
pub(crate) const NO_DOMAIN: u32 = 42;
pub(crate) const AUTH_FAILED: u32 = 45;
pub(crate) const OPERATION_INVALID: u32 = 55;
pub(crate) const CONFIG_UNSUPPORTED: u32 = 67;
pub(crate) const OPERATION_TIMEOUT: u32 = 68;
pub(crate) const NO_DOMAIN_SNAPSHOT: u32 = 72;
pub(crate) const ARGUMENT_UNSUPPORTED: u32 = 74;
pub(crate) const AUTH_CANCELLED: u32 = 79;
pub(crate) const NO_DOMAIN_METADATA: u32 = 80;
pub(crate) const OPERATION_UNSUPPORTED: u32 = 84;
pub(crate) const AGENT_UNRESPONSIVE: u32 = 86;
pub(crate) const RESOURCE_BUSY: u32 = 87;
pub(crate) const ACCESS_DENIED: u32 = 88;
pub(crate) const SNAPSHOT_REVERT_RISKY: u32 = 93;
pub(crate) const AUTH_UNAVAILABLE: u32 = 94;
pub(crate) const AGENT_UNSYNCED: u32 = 97;
/// Of libvirt 11.2 and later: before, the silence of an agent had the number of its absence.
pub(crate) const AGENT_COMMAND_TIMEOUT: u32 = 112;
/// Of newer libvirt: before, the agent's error reply was an internal error.
pub(crate) const AGENT_COMMAND_FAILED: u32 = 113;

/// The RPC layer of client and daemon.
pub(crate) const FROM_RPC: u32 = 7;
/// The driver for QEMU, with its monitor and the guest agent.
pub(crate) const FROM_QEMU: u32 = 10;
/// The client's driver for daemons.
pub(crate) const FROM_REMOTE: u32 = 13;
/// D-Bus, by which a daemon asks polkit.
pub(crate) const FROM_DBUS: u32 = 47;
/// The daemon's question to polkit.
pub(crate) const FROM_POLKIT: u32 = 60;
