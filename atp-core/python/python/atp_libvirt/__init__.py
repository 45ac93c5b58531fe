"""Operations over fleets of libvirt virtual machines.

A :class:`Fleet` has the hosts. Each of its verbs selects VMs, does one thing to all of them at once, and returns exactly one
outcome for each by its deadline::

    from atp_libvirt import Fleet

    with Fleet() as fleet:
        outcomes = fleet.exec("web-*", ["uname", "-r"], timeout=10)
        for outcome in outcomes.failed:
            print(outcome.target, outcome.error)
"""

from ._bytes import AsyncByteStream, ByteStream, Expected
from ._data import (
    Address,
    ConsoleReport,
    Diagnosis,
    DomainInfo,
    ExecReport,
    FileReport,
    Finding,
    GuestReport,
    HostReport,
    HostStatistics,
    Interface,
    OsReport,
    Output,
    ScenarioReport,
    ScreenshotReport,
    Snapshot,
    SnapshotList,
    StateReport,
    StepReport,
    VmReport,
    VmStatistics,
    WaitReport,
    XmlReport,
)
from ._errors import (
    AtpError,
    ClosedError,
    ConfigError,
    FailedOutcomes,
    ForkedError,
    NotFreeError,
    OutcomeError,
    RequestError,
    ServiceError,
)
from ._fleet import AsyncFleet, Fleet, Host
from ._journals import Journal, JournalTarget, read_journal
from ._outcomes import Outcome, Outcomes
from ._plans import Plan, PlannedTarget
from ._reservations import Reservation, Reserved
from ._statistics import Statistics
from ._streams import (
    AsyncConsoleLines,
    AsyncEvents,
    AsyncSamples,
    AsyncStream,
    ConsoleLine,
    ConsoleLines,
    Event,
    Events,
    Samples,
    Stream,
)
from ._verbs import check_scenario
from ._vm import AsyncVm, Vm

__all__ = [
    "Address",
    "AsyncByteStream",
    "AsyncConsoleLines",
    "AsyncEvents",
    "AsyncFleet",
    "AsyncSamples",
    "AsyncStream",
    "AsyncVm",
    "AtpError",
    "ByteStream",
    "ClosedError",
    "ConfigError",
    "ConsoleLine",
    "ConsoleLines",
    "ConsoleReport",
    "Diagnosis",
    "DomainInfo",
    "Event",
    "Events",
    "ExecReport",
    "Expected",
    "FailedOutcomes",
    "FileReport",
    "Finding",
    "Fleet",
    "ForkedError",
    "GuestReport",
    "Host",
    "HostReport",
    "HostStatistics",
    "Interface",
    "Journal",
    "JournalTarget",
    "NotFreeError",
    "OsReport",
    "Outcome",
    "OutcomeError",
    "Outcomes",
    "Output",
    "Plan",
    "PlannedTarget",
    "RequestError",
    "Reservation",
    "Reserved",
    "Samples",
    "ScenarioReport",
    "ScreenshotReport",
    "ServiceError",
    "Snapshot",
    "SnapshotList",
    "StateReport",
    "Statistics",
    "StepReport",
    "Stream",
    "Vm",
    "VmReport",
    "VmStatistics",
    "WaitReport",
    "XmlReport",
    "check_scenario",
    "read_journal",
]
