"""Reservations: VMs that no other job gets, as ``atp reserve`` makes them."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Type, Union, cast

from . import _native
from ._errors import NotFreeError
from ._outcomes import Outcome

#: How often it is looked whether VMs have become free, seconds.
INTERVAL = 0.5


@dataclass(frozen=True)
class Reservation:
    """A VM that an owner has until a time."""

    #: The host that it was on when it was reserved.
    host: str
    #: Its name.
    vm: str
    #: Its identity: it is reserved on whatever host it is.
    uuid: str
    #: The owner.
    owner: str
    #: When it is free again, without a release.
    until: datetime

    @property
    def target(self) -> str:
        """The selector of this VM alone."""
        return f"{self.host}/{escaped(self.vm)}"


class Reserved:
    """Reserved VMs: a sequence of :class:`Reservation`. As a context manager it releases them at its end."""

    def __init__(self, file: str, reservations: Sequence[Reservation]) -> None:
        self._file = file
        self._reservations = list(reservations)
        self._process = os.getpid()

    @property
    def targets(self) -> List[str]:
        """The selectors of these VMs, for the verbs of the fleet."""
        return [reservation.target for reservation in self._reservations]

    def __len__(self) -> int:
        return len(self._reservations)

    def __getitem__(self, index: int) -> Reservation:
        return self._reservations[index]

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self._reservations)

    def release(self) -> List[Reservation]:
        """Releases them before their time ends. Returns those that had not ended. A process that was forked releases nothing."""
        if not self._reservations or os.getpid() != self._process:
            return []
        return release(self._file, self._reservations[0].owner, [one.uuid for one in self._reservations])

    def __enter__(self) -> Reserved:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.release()

    async def __aenter__(self) -> Reserved:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        # It takes as long as the disk does.
        self.release()

    def __repr__(self) -> str:
        return f"<Reserved {', '.join(self.targets) or 'none'}>"


@dataclass
class Attempt:
    """Tries to reserve VMs, until one succeeds."""

    file: str
    count: int
    owner: str
    time: float
    candidates: List[Tuple[str, str, str]]
    free: int = 0

    def try_once(self) -> Optional[Reserved]:
        """None if too few are free."""
        text, self.free = _native.reserve(self.file, self.candidates, self.count, self.owner, self.time)
        return None if text is None else Reserved(self.file, _read(text))

    def refusal(self) -> NotFreeError:
        """The error of one that does not wait any more."""
        return NotFreeError(
            f"{self.count} VMs are wanted, and {self.free} of the {len(self.candidates)} selected are free",
            kind="not-free",
            retryable=True,
            hint="wait=SECONDS waits until enough are free",
        )


def attempt(
    listed: Sequence[Outcome[Any]], file: Union[str, os.PathLike[str]], count: int, owner: Optional[str], time: float
) -> Attempt:
    """An attempt on VMs that were listed."""
    if count < 1:
        raise ValueError("count is at least 1")
    candidates = [
        (outcome.host, outcome.vm, outcome.uuid)
        for outcome in listed
        if outcome.host is not None and outcome.vm is not None and outcome.uuid is not None
    ]
    if len({uuid for _, _, uuid in candidates}) < count:
        raise NotFreeError(
            f"{count} VMs are wanted, and {len(candidates)} are selected",
            kind="not-free",
            hint="fleet.vms(selectors) shows which are selected",
        )
    owner = owner or f"python-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return Attempt(_absolute(file), count, owner, time, candidates)


def release(file: Union[str, os.PathLike[str]], owner: str, uuids: Optional[Sequence[str]] = None) -> List[Reservation]:
    """Ends reservations of an owner: those of these VMs, or all."""
    return _read(_native.release(_absolute(file), owner, None if uuids is None else list(uuids)))


def _absolute(path: Union[str, os.PathLike[str]]) -> str:
    return os.path.abspath(os.fspath(path))


def escaped(name: str) -> str:
    """A VM's name as a selector: no character has a meaning of its own."""
    return "".join(char if char.isalnum() or char in "._-" else f"\\{char}" for char in name)


def _read(text: str) -> List[Reservation]:
    return [
        Reservation(
            one["host"],
            one["vm"],
            one["uuid"],
            one["owner"],
            datetime.fromtimestamp(min(one["until_ms"] / 1000, _LAST), timezone.utc),
        )
        for one in cast("List[Dict[str, Any]]", json.loads(text))
    ]


#: The last second that a datetime has: later times are for ever.
_LAST = 253402300799
