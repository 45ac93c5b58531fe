"""Streams of outcomes, in the order in which they come."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Deque, Generic, List, Optional, Type, TypeVar

from . import _native
from ._loops import loop
from ._outcomes import Outcome, Outcomes


D = TypeVar("D")


class Stream(Generic[D]):
    """An iterator of outcomes, each as soon as it is there.

    The run goes on between two outcomes, until some hundred are waiting to be read. Leaving the stream early, by :meth:`close` or
    as a context manager, ends the run: targets under way are cancelled.
    """

    def __init__(self, run: _native.Run) -> None:
        self._run = run
        self._ready: Deque[Outcome[D]] = deque()
        self._has_ended = False

    def __iter__(self) -> Stream[D]:
        return self

    def __next__(self) -> Outcome[D]:
        if not self._ready:
            self._ready.extend(() if self._has_ended else self._take(self._run.next()))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def close(self) -> None:
        """Ends the run, if it has not ended."""
        self._ready.clear()
        if not self._has_ended:
            self._has_ended = True
            self._run.abort()

    def __enter__(self) -> Stream[D]:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _take(self, native: _native.Outcomes) -> List[Outcome[D]]:
        self._has_ended = len(native) == 0
        return _outcomes(native)


class AsyncStream(Generic[D]):
    """An asynchronous iterator of outcomes, each as soon as it is there. It ends early as a :class:`Stream` does."""

    def __init__(self, run: _native.Run) -> None:
        self._run = run
        self._ready: Deque[Outcome[D]] = deque()
        self._has_ended = False

    def __aiter__(self) -> AsyncStream[D]:
        return self

    async def __anext__(self) -> Outcome[D]:
        if not self._ready and not self._has_ended:
            native = await loop().answer(self._run.next_into)
            self._has_ended = len(native) == 0
            self._ready.extend(_outcomes(native))
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Ends the run, if it has not ended."""
        self._ready.clear()
        if not self._has_ended:
            self._has_ended = True
            self._run.abort()

    async def __aenter__(self) -> AsyncStream[D]:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()


def _outcomes(native: _native.Outcomes) -> List[Outcome[Any]]:
    taken: Outcomes[Any] = Outcomes(native)
    return list(taken)
