"""How coroutines wait for the extension module: its threads never run Python code, they make a descriptor readable."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Callable, Dict
from weakref import WeakKeyDictionary

from . import _native

#: What is given to a verb may be secret: reports of pytest show the arguments of the last frame, which is then that of the caller.
__tracebackhide__ = True


class Loop:
    """The answers that one event loop waits for."""

    def __init__(self, of: asyncio.AbstractEventLoop) -> None:
        self._bridge = _native.Bridge()
        self._waiting: Dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()
        of.add_reader(self._bridge.fileno(), self._take)

    async def answer(self, ask: Callable[[_native.Bridge, int], None]) -> Any:
        """Asks, and waits for the answer."""
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            ask(self._bridge, number)
            return await future
        finally:
            del self._waiting[number]

    def _take(self) -> None:
        for number, answer in self._bridge.take():
            future = self._waiting.get(number)
            # One that was cancelled waits for nothing.
            if future is None or future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Loop] = WeakKeyDictionary()


def loop() -> Loop:
    """The answers that the running event loop waits for."""
    running: Any = asyncio.get_running_loop()
    found = _loops.get(running)
    if found is None:
        found = _loops[running] = Loop(running)
    return found
