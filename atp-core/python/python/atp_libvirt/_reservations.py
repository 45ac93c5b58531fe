"""Reservations: VMs that no other job gets, as ``atp reserve`` makes them."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import CancelledError as NotStarted
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type, Union

from . import _native
from ._errors import AtpError, NotFreeError
from ._loops import loop
from ._outcomes import Outcome
from ._verbs import escaped

#: How often it is looked whether VMs have become free, seconds.
INTERVAL = 0.5

#: The same, where a service is asked by many.
_SERVICE_INTERVAL = 1.0


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

    def __init__(
        self, reservations: Sequence[Reservation], end: Callable[[List[Reservation]], List[Reservation]]
    ) -> None:
        self._reservations = list(reservations)
        self._end = end
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
        return self._end(self._reservations)

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
        # It takes as long as the disk or the service does. A task that is cancelled meanwhile releases them too.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.release))

    def __repr__(self) -> str:
        return f"<Reserved {', '.join(self.targets) or 'none'}>"


@dataclass
class Attempt:
    """Tries to reserve VMs in a file, until one succeeds or the fleet is closed."""

    core: _native.Core
    file: str
    count: int
    owner: str
    time: float
    #: Host, name and UUID of each VM that is selected.
    candidates: List[Tuple[str, str, str]]
    #: Why VMs may be selected that are not known.
    causes: List[str]
    #: Whether hosts did not say which VMs they have.
    is_partial: bool = False
    free: int = 0

    def look(self, listed: Sequence[Outcome[Any]]) -> None:
        """Takes what a listing has found. Of a host that did not answer, the VMs are those that it had before.

        :raises NotFreeError: Too few are selected.
        """
        failed = [outcome for outcome in listed if not outcome.ok]
        silent = {outcome.host for outcome in failed if outcome.error is None or outcome.error.kind != "vm-not-found"}
        self.causes = list(dict.fromkeys(outcome.error.message for outcome in failed if outcome.error is not None))
        self.is_partial = bool(silent)
        known = [candidate for candidate in self.candidates if candidate[0] in silent]
        found = [
            (outcome.host, outcome.vm, outcome.uuid)
            for outcome in listed
            if outcome.ok and outcome.host is not None and outcome.vm is not None and outcome.uuid is not None
        ]
        self.candidates = list(dict.fromkeys(known + found))
        if len({uuid for _, _, uuid in self.candidates}) < self.count and not self.is_partial:
            raise _too_few_selected(self.count, len(self.candidates), self.causes)

    def try_once(self) -> Optional[Reserved]:
        """None if too few are free."""
        text, self.free = self.core.reserve_in_file(self.file, self.candidates, self.count, self.owner, self.time)
        if text is None:
            return None

        def end(reserved: List[Reservation]) -> List[Reservation]:
            return release(self.file, self.owner, [(one.host, one.uuid) for one in reserved])

        return Reserved(_read(json.loads(text)), end)

    async def try_in_loop(self) -> Optional[Reserved]:
        """As :meth:`try_once`. If the task is cancelled, what was reserved is given back."""
        # Another process may have the lock for long.
        executor = ThreadPoolExecutor(1)
        trying = executor.submit(self.try_once)
        executor.shutdown(wait=False)
        try:
            return await asyncio.wrap_future(trying)
        except asyncio.CancelledError:
            threading.Thread(target=_give_back, args=(trying,)).start()
            raise

    @property
    def interval(self) -> float:
        """For how long it is waited before the next try, seconds."""
        return INTERVAL

    def refusal(self) -> NotFreeError:
        """The error of one that does not wait any more."""
        return _too_few_free(self.count, self.free, len(self.candidates), self.causes)


@dataclass
class ServiceAttempt:
    """Tries to reserve VMs in a service, until one succeeds."""

    core: _native.Core
    targets: Dict[str, Any]
    count: int
    owner: str
    time: float
    #: What the service has answered last.
    answer: Optional[Dict[str, Any]] = None

    def try_once(self) -> Optional[Reserved]:
        """None if too few are free."""
        return self._read(self.core.reserve(self._request()))

    async def try_in_loop(self) -> Optional[Reserved]:
        """As :meth:`try_once`. If the task is cancelled, what was reserved is given back."""
        request = self._request()
        return self._read(await loop().answer(lambda bridge, number: self.core.reserve_into(request, bridge, number)))

    @property
    def interval(self) -> float:
        """For how long it is waited before the next try, seconds."""
        return _SERVICE_INTERVAL

    def refusal(self) -> NotFreeError:
        """The error of one that does not wait any more."""
        answer = self.answer or {"free": 0, "selected": 0, "settled": []}
        # A host that could not be listed has none that could be reserved.
        causes = [outcome["error"]["message"] for outcome in answer["settled"] if outcome.get("error")]
        return _too_few_free(self.count, answer["free"], answer["selected"], causes)

    def _request(self) -> str:
        time = round(self.time * 1000)
        return json.dumps({"targets": self.targets, "count": self.count, "owner": self.owner, "for_ms": time})

    def _read(self, claim: _native.Claim) -> Optional[Reserved]:
        answer: Dict[str, Any] = json.loads(claim.take())
        self.answer = answer
        if answer["reservations"]:
            return Reserved(_read(answer["reservations"]), self._end)
        if answer["selected"] < self.count and not answer["settled"]:
            raise _too_few_selected(self.count, answer["selected"], [])
        return None

    def _end(self, reserved: List[Reservation]) -> List[Reservation]:
        return release_in_service(self.core, self.owner, [one.target for one in reserved])


def _too_few_free(count: int, free: int, selected: int, causes: Sequence[str]) -> NotFreeError:
    return NotFreeError(
        f"{count} VMs are wanted, and {free} of the {selected} selected are free",
        kind="not-free",
        retryable=True,
        hint="wait=SECONDS waits until enough are free",
        causes=causes,
    )


def _too_few_selected(count: int, selected: int, causes: Sequence[str]) -> NotFreeError:
    return NotFreeError(
        f"{count} VMs are wanted, and {selected} are selected",
        kind="not-free",
        hint="fleet.vms(selectors) shows which are selected",
        causes=causes,
    )


def _give_back(trying: Future[Optional[Reserved]]) -> None:
    """Releases what an attempt has reserved that nobody waits for any more."""
    try:
        reserved = trying.result()
        if reserved is not None:
            reserved.release()
    except (AtpError, NotStarted):
        # Nothing was reserved; or it ends with its time.
        pass


def _checked_owner(count: int, owner: Optional[str], time: float) -> str:
    """The owner, or a name that no other has."""
    if count < 1:
        raise ValueError("count is at least 1")
    if not time > 0:
        raise ValueError("time is more than 0 seconds")
    return owner or f"python-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def attempt(
    core: _native.Core,
    listed: Sequence[Outcome[Any]],
    file: Union[str, os.PathLike[str]],
    count: int,
    owner: Optional[str],
    time: float,
) -> Attempt:
    """An attempt on VMs that were listed.

    :raises NotFreeError: Too few are selected.
    """
    attempt = Attempt(core, _absolute(file), count, _checked_owner(count, owner, time), time, [], [])
    attempt.look(listed)
    return attempt


def attempt_in_service(
    core: _native.Core, request: Dict[str, Any], count: int, owner: Optional[str], time: float
) -> ServiceAttempt:
    """An attempt on the VMs that a request selects."""
    if request["policy"]:
        raise TypeError("through a service, reserve takes of the options of verbs: exclude, state and labels")
    return ServiceAttempt(core, request["targets"], count, _checked_owner(count, owner, time), time)


def release(
    file: Union[str, os.PathLike[str]], owner: str, vms: Optional[Sequence[Tuple[str, str]]] = None
) -> List[Reservation]:
    """Ends reservations of an owner: those of these VMs, each by its host and UUID, or all."""
    return _read(json.loads(_native.release(_absolute(file), owner, None if vms is None else list(vms))))


def release_in_service(core: _native.Core, owner: str, selectors: Sequence[str] = ()) -> List[Reservation]:
    """Ends reservations of an owner in a service: those of the VMs that are selected, or all."""
    return _read(json.loads(core.release(owner, list(selectors))))


def release_selected(
    core: _native.Core, file: Union[str, os.PathLike[str]], owner: str, selectors: Sequence[str]
) -> List[Reservation]:
    """Ends reservations of an owner in a file: those of the VMs that are selected."""
    return _read(json.loads(core.release_in_file(_absolute(file), owner, list(selectors))))


def listed(core: _native.Core, file: Union[str, os.PathLike[str], None]) -> List[Reservation]:
    """The reservations that have not ended, in a file or in a service."""
    return _read(json.loads(core.reservations() if file is None else _native.reservations(_absolute(file))))


def _absolute(path: Union[str, os.PathLike[str]]) -> str:
    return os.path.abspath(os.fspath(path))


def _read(reservations: List[Dict[str, Any]]) -> List[Reservation]:
    return [
        Reservation(
            one["host"],
            one["vm"],
            one["uuid"],
            one["owner"],
            datetime.fromtimestamp(min(one["until_ms"] / 1000, _LAST), timezone.utc),
        )
        for one in reservations
    ]


#: The last second that a datetime has: later times are for ever.
_LAST = 253402300799
