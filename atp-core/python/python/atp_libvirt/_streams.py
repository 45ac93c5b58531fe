"""Streams: outcomes in the order in which they come, and events."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Deque, Dict, Generic, List, Optional, Type, TypeVar, Union, cast

from . import _errors, _native, _statistics
from ._loops import loop
from ._outcomes import Outcome, Outcomes

if sys.version_info >= (3, 11):
    from typing import Self
elif TYPE_CHECKING:
    from typing_extensions import Self

D = TypeVar("D")
T = TypeVar("T")

#: What is given to a verb may be secret: reports of pytest show the arguments of the last frame, which is then that of the caller.
__tracebackhide__ = True


@dataclass(frozen=True)
class Event:
    """Something that happened to a VM, or to the watch of a host."""

    #: ``event`` of a VM; ``present`` (the host is watched from now on), ``gap``, ``unreachable`` or ``removed`` of a host;
    #: ``missed`` if events came faster than they were read; ``not-found`` of a VM that is named and that no host has: it is ``target`` of
    #: ``data``, and is watched from when there is one of this name.
    item: str
    #: The host.
    host: Optional[str]
    #: The VM.
    vm: Optional[str]
    #: The kind of an ``event``, such as ``lifecycle``.
    kind: Optional[str]
    #: All of it, as the command line prints it as JSON.
    data: Dict[str, Any]


@dataclass(frozen=True)
class ConsoleLine:
    """A line of a serial console, or the end of a capture that failed."""

    #: The host.
    host: Optional[str]
    #: The VM.
    vm: Optional[str]
    #: The line, without control characters and without its end. Marks, ``--- TIME: … ---``, say where output is missing.
    text: str
    #: Why no more lines of this VM come.
    error: Optional[_errors.OutcomeError] = None


class _Stream(Generic[T]):
    """What is taken in portions, one by one. An empty portion is the end."""

    def __init__(self, source: Union[_native.Run, _native.Feed, _native.Pipe], fleet: object) -> None:
        self._source = source
        # What it is of is not closed while it is read.
        self._fleet = fleet
        self._ready: Deque[T] = deque()
        self._has_ended = False
        self._is_closed = False

    def _take(self, portion: Any) -> None:
        if len(portion) == 0:
            self._has_ended = True
        elif not self._is_closed:
            self._ready.extend(self._read(portion))

    def _read(self, portion: Any) -> List[T]:
        raise NotImplementedError

    def _end(self) -> None:
        self._is_closed = True
        self._ready.clear()
        if not self._has_ended:
            self._has_ended = True
            self._source.abort()


class _Iterator(_Stream[T]):
    """A stream for threads. They may share it: each item is given once."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                if self._has_ended:
                    raise StopIteration from None
            try:
                portion = self._source.next()
            except _errors.AtpError as error:
                self._has_ended = True
                # Another thread has closed it.
                if self._is_closed and isinstance(error, _errors.ClosedError):
                    raise StopIteration from None
                raise
            self._take(portion)

    def close(self) -> None:
        """Ends it early: targets under way are cancelled."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


class _AsyncIterator(_Stream[T]):
    """A stream for coroutines."""

    #: The next portion, while it is waited for. It holds the source, and not this.
    _asked: Optional[asyncio.Task[Any]] = None

    def __del__(self) -> None:
        # A task that was cancelled while it read this has left it. The end also answers what is still asked for.
        if not self._has_ended:
            with suppress(_errors.ForkedError):
                self._source.abort()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ready and not self._has_ended:
            try:
                await self._wait(None)
            except _errors.AtpError:
                self._has_ended = True
                raise
            except asyncio.CancelledError:
                # Who keeps the error, and so this frame, does not keep the stream.
                del self
                raise
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def _wait(self, timeout: Optional[float]) -> None:
        """Waits for the next portion, for so many seconds at most."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(loop().answer(self._source.next_into))
            self._asked.add_done_callback(_retrieved)
        asked = self._asked
        # A wait that is cancelled must not take the next portion with it: the next wait gets it.
        try:
            await asyncio.wait([asked], timeout=timeout)
        except asyncio.CancelledError:
            # As above.
            del self
            raise
        if self._asked is asked and asked.done():
            self._asked = None
            self._take(asked.result())

    async def aclose(self) -> None:
        """Ends it early: targets under way are cancelled."""
        self._end()
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()


class _Run:
    """What is known of the run of a stream."""

    _source: Union[_native.Run, _native.Feed, _native.Pipe]

    def stop(self) -> None:
        """Starts no more targets, and ends captures of consoles with what they have. Outcomes still come."""
        cast("_native.Run", self._source).stop()

    @property
    def run_number(self) -> Optional[int]:
        """The number of the run in the service, for ``resume``. None before the run was begun there, and without a service."""
        return cast("_native.Run", self._source).run_number

    @property
    def notices(self) -> List[str]:
        """What a person should know, of what is known by now: how the targets were found, and whether the journal failed."""
        return cast("_native.Run", self._source).notices

    @property
    def done_before(self) -> int:
        """With ``resume``: the number of targets that an earlier run has done. It is known when the first outcome has come."""
        return cast("_native.Run", self._source).done_before


class Stream(_Run, _Iterator[Outcome[D]]):
    """An iterator of outcomes, each as soon as it is there.

    The run goes on between two outcomes, until some hundred are waiting to be read. Leaving the stream early, by ``close`` or
    as a context manager, ends the run: targets under way are cancelled.
    """

    def _read(self, portion: Any) -> List[Outcome[D]]:
        return _outcomes(portion)


class AsyncStream(_Run, _AsyncIterator[Outcome[D]]):
    """An asynchronous iterator of outcomes, each as soon as it is there. It ends early as a :class:`Stream` does."""

    def _read(self, portion: Any) -> List[Outcome[D]]:
        return _outcomes(portion)


class Events(_Iterator[Event]):
    """An iterator of events. It ends when it is closed, and when its fleet is."""

    def _read(self, portion: Any) -> List[Event]:
        return _events(portion)


class AsyncEvents(_AsyncIterator[Event]):
    """An asynchronous iterator of events. It ends when it is closed, and when its fleet is."""

    def _read(self, portion: Any) -> List[Event]:
        return _events(portion)


class ConsoleLines(_Iterator[ConsoleLine]):
    """An iterator of lines of consoles. It ends at the timeout, and when it is closed."""

    def _read(self, portion: Any) -> List[ConsoleLine]:
        return _lines(portion)


class AsyncConsoleLines(_AsyncIterator[ConsoleLine]):
    """An asynchronous iterator of lines of consoles. It ends at the timeout, and when it is closed."""

    def _read(self, portion: Any) -> List[ConsoleLine]:
        return _lines(portion)


class Samples(_Iterator[_statistics.Statistics]):
    """An iterator of rounds of statistics. It ends when it is closed."""

    def _read(self, portion: Any) -> List[_statistics.Statistics]:
        return [_statistics.read(text) for text in portion]


class AsyncSamples(_AsyncIterator[_statistics.Statistics]):
    """An asynchronous iterator of rounds of statistics. It ends when it is closed."""

    def _read(self, portion: Any) -> List[_statistics.Statistics]:
        return [_statistics.read(text) for text in portion]


def _retrieved(asked: asyncio.Task[Any]) -> None:
    """An answer that nobody waits for any more is not complained of."""
    if not asked.cancelled():
        asked.exception()


def _lines(portion: List[str]) -> List[ConsoleLine]:
    lines: List[ConsoleLine] = []
    for text in portion:
        data = cast("Dict[str, Any]", json.loads(text))
        if data["event"] == "console":
            lines.append(ConsoleLine(data["host"], data["vm"], data["line"]))
        elif data.get("error") is not None:
            error = _errors.of_outcome(data["effect"], data["error"])
            lines.append(ConsoleLine(data.get("host"), data.get("vm"), "", error))
    return lines


def _outcomes(portion: _native.Outcomes) -> List[Outcome[Any]]:
    taken: Outcomes[Any] = Outcomes(portion)
    return list(taken)


def _events(portion: List[str]) -> List[Event]:
    events: List[Event] = []
    for text in portion:
        data = cast("Dict[str, Any]", json.loads(text))
        events.append(Event(data["item"], data.get("host"), data.get("vm"), data.get("event"), data))
    return events
