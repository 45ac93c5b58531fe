"""Plans: what a verb would do, as far as the states of VMs tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, cast

from . import _errors, _native
from ._data import DomainInfo, reader
from ._outcomes import Outcomes, selector


@dataclass(frozen=True)
class PlannedTarget:
    """A target of a plan."""

    #: The host.
    host: str
    #: The VM's name. None if the host is the target.
    vm: Optional[str]
    #: The VM's identity.
    uuid: Optional[str]
    #: The VM as its host lists it now.
    listed: Optional[DomainInfo]
    #: ``proceed`` (it would be worked on), ``unchanged`` (there is nothing to do) or ``not-running`` (its state does not allow it).
    expected: str
    #: Why it would fail, where its state tells.
    error: Optional[_errors.OutcomeError]

    @property
    def target(self) -> str:
        """The selector of this target alone: ``HOST/VM``, or ``HOST/`` if it is the host."""
        return selector(self.host, self.vm)


@dataclass(frozen=True)
class Plan:
    """What a verb would do now, as ``atp --dry-run`` tells it. Nothing was changed, and a VM may be in another state later."""

    #: The operation's name, such as ``vm-reboot``.
    op: str
    #: Whether it takes a running VM away from its users.
    disruptive: bool
    #: The targets, by host and then VM, each once.
    targets: List[PlannedTarget]
    #: What is known already, and no run can change: hosts that could not be listed, VMs that do not exist.
    settled: Outcomes[Any]
    #: What a person should know about how the targets were found.
    notices: List[str]
    #: The number of targets that an earlier run of the journal has done, with ``resume``.
    done_before: int

    @property
    def to_do(self) -> List[PlannedTarget]:
        """Those that would be worked on."""
        return [target for target in self.targets if target.expected not in ("unchanged", "not-running")]

    @property
    def unchanged(self) -> List[PlannedTarget]:
        """Those that are as they are to be: nothing would be sent to them."""
        return [target for target in self.targets if target.expected == "unchanged"]

    @property
    def refused(self) -> List[PlannedTarget]:
        """Those that would fail, as their state does not allow it. ``error`` says why."""
        return [target for target in self.targets if target.expected == "not-running"]


def read(texts: List[str]) -> Plan:
    """A plan of the extension module."""
    report, settled = texts
    plan: Dict[str, Any] = json.loads(report)
    return Plan(
        op=plan["op"],
        disruptive=plan["disruptive"],
        targets=[_target(target) for target in plan["targets"]],
        settled=Outcomes(_native.Outcomes(settled)),
        notices=plan["notices"],
        done_before=plan["done_before"],
    )


def _target(target: Dict[str, Any]) -> PlannedTarget:
    listed, refusal = target.get("listed"), target.get("refusal")
    error = None
    if refusal is not None:
        error = _errors.of_outcome("none", {**refusal, "message": f"it would fail: {refusal['message']}"})
    return PlannedTarget(
        host=target["host"],
        vm=target["vm"],
        uuid=target["uuid"],
        listed=None if listed is None else cast("DomainInfo", reader(DomainInfo)(listed)),
        expected=target["dry_run"],
        error=error,
    )
