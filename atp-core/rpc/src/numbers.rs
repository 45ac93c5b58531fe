//! The protocol's numbers: programs, kinds of messages, procedures, and libvirt's error codes.

use std::fmt;

/// A program: a set of procedures with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Program(
    /// Its number on the wire.
    pub u32,
);

impl Program {
    /// What libvirt's API offers.
    pub const REMOTE: Program = Program(0x2000_8086);
    /// What is special to QEMU: commands to its monitor and to guest agents.
    pub const QEMU: Program = Program(0x2000_8087);
    /// Pings and pongs.
    pub const KEEPALIVE: Program = Program(0x6b65_6570);
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call, client to daemon.
    Call,
    /// The reply to a call.
    Reply,
    /// A message of its own: an event, or a ping.
    Message,
    /// A piece of a stream, or its end.
    Stream,
    /// A call or a reply with file descriptors, or a hole in a stream: nothing that is asked for here.
    Other(u32),
}

impl Kind {
    /// From the wire.
    pub fn from_wire(number: u32) -> Self {
        match number {
            0 => Kind::Call,
            1 => Kind::Reply,
            2 => Kind::Message,
            3 => Kind::Stream,
            other => Kind::Other(other),
        }
    }

    /// For the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            Kind::Call => 0,
            Kind::Reply => 1,
            Kind::Message => 2,
            Kind::Stream => 3,
            Kind::Other(number) => number,
        }
    }
}

/// The status of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It went well; of a stream: it ends.
    Ok,
    /// It failed; of a stream: it is aborted.
    Error,
    /// Of a stream: data.
    Continue,
}

impl Status {
    /// From the wire; none for a number that has no meaning.
    pub fn from_wire(number: u32) -> Option<Self> {
        match number {
            0 => Some(Status::Ok),
            1 => Some(Status::Error),
            2 => Some(Status::Continue),
            _ => None,
        }
    }

    /// For the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            Status::Ok => 0,
            Status::Error => 1,
            Status::Continue => 2,
        }
    }
}

/// A procedure of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Procedure {
    /// The program it belongs to.
    pub program: Program,
    /// Its number there.
    pub number: i32,
    /// Its name, for errors: that of the function of libvirt's API, where there is one.
    pub name: &'static str,
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! procedures {
    ($program:expr; $($constant:ident = $number:literal $name:literal),* $(,)?) => {$(
        #[doc = concat!("`", $name, "`")]
        pub const $constant: Procedure = Procedure { program: $program, number: $number, name: $name };
    )*};
}

/// The procedures that are called here.
pub mod procedure {
    use super::{Procedure, Program};

    procedures! { Program::REMOTE;
        CONNECT_OPEN = 1 "virConnectOpen",
        CONNECT_CLOSE = 2 "virConnectClose",
        CONNECT_GET_TYPE = 3 "virConnectGetType",
        CONNECT_GET_VERSION = 4 "virConnectGetVersion",
        NODE_GET_INFO = 6 "virNodeGetInfo",
        CONNECT_GET_CAPABILITIES = 7 "virConnectGetCapabilities",
        DOMAIN_CREATE = 9 "virDomainCreate",
        DOMAIN_DESTROY = 12 "virDomainDestroy",
        DOMAIN_GET_XML_DESC = 14 "virDomainGetXMLDesc",
        DOMAIN_GET_AUTOSTART = 15 "virDomainGetAutostart",
        DOMAIN_GET_INFO = 16 "virDomainGetInfo",
        DOMAIN_GET_OS_TYPE = 19 "virDomainGetOSType",
        DOMAIN_LOOKUP_BY_ID = 22 "virDomainLookupByID",
        DOMAIN_LOOKUP_BY_NAME = 23 "virDomainLookupByName",
        DOMAIN_LOOKUP_BY_UUID = 24 "virDomainLookupByUUID",
        DOMAIN_REBOOT = 27 "virDomainReboot",
        DOMAIN_RESUME = 28 "virDomainResume",
        DOMAIN_SET_AUTOSTART = 29 "virDomainSetAutostart",
        DOMAIN_SHUTDOWN = 33 "virDomainShutdown",
        DOMAIN_SUSPEND = 34 "virDomainSuspend",
        CONNECT_GET_HOSTNAME = 59 "virConnectGetHostname",
        CONNECT_SUPPORTS_FEATURE = 60 "the question for a feature",
        AUTH_LIST = 66 "the list of authentication methods",
        AUTH_SASL_INIT = 67 "the list of SASL mechanisms",
        AUTH_SASL_START = 68 "the start of SASL",
        AUTH_SASL_STEP = 69 "a step of SASL",
        AUTH_POLKIT = 70 "authentication by polkit",
        NODE_GET_FREE_MEMORY = 102 "virNodeGetFreeMemory",
        CONNECT_GET_URI = 110 "virConnectGetURI",
        DOMAIN_IS_ACTIVE = 150 "virDomainIsActive",
        DOMAIN_IS_PERSISTENT = 151 "virDomainIsPersistent",
        CONNECT_GET_LIB_VERSION = 157 "virConnectGetLibVersion",
        DOMAIN_GET_JOB_INFO = 163 "virDomainGetJobInfo",
        DOMAIN_MANAGED_SAVE = 182 "virDomainManagedSave",
        DOMAIN_HAS_MANAGED_SAVE_IMAGE = 183 "virDomainHasManagedSaveImage",
        DOMAIN_SNAPSHOT_CREATE_XML = 185 "virDomainSnapshotCreateXML",
        DOMAIN_SNAPSHOT_GET_XML_DESC = 186 "virDomainSnapshotGetXMLDesc",
        DOMAIN_SNAPSHOT_CURRENT = 191 "virDomainSnapshotCurrent",
        DOMAIN_REVERT_TO_SNAPSHOT = 192 "virDomainRevertToSnapshot",
        DOMAIN_SNAPSHOT_DELETE = 193 "virDomainSnapshotDelete",
        DOMAIN_CREATE_WITH_FLAGS = 196 "virDomainCreateWithFlags",
        DOMAIN_OPEN_CONSOLE = 201 "virDomainOpenConsole",
        DOMAIN_INJECT_NMI = 210 "virDomainInjectNMI",
        DOMAIN_SCREENSHOT = 211 "virDomainScreenshot",
        DOMAIN_GET_STATE = 212 "virDomainGetState",
        DOMAIN_SEND_KEY = 226 "virDomainSendKey",
        DOMAIN_GET_CONTROL_INFO = 229 "virDomainGetControlInfo",
        DOMAIN_DESTROY_FLAGS = 234 "virDomainDestroyFlags",
        DOMAIN_RESET = 245 "virDomainReset",
        DOMAIN_SHUTDOWN_FLAGS = 258 "virDomainShutdownFlags",
        DOMAIN_PM_SUSPEND_FOR_DURATION = 261 "virDomainPMSuspendForDuration",
        DOMAIN_SET_METADATA = 264 "virDomainSetMetadata",
        DOMAIN_GET_METADATA = 265 "virDomainGetMetadata",
        DOMAIN_PM_WAKEUP = 267 "virDomainPMWakeup",
        CONNECT_LIST_ALL_DOMAINS = 273 "virConnectListAllDomains",
        DOMAIN_LIST_ALL_SNAPSHOTS = 274 "virDomainListAllSnapshots",
        DOMAIN_GET_HOSTNAME = 277 "virDomainGetHostname",
        DOMAIN_FSTRIM = 294 "virDomainFSTrim",
        DOMAIN_OPEN_CHANNEL = 296 "virDomainOpenChannel",
        EVENT_REGISTER = 316 "virConnectDomainEventRegisterAny",
        EVENT_DEREGISTER = 317 "virConnectDomainEventDeregisterAny",
        DOMAIN_FSFREEZE = 335 "virDomainFSFreeze",
        DOMAIN_FSTHAW = 336 "virDomainFSThaw",
        CONNECT_GET_ALL_DOMAIN_STATS = 344 "virConnectGetAllDomainStats",
        DOMAIN_SET_USER_PASSWORD = 357 "virDomainSetUserPassword",
        CLOSE_REGISTER = 360 "virConnectRegisterCloseCallback",
        CLOSE_DEREGISTER = 361 "virConnectUnregisterCloseCallback",
        EVENT_CONNECTION_CLOSED = 362 "the notice of a lost hypervisor",
        DOMAIN_GET_GUEST_INFO = 418 "virDomainGetGuestInfo",
    }

    procedures! { Program::QEMU;
        MONITOR_COMMAND = 1 "virDomainQemuMonitorCommand",
        AGENT_COMMAND = 3 "virDomainQemuAgentCommand",
        MONITOR_EVENT_REGISTER = 4 "virConnectDomainQemuMonitorEventRegister",
        MONITOR_EVENT_DEREGISTER = 5 "virConnectDomainQemuMonitorEventDeregister",
    }

    procedures! { Program::KEEPALIVE;
        PING = 1 "a ping",
        PONG = 2 "a pong",
    }
}

/// libvirt's error codes that callers tell apart (`virErrorNumber`).
pub mod code {
    /// An internal error: of any part of libvirt, and of a guest agent.
    pub const INTERNAL_ERROR: i32 = 1;
    /// The driver has no such function.
    pub const NO_SUPPORT: i32 = 3;
    /// The daemon cannot reach what it needs.
    pub const NO_CONNECT: i32 = 5;
    /// The connection is not valid.
    pub const INVALID_CONN: i32 = 6;
    /// The operation failed.
    pub const OPERATION_FAILED: i32 = 9;
    /// A system call failed.
    pub const SYSTEM_ERROR: i32 = 38;
    /// The daemon's RPC layer refused a call: an unknown procedure, or one before authentication.
    pub const RPC: i32 = 39;
    /// There is no such domain.
    pub const NO_DOMAIN: i32 = 42;
    /// Authentication failed.
    pub const AUTH_FAILED: i32 = 45;
    /// The domain's state does not allow it.
    pub const OPERATION_INVALID: i32 = 55;
    /// A lock was not to be had in time.
    pub const OPERATION_TIMEOUT: i32 = 68;
    /// The domain has no such snapshot.
    pub const NO_DOMAIN_SNAPSHOT: i32 = 72;
    /// An argument is not supported.
    pub const ARGUMENT_UNSUPPORTED: i32 = 74;
    /// The domain has no such metadata.
    pub const NO_DOMAIN_METADATA: i32 = 80;
    /// The operation is not supported.
    pub const OPERATION_UNSUPPORTED: i32 = 84;
    /// The guest agent does not answer.
    pub const AGENT_UNRESPONSIVE: i32 = 86;
    /// Something is in use.
    pub const RESOURCE_BUSY: i32 = 87;
    /// Access was denied.
    pub const ACCESS_DENIED: i32 = 88;
    /// polkit has no agent that could ask for a password.
    pub const AUTH_UNAVAILABLE: i32 = 94;
    /// The guest agent's answers are out of step.
    pub const AGENT_UNSYNCED: i32 = 97;
}
