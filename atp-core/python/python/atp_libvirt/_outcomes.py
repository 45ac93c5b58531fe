"""Outcomes: one for each target."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    Hashable,
    Iterator,
    List,
    Optional,
    TypeVar,
    Union,
    cast,
    overload,
)

from . import _data, _errors, _native
from ._table import Table
from ._verbs import escaped

D = TypeVar("D")


def selector(host: Optional[str], vm: Optional[str]) -> str:
    """The selector of one target alone."""
    if vm is None:
        return f"{host}/" if host else ""
    return f"{host or '*'}/{escaped(vm)}"


class Outcome(Generic[D]):
    """The result of one operation on one target."""

    __slots__ = ("_data", "_error", "_native")

    def __init__(self, native: _native.Outcome) -> None:
        self._native = native
        self._data: Any = _UNREAD
        self._error: Any = _UNREAD

    @property
    def host(self) -> Optional[str]:
        """The host. None only for a VM that was selected on several hosts and found on none of them."""
        return self._native.host

    @property
    def vm(self) -> Optional[str]:
        """The VM's name. None if the host is the target, or could not be asked for its VMs."""
        return self._native.vm

    @property
    def target(self) -> str:
        """The selector of this target alone: ``HOST/VM``, or ``HOST/`` if it is the host."""
        return selector(self.host, self.vm)

    @property
    def uuid(self) -> Optional[str]:
        """The VM's identity, where it is known."""
        return self._native.uuid

    @property
    def found_on(self) -> Optional[str]:
        """The other host that the VM was found on, if it has moved."""
        return self._native.found_on

    @property
    def op(self) -> str:
        """The operation's name, such as ``exec`` or ``vm-start``."""
        return self._native.op

    @property
    def status(self) -> str:
        """``ok``, ``unchanged``, ``failed``, ``timeout``, ``unreachable``, ``skipped`` or ``cancelled``."""
        return self._native.status

    @property
    def ok(self) -> bool:
        """Whether the target is as it was asked for."""
        return self._native.is_success

    @property
    def effect(self) -> str:
        """Whether anything happened to the target: ``none``, ``done`` or ``unknown``."""
        return self._native.effect

    @property
    def attempts(self) -> int:
        """The number of attempts; 0 if it was never started."""
        return self._native.attempts

    @property
    def from_earlier_run(self) -> bool:
        """Whether an earlier run of the same journal did this, with ``resume``; it was not repeated."""
        return self._native.is_from_earlier_run

    @property
    def duration(self) -> float:
        """Seconds from the start of the work on this target to its end."""
        return self._native.duration_ms / 1000

    @property
    def data(self) -> Optional[D]:
        """What the operation yielded, if anything."""
        if self._data is _UNREAD:
            text = self._native.data
            self._data = None if text is None else _data.read(self._native.op, json.loads(text))
        return cast("Optional[D]", self._data)

    @property
    def error(self) -> Optional[_errors.OutcomeError]:
        """What went wrong; None if it succeeded."""
        if self._error is _UNREAD:
            text = self._native.error
            self._error = None if text is None else _errors.of_outcome(self.effect, json.loads(text))
        return cast("Optional[_errors.OutcomeError]", self._error)

    def found(self) -> Optional[_native.Found]:
        """The VM that a listing has found, for `_vm`."""
        return self._native.found()

    def unwrap(self) -> D:
        """What the operation yielded, or the error as an exception. Of one that yields nothing, it is None."""
        if self.error is not None:
            raise self.error
        if not self.ok:
            raise _errors.OutcomeError(f"{self.op} on {self.target}: {self.status}", effect=self.effect)
        return cast("D", self.data)

    def to_dict(self) -> Dict[str, Any]:
        """All of it, as the command line prints it as JSON."""
        return cast("Dict[str, Any]", json.loads(self._native.json()))

    def __reduce__(self) -> Any:
        return (Outcome, (self._native,))

    def __repr__(self) -> str:
        shown = f": {self.error.kind}" if self.error is not None else ""
        return f"<Outcome {self.op} {self.target} {self.status}{shown}>"


class Outcomes(Table, Generic[D]):
    """Outcomes in the order of hosts and VMs: a sequence, and a table for data frames.

    Readers of the Arrow PyCapsule interface take it as it is: ``polars.DataFrame(outcomes)``, ``pyarrow.table(outcomes)``. It is not
    registered as a ``collections.abc.Sequence``, as polars would then make a column of objects of it.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Outcomes) -> None:
        self._native = native

    def __len__(self) -> int:
        return len(self._native)

    @overload
    def __getitem__(self, index: int) -> Outcome[D]: ...
    @overload
    def __getitem__(self, index: slice) -> Outcomes[D]: ...
    def __getitem__(self, index: Union[int, slice]) -> Union[Outcome[D], Outcomes[D]]:
        if isinstance(index, slice):
            return Outcomes(self._native.select(list(range(len(self))[index])))
        return Outcome(self._native.item(range(len(self))[index]))

    def __iter__(self) -> Iterator[Outcome[D]]:
        return (Outcome(self._native.item(index)) for index in range(len(self)))

    @property
    def ok(self) -> Outcomes[D]:
        """Those that succeeded."""
        return Outcomes(self._native.select(self._native.indices(True)))

    @property
    def failed(self) -> Outcomes[D]:
        """Those that did not: failed, timed out, unreachable, skipped or cancelled."""
        return Outcomes(self._native.select(self._native.indices(False)))

    @property
    def statistics(self) -> Optional[Dict[str, Any]]:
        """The numbers of the run, if these are all of its outcomes."""
        text = self._native.statistics
        return None if text is None else cast("Dict[str, Any]", json.loads(text))

    @property
    def notices(self) -> List[str]:
        """What a person should know about how the targets were found."""
        return self._native.notices

    @property
    def done_before(self) -> int:
        """With ``resume``: the number of targets that an earlier run has done. They have no outcome here."""
        return self._native.done_before

    @property
    def run_number(self) -> Optional[int]:
        """The number of the run in the service that ran it, for ``resume``; None without a service."""
        return self._native.run_number

    def raise_for_failures(self, *, empty: bool = False) -> Outcomes[D]:
        """Returns itself if every target succeeded.

        :param empty: A run for which no VM was selected is accepted too. A part of outcomes, such as ``ok``, may always be empty.
        :raises FailedOutcomes: One or more did not.
        :raises RequestError: No VM was selected.
        """
        if not empty and not len(self) and self._native.statistics is not None and not self.done_before:
            raise _errors.nothing_selected()
        failures = self.failed
        if failures:
            raise _errors.failed(failures, len(self))
        return self

    def values(self) -> List[D]:
        """What the operation yielded on each target.

        :raises OutcomeError: the first that failed.
        """
        return [outcome.unwrap() for outcome in self]

    def grouped(self, key: Optional[Callable[[Outcome[D]], Hashable]] = None) -> Dict[Hashable, Outcomes[D]]:
        """The outcomes by a key; the largest group first.

        Without ``key``, those that are alike are together: by the error's kind, or by what was yielded (of a process, what it
        wrote to stdout, without the end of the last line).
        """
        groups: Dict[Hashable, List[int]] = {}
        for index, outcome in enumerate(self):
            groups.setdefault((key or _likeness)(outcome), []).append(index)
        by_size = sorted(groups.items(), key=lambda group: -len(group[1]))
        return {key: Outcomes(self._native.select(indices)) for key, indices in by_size}

    def to_junit(self, path: Union[str, os.PathLike[str]], *, title: Optional[str] = None) -> None:
        """Writes them to a file as JUnit XML, as ``atp --junit`` does: a test case for each target, of a scenario for each step.

        :param title: The suite's name; without it the operation's, or the scenario's.
        :raises OSError: The file cannot be written.

        >>> fleet.exec("h1/*", ["true"]).to_junit("report.xml", title="nightly")
        """
        Path(path).write_text(self._native.junit(title), encoding="utf-8")

    def to_html(self, path: Union[str, os.PathLike[str]], *, title: Optional[str] = None) -> None:
        """Writes them to a file as one HTML page, as ``atp --html`` does, with pictures and texts of the evidence. It needs no
        network and no scripts. Its bars show how long each target took.

        :param title: The page's title; without it the operation's name, or the scenario's.
        :raises OSError: The file cannot be written.

        >>> fleet.exec("h1/*", ["true"]).to_html("report.html")
        """
        Path(path).write_text(self._native.html(os.fspath(path), title), encoding="utf-8")

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._native.arrow_stream(requested_schema)

    def __reduce__(self) -> Any:
        return (Outcomes, (self._native,))

    def __repr__(self) -> str:
        counts: Dict[str, int] = {}
        for outcome in self:
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
        shown = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<Outcomes {shown or 'none'}>"


class _Unread:
    """The place of a value that was not read yet."""


_UNREAD = _Unread()


def _likeness(outcome: Outcome[Any]) -> Hashable:
    if outcome.error is not None:
        return outcome.error.kind
    data = outcome.data
    if isinstance(data, _data.ExecReport):
        return data.stdout.text.rstrip("\r\n")
    return json.dumps(outcome.to_dict()["data"], sort_keys=True)
