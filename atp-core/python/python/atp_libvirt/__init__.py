"""Operations over fleets of libvirt virtual machines.

A :class:`Fleet` has the hosts. Each of its verbs selects VMs, does one thing to all of them at once, and returns exactly one
outcome for each by its deadline::

    from atp_libvirt import Fleet

    with Fleet() as fleet:
        outcomes = fleet.exec("web-*", ["uname", "-r"], timeout=10)
        for outcome in outcomes.failed:
            print(outcome.target, outcome.error)
"""

from ._data import (
    Address,
    Diagnosis,
    DomainInfo,
    ExecReport,
    FileReport,
    Finding,
    GuestReport,
    HostReport,
    Interface,
    OsReport,
    Output,
    ScenarioReport,
    ScreenshotReport,
    StateReport,
    StepReport,
    VmReport,
    WaitReport,
)
from ._errors import (
    AtpError,
    ClosedError,
    ConfigError,
    FailedOutcomes,
    ForkedError,
    OutcomeError,
    RequestError,
    ServiceError,
)
from ._fleet import AsyncFleet, Fleet, Host
from ._outcomes import Outcome, Outcomes
from ._streams import AsyncEvents, AsyncStream, Event, Events, Stream

__all__ = [
    "Address",
    "AsyncEvents",
    "AsyncFleet",
    "AsyncStream",
    "AtpError",
    "ClosedError",
    "ConfigError",
    "Diagnosis",
    "DomainInfo",
    "Event",
    "Events",
    "ExecReport",
    "FailedOutcomes",
    "FileReport",
    "Finding",
    "Fleet",
    "ForkedError",
    "GuestReport",
    "Host",
    "HostReport",
    "Interface",
    "OsReport",
    "Outcome",
    "OutcomeError",
    "Outcomes",
    "Output",
    "RequestError",
    "ScenarioReport",
    "ScreenshotReport",
    "ServiceError",
    "StateReport",
    "StepReport",
    "Stream",
    "VmReport",
    "WaitReport",
]
