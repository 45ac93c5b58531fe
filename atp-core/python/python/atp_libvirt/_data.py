"""What operations yield. Written by `tools/generate.py` from the JSON Schema of atp-api; do not edit."""

import dataclasses
import typing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, List, Optional


@dataclass(frozen=True)
class Output:
    """The bytes a process wrote to one stream.

    Serialised as ``{"text","encoding","truncated"}``: the text itself when the bytes are text in the encoding
    that a byte order mark or else ``encoding`` names, which is UTF-8 unless it says another, else base64.
    Text that is not just these bytes in UTF-8 has the bytes beside it, as ``base64``.
    """

    encoding: str
    """The encoding that the text was decoded from, or ``base64``."""

    text: str
    """The text, or base64."""

    truncated: bool
    """Whether less was kept than the process wrote."""

    base64: Optional[str] = None
    """The bytes, where the text is not just these in UTF-8."""


@dataclass(frozen=True)
class ExecReport:
    """A process that ended in a guest."""

    stderr: Output
    """Its standard error."""

    stdout: Output
    """Its standard output."""

    exit_code: Optional[int] = None
    """The exit code; none if the process died of a signal. One of Windows above ``0x7FFFFFFF`` is negative here."""

    signal: Optional[int] = None
    """The signal it died of; of Windows, the code of the exception, which is negative here."""


@dataclass(frozen=True)
class DomainInfo:
    """A domain in a listing of its host."""

    name: str
    """The name, unique on its host. May hold any character but ``/`` and line feed."""

    state: str
    """The state at the time of the call."""

    uuid: str
    """The identity of the domain; stays when it is renamed."""

    id: Optional[int] = None
    """libvirt's number for the running domain; none when it is not active."""

    max_memory_kib: Optional[int] = None
    """The most memory the guest may get, KiB; none where only the state was asked for."""

    memory_kib: Optional[int] = None
    """Memory in use by the guest, KiB; none where only the state was asked for."""

    reason: Optional[str] = None
    """Why it is in that state; none where libvirt gives no reason, or was not asked: for one running domain it
    is not.
    """

    reserved_by: Optional[str] = None
    """Who has reserved it, if it is reserved and reservations were asked for. No host knows of this."""

    reserved_until_ms: Optional[int] = None
    """Until when it is reserved, milliseconds since 1970."""

    vcpus: Optional[int] = None
    """Virtual CPUs; none where only the state was asked for."""


@dataclass(frozen=True)
class Graphics:
    """One graphics server of a domain, as its definition has it. Passwords are never read."""

    kind: str
    """The protocol."""

    listen: List[Any]
    """Where it listens; none while the domain is off and its ports are chosen at its start."""


@dataclass(frozen=True)
class Address:
    """An address of a network interface."""

    ip: str
    """The address."""

    prefix: int
    """The length of the network prefix, in bits."""


@dataclass(frozen=True)
class Interface:
    """A network interface of a guest."""

    addresses: List[Address]
    """Its addresses, in the guest's order."""

    name: str
    """Its name in the guest: ``eth0``, ``Ethernet 2``."""

    mac: Optional[str] = None
    """Its hardware (MAC) address, if it has one."""


@dataclass(frozen=True)
class OsReport:
    """A guest's operating system, as far as its agent reports it."""

    id: Optional[str] = None
    """Its name for programs, such as ``debian`` or ``mswindows``."""

    kernel: Optional[str] = None
    """Its kernel's release."""

    machine: Optional[str] = None
    """The machine it runs on, such as ``x86_64``."""

    name: Optional[str] = None
    """Its name for people, such as ``Debian GNU/Linux 12 (bookworm)``."""

    version: Optional[str] = None
    """Its version, such as ``12``."""


@dataclass(frozen=True)
class GuestReport:
    """What the agent reports about its guest. Values that the agent has no command for are missing."""

    addresses: List[str]
    """The addresses it can be reached at: neither loopback nor link-local."""

    interfaces: List[Interface]
    """Its network interfaces, with all their addresses."""

    hostname: Optional[str] = None
    """Its host name."""

    os: Optional[OsReport] = None
    """Its operating system."""


@dataclass(frozen=True)
class LibvirtCode:
    """An error of libvirt by its numbers."""

    code: int
    """``virErrorNumber``."""

    domain: int
    """``virErrorDomain``."""


@dataclass(frozen=True)
class Failure:
    """The error of an Outcome."""

    causes: List[str]
    """The causes, nearest first. None repeats the message before it."""

    kind: str
    """A stable kebab-case word, for programs to match on."""

    message: str
    """What went wrong, in one sentence without its causes."""

    retryable: bool
    """Whether the same work may succeed later. Whether repeating it is safe is another question: see the
    outcome's effect.
    """

    hint: Optional[str] = None
    """What a person can try."""

    libvirt: Optional[LibvirtCode] = None
    """libvirt's error numbers, where libvirt raised the error."""


@dataclass(frozen=True)
class VmReport:
    """Everything known of one VM."""

    graphics: List[Graphics]
    """Where its screen can be looked at over the network."""

    name: str
    """The name, unique on its host. May hold any character but ``/`` and line feed."""

    state: str
    """The state at the time of the call."""

    uuid: str
    """The identity of the domain; stays when it is renamed."""

    agent: Optional[str] = None
    """The guest agent's channel, as the hypervisor sees it; unknown if the host did not tell the definition. The
    title and the graphics are missing then, too.
    """

    autostart: Optional[bool] = None
    """Whether it starts with the host; unknown where the driver cannot say."""

    guest: Optional[GuestReport] = None
    """What its guest reports; none if no agent is connected, or it does not answer."""

    guest_error: Optional[Failure] = None
    """Why an agent that is connected did not answer."""

    id: Optional[int] = None
    """libvirt's number for the running domain; none when it is not active."""

    max_memory_kib: Optional[int] = None
    """The most memory the guest may get, KiB; none where only the state was asked for."""

    memory_kib: Optional[int] = None
    """Memory in use by the guest, KiB; none where only the state was asked for."""

    persistent: Optional[bool] = None
    """Whether the host keeps a definition of it when it is shut off; unknown if the host did not tell."""

    reason: Optional[str] = None
    """Why it is in that state; none where libvirt gives no reason, or was not asked: for one running domain it
    is not.
    """

    reserved_by: Optional[str] = None
    """Who has reserved it, if it is reserved and reservations were asked for. No host knows of this."""

    reserved_until_ms: Optional[int] = None
    """Until when it is reserved, milliseconds since 1970."""

    title: Optional[str] = None
    """The title in the definition, if any."""

    vcpus: Optional[int] = None
    """Virtual CPUs; none where only the state was asked for."""


@dataclass(frozen=True)
class FileReport:
    """A file that was copied."""

    bytes: int
    """Its size, bytes."""

    guest_path: str
    """Where it is in the guest."""

    local_path: str
    """Where it is on the machine of the program that copied it."""

    resumed_at: int
    """How many of them were there already, from a copy that had stopped."""

    sha256: str
    """Its SHA-256 on both sides, in hexadecimal digits."""


@dataclass(frozen=True)
class WaitReport:
    """How a wait ended: the condition was met."""

    looks: int
    """The number of looks."""


@dataclass(frozen=True)
class HostReport:
    """What a host answered."""

    active_domains: int
    """Domains that are active."""

    connect_ms: float
    """Milliseconds from asking for a connection to having one."""

    daemon_version: str
    """libvirt's version in the daemon."""

    domains: int
    """Domains the host has, active or not."""

    hostname: str
    """The host's own name (``virConnectGetHostname``)."""

    hypervisor: str
    """The hypervisor's kind, such as ``QEMU``."""

    hypervisor_version: str
    """The hypervisor's version."""

    latency_ms: float
    """Milliseconds of one small call."""


@dataclass(frozen=True)
class Finding:
    """The result of checking one thing."""

    check: str
    """The thing, as a stable word: ``name``, ``tcp``, ``daemon``, ``limits``, ``agent``, …"""

    message: str
    """What was found."""

    verdict: str
    """The result."""

    hint: Optional[str] = None
    """What to do about it."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything found about one host or VM."""

    findings: List[Finding]
    """In the order in which things depend on each other."""

    host: Optional[HostReport] = None
    """The host's report, if it was reached."""


@dataclass(frozen=True)
class KernelFinding:
    """A line of a console in which the guest's kernel reports a fault."""

    at_ms: int
    """Milliseconds from the start of the capture to the line."""

    fault: str
    """What happened."""

    line: str
    """The line, without control characters."""


@dataclass(frozen=True)
class ConsoleGap:
    """A time in which a console was not open."""

    at_ms: int
    """Milliseconds from the start of the capture to the gap."""

    reason: str
    """Why the console was closed."""

    lasted_ms: Optional[int] = None
    """How long it was, milliseconds; none if it lasted to the end."""


@dataclass(frozen=True)
class ConsoleReport:
    """What was captured of a serial console."""

    bytes: int
    """How many bytes came."""

    faults: int
    """The number of faults of the guest's kernel."""

    first_faults: List[KernelFinding]
    """The first of them, at most MOST_KEPT."""

    first_gaps: List[ConsoleGap]
    """The first gaps, at most MOST_KEPT."""

    gaps: int
    """The number of gaps: times in which the console was not open, so that output was lost."""

    lines: int
    """How many lines these were."""

    file: Optional[str] = None
    """The file with all of it."""


@dataclass(frozen=True)
class MissedEvidence:
    """Something that could not be had as evidence."""

    reason: str
    """Why it could not be had."""

    what: str
    """What was asked for."""


@dataclass(frozen=True)
class EvidenceReport:
    """What was collected of a VM whose scenario has failed."""

    files: List[str]
    """Their names."""

    folder: str
    """The folder with the files."""

    missed: List[MissedEvidence]
    """What could not be had."""


@dataclass(frozen=True)
class Isolation:
    """How a scenario left a VM that it takes back to a snapshot."""

    restored: bool
    """Whether nothing was done to the VM since it was last taken back to it."""

    snapshot: str
    """The snapshot's name."""


@dataclass(frozen=True)
class StepReport:
    """The result of one step."""

    attempts: int
    """The number of attempts."""

    duration_ms: int
    """Milliseconds it took."""

    effect: str
    """Whether anything happened to the VM."""

    name: str
    """The step's name."""

    op: str
    """What it does: the name of an operation, ``wait`` or ``assert``."""

    status: str
    """How it went."""

    data: Any = None
    """What it yielded."""

    error: Optional[Failure] = None
    """What went wrong."""


@dataclass(frozen=True)
class ScenarioReport:
    """The steps that a target went through."""

    scenario: str
    """The scenario's name."""

    steps: List[StepReport]
    """The steps it went through, the one that failed the last."""

    steps_total: int
    """How many steps there are."""

    teardown: List[StepReport]
    """The steps of the teardown that were carried out."""

    console: Optional[ConsoleReport] = None
    """What its VM's console wrote, if a step or the evidence needs it."""

    evidence: Optional[EvidenceReport] = None
    """The evidence that was collected."""

    isolated: Optional[Isolation] = None
    """The snapshot that it begins and ends at; none if the scenario is not isolated."""

    teardown_total: Optional[int] = None
    """How many steps the teardown has."""


@dataclass(frozen=True)
class ScreenshotReport:
    """A picture that was taken."""

    bytes: int
    """The file's size, bytes."""

    file: str
    """The PNG file."""

    height: int
    """Pixels from top to bottom."""

    width: int
    """Pixels from left to right."""


@dataclass(frozen=True)
class XmlReport:
    """A VM's definition."""

    xml: str
    """libvirt's XML, without passwords."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a domain, as libvirt describes it."""

    current: bool
    """Whether the domain is at this snapshot: it was made, or reverted to, last."""

    external: bool
    """Whether a part of it is in files of its own, beside the disk images."""

    memory: bool
    """Whether it has the domain's memory."""

    name: str
    """Its name, unique for its domain."""

    created: Optional[int] = None
    """When it was made, seconds since 1970."""

    description: Optional[str] = None
    """What a person wrote of it."""

    parent: Optional[str] = None
    """The snapshot that the domain was at when this one was made."""

    state: Optional[str] = None
    """The state that the domain was in; none of a snapshot of the disks of a domain that ran."""


@dataclass(frozen=True)
class SnapshotList:
    """The snapshots of a VM."""

    snapshots: List[Snapshot]
    """The snapshots: each after the one that it was made from, and otherwise by time."""


@dataclass(frozen=True)
class Staleness:
    """Why values are old."""

    error: Failure
    """Why no new values came."""

    for_ms: Optional[int] = None
    """How long ago all were answered for the last time, milliseconds; none if they never were."""


@dataclass(frozen=True)
class HostStatistics:
    """A host in a round."""

    host: str
    """The host."""

    stale: Optional[Staleness] = None
    """Since when it has not answered; none if it answered."""


@dataclass(frozen=True)
class CpuUse:
    """Use of processors."""

    percent: Optional[float] = None
    """Processor time in the time, percent: 100 is one processor."""

    time_ns: Optional[int] = None
    """Processor time of the vCPUs and of QEMU, nanoseconds."""

    vcpus: Optional[int] = None
    """Virtual CPUs."""


@dataclass(frozen=True)
class DiskUse:
    """Use of a disk."""

    name: str
    """The name in the definition: ``vda``."""

    allocation_bytes: Optional[int] = None
    """Bytes that it takes on the host."""

    capacity_bytes: Optional[int] = None
    """Size as the guest sees it, bytes."""

    read_bytes: Optional[int] = None
    """Bytes read."""

    read_bytes_per_second: Optional[float] = None
    """Bytes read per second."""

    read_requests: Optional[int] = None
    """Read requests."""

    read_requests_per_second: Optional[float] = None
    """Read requests per second."""

    write_bytes: Optional[int] = None
    """Bytes written."""

    write_bytes_per_second: Optional[float] = None
    """Bytes written per second."""

    write_requests: Optional[int] = None
    """Write requests."""

    write_requests_per_second: Optional[float] = None
    """Write requests per second."""


@dataclass(frozen=True)
class InterfaceUse:
    """Use of a network interface. Directions are the guest's."""

    name: str
    """The name on the host: ``vnet3``."""

    drops: Optional[int] = None
    """Packets dropped, of both directions."""

    errors: Optional[int] = None
    """Errors of both directions."""

    rx_bytes: Optional[int] = None
    """Bytes received."""

    rx_bytes_per_second: Optional[float] = None
    """Bytes received per second."""

    rx_packets: Optional[int] = None
    """Packets received."""

    tx_bytes: Optional[int] = None
    """Bytes sent."""

    tx_bytes_per_second: Optional[float] = None
    """Bytes sent per second."""

    tx_packets: Optional[int] = None
    """Packets sent."""


@dataclass(frozen=True)
class MemoryUse:
    """Use of memory, KiB."""

    current_kib: Optional[int] = None
    """What the guest has."""

    maximum_kib: Optional[int] = None
    """What it can have at most."""

    resident_kib: Optional[int] = None
    """What QEMU's process has on the host."""

    unused_kib: Optional[int] = None
    """What the guest does not use. Guests report it only if the statistics of the balloon have a period."""

    usable_kib: Optional[int] = None
    """What the guest could use without swapping; as of ``unused_kib``."""


@dataclass(frozen=True)
class VmStatistics:
    """A VM in a round. A value is missing where the host does not know it."""

    cpu: CpuUse
    """The processor."""

    disks: List[DiskUse]
    """The disks, in the order of the definition."""

    host: str
    """The host."""

    interfaces: List[InterfaceUse]
    """The network interfaces, in the order of the definition."""

    memory: MemoryUse
    """Memory."""

    state: str
    """The state."""

    uuid: str
    """The identity."""

    vm: str
    """The name."""

    reason: Optional[str] = None
    """The reason for the state."""

    stale: Optional[Staleness] = None
    """Why values are old; none if all are of this round. Of a VM whose QEMU hangs, memory and disks are as they
    were; processor time and network are of this round if the host answers.
    """


@dataclass(frozen=True)
class StateReport:
    """The state in which a lifecycle operation, or a revert to a snapshot, left the VM."""

    state: str
    """The state when it was last asked for."""


#: What an operation yields, by its name. What is in none of these is kept as JSON.
OF_OPERATIONS: Dict[str, Any] = {
    "console": ConsoleReport,
    "cp": FileReport,
    "doctor": Diagnosis,
    "exec": ExecReport,
    "host-check": HostReport,
    "pull": FileReport,
    "push": FileReport,
    "run": ScenarioReport,
    "screenshot": ScreenshotReport,
    "snapshot-create": Snapshot,
    "snapshot-list": SnapshotList,
    "snapshot-revert": StateReport,
    "vm-destroy": StateReport,
    "vm-info": VmReport,
    "vm-list": DomainInfo,
    "vm-reboot": StateReport,
    "vm-reset": StateReport,
    "vm-restore": StateReport,
    "vm-resume": StateReport,
    "vm-save": StateReport,
    "vm-shutdown": StateReport,
    "vm-start": StateReport,
    "vm-suspend": StateReport,
    "vm-wakeup": StateReport,
    "vm-xml": XmlReport,
    "wait": WaitReport,
}


def read(op: str, data: Any) -> Any:
    """What the operation of this name yielded, from JSON. What is not of its class is kept as it is."""
    of_class = OF_OPERATIONS.get(op)
    if of_class is None:
        return data
    try:
        return reader(of_class)(data)
    except (AttributeError, KeyError, TypeError):
        return data


@lru_cache(maxsize=None)
def reader(kind: Any) -> Callable[[Any], Any]:
    """Makes values of a type from JSON. Fields that it does not know are passed over."""
    if dataclasses.is_dataclass(kind):
        types = typing.get_type_hints(kind)
        fields = [(field.name, types[field.name], field) for field in dataclasses.fields(kind)]

        def read_object(data: Any) -> Any:
            given = {}
            for name, of_type, field in fields:
                if name in data:
                    given[name] = reader(of_type)(data[name])
                elif field.default is dataclasses.MISSING:
                    raise KeyError(name)
            return typing.cast("Any", kind)(**given)

        return read_object
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        item = reader(arguments[0])
        return lambda data: [item(value) for value in data]
    if origin is dict:
        value_of = reader(arguments[1])
        return lambda data: {key: value_of(value) for key, value in data.items()}
    if origin is typing.Union:
        inner = reader(arguments[0])
        return lambda data: None if data is None else inner(data)
    if kind is str:
        # A hint with an id is an object with its text.
        return _text
    return lambda data: data


def _text(data: Any) -> Any:
    return typing.cast("Dict[str, Any]", data)["text"] if isinstance(data, dict) else data
